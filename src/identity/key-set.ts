/** A JWK set (RFC 7517) as a verifier may use it: public signature keys of the accepted algorithms, nothing else. */
import { createHash } from 'node:crypto'
import { importJWK, type JWK } from 'jose'
import { isObject } from './strict-json.ts'

export const MAX_KID_BYTES = 256
/** RSA keys over 8192 bits cost a verifier more than they give: the modulus' base64url text is not longer than this. */
const MAX_RSA_MODULUS_CHARS = 1366

export type VerificationKey = Awaited<ReturnType<typeof importJWK<PublicJwk>>>
type PublicJwk = JWK & { kty: 'RSA' | 'EC' | 'OKP' }

export interface KeyEntry {
  kid: string | undefined
  /** Hash of the key's material: tells a new key under an old `kid` apart. */
  fingerprint: string
  /** The `alg` that the JWK binds itself to, if it does. */
  alg: string | undefined
  jwk: PublicJwk
  /** Imported on first use, for one algorithm each. */
  imported: Map<string, Promise<VerificationKey>>
}

export interface KeySet {
  keys: readonly KeyEntry[]
  fingerprints: ReadonlySet<string>
}

const FAMILY: Readonly<Record<string, { kty: string; crv?: string }>> = {
  RS256: { kty: 'RSA' },
  RS384: { kty: 'RSA' },
  RS512: { kty: 'RSA' },
  PS256: { kty: 'RSA' },
  PS384: { kty: 'RSA' },
  PS512: { kty: 'RSA' },
  ES256: { kty: 'EC', crv: 'P-256' },
  ES384: { kty: 'EC', crv: 'P-384' },
  ES512: { kty: 'EC', crv: 'P-521' },
  EdDSA: { kty: 'OKP', crv: 'Ed25519' },
}

/**
 * @param document a parsed JWK set.
 * @throws Error when it is none, or holds no usable key: such a set must not replace a good one.
 */
export function readKeySet(document: unknown, algorithms: readonly string[]): KeySet {
  const list = isObject(document) ? document['keys'] : undefined
  if (!Array.isArray(list)) throw new Error('the answer is not a JWK set: it has no list "keys"')
  const keys = list.map((entry: unknown) => readKey(entry, algorithms)).filter((key) => key !== undefined)
  if (keys.length === 0) {
    throw new Error(`the JWK set has ${list.length} keys, none of them a signature key for ${algorithms.join(', ')}`)
  }
  return { keys, fingerprints: new Set(keys.map((key) => key.fingerprint)) }
}

/**
 * The key of a token's header. Without a `kid` only a set with exactly one key that fits can answer; guessing through
 * several would let one bad token cost as many verifications.
 */
export function findKey(set: KeySet, kid: string | undefined, alg: string): KeyEntry | undefined {
  const fitting = set.keys.filter((key) => (kid === undefined || key.kid === kid) && fits(key, alg))
  return fitting.length === 1 ? fitting[0] : undefined
}

export function importKey(entry: KeyEntry, alg: string): Promise<VerificationKey> {
  const known = entry.imported.get(alg)
  if (known !== undefined) return known
  const key = importJWK(entry.jwk, alg)
  entry.imported.set(alg, key)
  return key
}

function fits(key: KeyEntry, alg: string): boolean {
  const family = FAMILY[alg]
  if (family === undefined || family.kty !== key.jwk.kty) return false
  if (family.crv !== undefined && family.crv !== key.jwk.crv) return false
  return key.alg === undefined || key.alg === alg || (alg === 'EdDSA' && key.alg === 'Ed25519')
}

function readKey(entry: unknown, algorithms: readonly string[]): KeyEntry | undefined {
  if (!isObject(entry)) return undefined
  const { kid, alg, use, key_ops: operations } = entry
  if (kid !== undefined && (typeof kid !== 'string' || Buffer.byteLength(kid) > MAX_KID_BYTES)) return undefined
  if (alg !== undefined && typeof alg !== 'string') return undefined
  // In a SPIFFE trust bundle `jwt-svid` stands for `sig`, beside `x509-svid` for certificates.
  if (use !== undefined && use !== 'sig' && use !== 'jwt-svid') return undefined
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes('verify'))) return undefined
  const jwk = publicJwk(entry)
  if (jwk === undefined) return undefined
  const fingerprint = createHash('sha256').update(JSON.stringify(jwk)).digest('hex')
  const key: KeyEntry = { kid, alg, fingerprint, jwk, imported: new Map() }
  return algorithms.some((algorithm) => fits(key, algorithm)) ? key : undefined
}

/** Public members only. `x5c` and `x5u` are not read: they would be a second opinion on which key it is. */
function publicJwk(entry: Record<string, unknown>): PublicJwk | undefined {
  const { kty, n, e, crv, x, y } = entry
  if (kty === 'RSA' && typeof n === 'string' && typeof e === 'string') {
    return n.length <= MAX_RSA_MODULUS_CHARS ? { kty, n, e } : undefined
  }
  if (kty === 'EC' && typeof crv === 'string' && typeof x === 'string' && typeof y === 'string')
    return { kty, crv, x, y }
  if (kty === 'OKP' && typeof crv === 'string' && typeof x === 'string') return { kty, crv, x }
  return undefined
}
