/** Token to principal. The order of refusals is fixed: a stranger learns nothing, the owner of a token learns what is wrong with it. */
import { hash } from 'node:crypto'
import { compactVerify } from 'jose'
import type { IssuerConfig } from '../config/schema.ts'
import { AccessError } from '../errors.ts'
import { checkAudience, checkPresetRules, checkRequired, checkTimeUnless } from './check-claims.ts'
import { type ConfiguredIssuer, configuredIssuers, type VerifierLog } from './configured-issuers.ts'
import type { IssuerKeys, KeyState } from './issuer-keys.ts'
import { findKey, importKey, type KeyEntry, type KeySet } from './key-set.ts'
import { unknownIssuer } from './mistaken-password.ts'
import type { Principal } from './principal.ts'
import { createPrincipalCache } from './principal-cache.ts'
import { principalFromClaims } from './principal-from-claims.ts'
import { type DecodedToken, decodeToken } from './token.ts'

export type { VerifierLog } from './configured-issuers.ts'

const CACHE_ENTRIES = 5_000

export interface VerifierOptions {
  /** Milliseconds since the epoch. */
  now?: () => number
  log?: VerifierLog
  /** The verifier before a reload: keys of issuers whose source did not change are shared with it. Each is closed on its own. */
  previous?: Verifier
}

export interface VerifyOptions {
  /** Told whose token it was, where the signature holds and something else does not: a refusal that names the job is worth more to an auditor than a hash. */
  onRefused?: (signed: Principal) => void
  /** Asked where nothing but time is against a token: true for a job whose window is open. */
  mayOutlive?: (signed: Principal) => boolean | Promise<boolean>
}

export interface Verifier {
  /**
   * @param token without white space around it.
   * @throws AccessError `token_malformed`, `issuer_unknown`, `issuer_keys_unavailable`, `signature_invalid`,
   *   `token_expired`, `token_not_yet_valid`, `token_too_old`, `audience_mismatch`, `claim_missing`, `denied_by_rule` or
   *   `tenancy_mismatch`, in this order. The token is in none of them.
   */
  verify(token: string, options?: VerifyOptions): Promise<Principal>
  /** Fetches every issuer's keys, so that the first job need not wait; failures are in `status`. */
  prime(): Promise<void>
  /** By issuer name, for readiness. */
  status(): Record<string, KeyState>
  /** Ends fetches under way; nothing that needs one can be verified afterwards. */
  close(): void
  /** For a later verifier's `previous`. */
  readonly keySources: ReadonlyMap<string, IssuerKeys>
}

/** @throws Error when an issuer has no URL, or two have the same. */
export function createVerifier(
  configs: Readonly<Record<string, IssuerConfig>>,
  { now = Date.now, log = () => {}, previous }: VerifierOptions = {},
): Verifier {
  const { byUrl, keySources } = configuredIssuers(configs, { now, log, previous: previous?.keySources })
  const cache = createPrincipalCache(CACHE_ENTRIES, now)
  return {
    keySources,
    async verify(token, options = {}) {
      const sha256 = hash('sha256', token, 'hex')
      const known = await cache.get(sha256, options.mayOutlive)
      if (known !== undefined) return known
      const decoded = decodeToken(token)
      const issuer = byUrl.get(decoded.iss ?? '')
      if (issuer === undefined) throw unknownIssuer(decoded.claims)
      const { fingerprint } = await verifySignature(token, decoded, issuer)
      const toPrincipal = () => principalFromClaims(issuer.name, issuer.config, decoded.claims, { sha256 })
      const principal = await checkSigned(decoded, issuer, now(), toPrincipal, options)
      cache.set(sha256, { issuer, fingerprint, principal })
      return principal
    },
    async prime() {
      await Promise.all([...byUrl.values()].map(({ keys }) => keys.current()))
    },
    status: () => Object.fromEntries([...byUrl.values()].map(({ name, keys }) => [name, keys.state()])),
    close() {
      for (const keys of keySources.values()) keys.release()
      cache.clear()
    },
  }
}

async function checkSigned(
  { claims }: DecodedToken,
  { name, config }: ConfiguredIssuer,
  at: number,
  toPrincipal: () => Principal,
  { onRefused, mayOutlive = () => false }: VerifyOptions,
): Promise<Principal> {
  try {
    const times = checkRequired(claims)
    await checkTimeUnless(() => mayOutlive(toPrincipal()), times, name, config, at)
    checkAudience(claims, config)
    const principal = toPrincipal()
    checkPresetRules(principal, config)
    return principal
  } catch (error) {
    if (onRefused !== undefined) tellWhose(claims, toPrincipal, onRefused)
    throw error
  }
}

function tellWhose(
  claims: DecodedToken['claims'],
  toPrincipal: () => Principal,
  onRefused: (signed: Principal) => void,
): void {
  try {
    checkRequired(claims)
    onRefused(toPrincipal())
  } catch {
    // Claims that make no principal: the refusal is recorded without one.
  }
}

/** The key that verified the token. A token that fails is tried once more if a refresh brought another key for it. */
async function verifySignature(token: string, decoded: DecodedToken, issuer: ConfiguredIssuer): Promise<KeyEntry> {
  const { alg } = decoded
  if (!issuer.algorithms.includes(alg)) {
    throw new AccessError('signature_invalid', "the token's signature algorithm is not accepted from this issuer")
  }
  const first = pick(await issuer.keys.current(), decoded, issuer)
  if (first !== undefined && (await isSignedBy(token, alg, first))) return first
  const second = pick(await issuer.keys.refreshed(), decoded, issuer)
  const isNew = second !== undefined && second.fingerprint !== first?.fingerprint
  if (isNew && (await isSignedBy(token, alg, second))) return second
  throw new AccessError('signature_invalid', "the token's signature could not be verified", {
    hint: 'If the issuer has changed its keys just now, try again in half a minute.',
  })
}

function pick(set: KeySet | undefined, decoded: DecodedToken, issuer: ConfiguredIssuer): KeyEntry | undefined {
  if (set !== undefined) return findKey(set, decoded.kid, decoded.alg)
  throw new AccessError('issuer_keys_unavailable', "the keys of the token's issuer cannot be fetched at the moment", {
    hint: 'Try again in half a minute. The operator finds the reason in the log of pgusher.',
    cause: new Error(issuer.keys.state().failure ?? 'the keys are too old'),
  })
}

async function isSignedBy(token: string, alg: string, key: KeyEntry): Promise<boolean> {
  try {
    await compactVerify(token, await importKey(key, alg), { algorithms: [alg] })
    return true
  } catch {
    // A bad signature and a key that cannot be imported are the same to a stranger.
    return false
  }
}
