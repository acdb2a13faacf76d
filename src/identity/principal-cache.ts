/** Principals of tokens that were verified, by SHA-256 of the token. Failures are not kept: they cost the caller, not us. */
import { checkTimeUnless } from './check-claims.ts'
import type { ConfiguredIssuer } from './configured-issuers.ts'
import type { Principal } from './principal.ts'

export interface CachedPrincipal {
  issuer: ConfiguredIssuer
  /** Of the key that verified the token. */
  fingerprint: string
  principal: Principal
}

export interface PrincipalCache {
  /**
   * Undefined where the token must be verified (again).
   * @throws AccessError as `checkTime`, since time passes for a cached token too.
   */
  get(sha256: string, mayOutlive?: (signed: Principal) => boolean | Promise<boolean>): Promise<Principal | undefined>
  set(sha256: string, entry: CachedPrincipal): void
  clear(): void
}

export function createPrincipalCache(maxEntries: number, now: () => number): PrincipalCache {
  const entries = new Map<string, CachedPrincipal>()

  // Insertion order is order of use: the first entry is the one that was unused longest.
  function set(sha256: string, entry: CachedPrincipal): void {
    entries.delete(sha256)
    entries.set(sha256, entry)
    if (entries.size <= maxEntries) return
    const [oldest] = entries.keys()
    if (oldest !== undefined) entries.delete(oldest)
  }

  return {
    set,
    async get(sha256, mayOutlive = () => false) {
      const entry = entries.get(sha256)
      if (entry === undefined) return undefined
      const { issuer, principal, fingerprint } = entry
      const keys = await issuer.keys.current()
      entries.delete(sha256)
      // A key that the issuer has withdrawn takes its tokens with it.
      if (keys === undefined || !keys.fingerprints.has(fingerprint)) return undefined
      const { expiresAt: exp, issuedAt: iat } = principal
      const times = { exp, iat, nbf: undefined }
      await checkTimeUnless(() => mayOutlive(principal), times, issuer.name, issuer.config, now())
      set(sha256, entry)
      return principal
    },
    clear: () => entries.clear(),
  }
}
