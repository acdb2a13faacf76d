/** Reading a JSON Web Token strictly, before anything of it is believed. RFC 7515 compact serialisation, RFC 8725. */
import { AccessError } from '../errors.ts'
import { MAX_KID_BYTES } from './key-set.ts'
import { mistakenPassword, notAToken } from './mistaken-password.ts'
import { parseStrictObject } from './strict-json.ts'

export const MAX_TOKEN_BYTES = 64 * 1024

export interface DecodedToken {
  alg: string
  kid: string | undefined
  /** As the payload has it; undefined where it is missing or no string. */
  iss: string | undefined
  /** Not verified yet. */
  claims: Readonly<Record<string, unknown>>
}

const PART = /^[A-Za-z0-9_-]+$/
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Whether a password could be a token, and not some other secret, of which not even a hash may be kept. */
export function hasTokenShape(password: string): boolean {
  return /^e[\w-]+\.[\w-]+\.[\w-]+$/.test(password)
}

/**
 * `jku`, `x5u`, `x5c` and `jwk` are ignored: keys come from the configured issuer only. No `crit` is understood, so any
 * is refused.
 * @throws AccessError `token_malformed`, or `token_missing` for a variable that was not expanded and its like; terse:
 *   nothing that an unverified token says is repeated.
 */
export function decodeToken(token: string): DecodedToken {
  if (token.length > MAX_TOKEN_BYTES) throw malformed('it is longer than 64 KiB')
  const mistake = mistakenPassword(token)
  if (mistake !== undefined) throw mistake
  // Base64url of `{`: without it there is no header.
  if (!/^e[\w-]/.test(token)) throw notAToken()
  const [header = '', payload = '', signature = '', ...more] = token.split('.', 6)
  if (more.length === 2) throw malformed('it is encrypted (five parts), and a signed one (three parts) is wanted')
  // An empty signature is what `alg: none` looks like.
  if (more.length > 0 || header === '' || payload === '' || signature === '') {
    throw malformed('three parts with dots between them are wanted')
  }
  decodePart(signature)
  const head = parsePart(header)
  const { alg, kid, typ } = head
  if (typeof alg !== 'string') throw malformed('its header has no alg')
  if (kid !== undefined && (typeof kid !== 'string' || Buffer.byteLength(kid) > MAX_KID_BYTES)) {
    throw malformed('its header has a bad kid')
  }
  if (Object.hasOwn(head, 'crit') || Object.hasOwn(head, 'b64')) throw malformed('its header has a critical extension')
  // Tokens of other kinds (logout tokens, security events) are signed with the same keys.
  if (typ !== undefined && !(typeof typ === 'string' && /^(application\/)?(at\+)?jwt$/i.test(typ))) {
    throw malformed('its header has a typ that is not JWT')
  }
  const claims = parsePart(payload)
  return { alg, kid, iss: typeof claims['iss'] === 'string' ? claims['iss'] : undefined, claims }
}

/** Only the canonical encoding: else one signature has many spellings, each with a hash of its own. */
function decodePart(part: string): Buffer {
  if (!PART.test(part)) throw malformed('it is not base64url')
  const bytes = Buffer.from(part, 'base64url')
  if (bytes.toString('base64url') !== part) throw malformed('it is not canonical base64url')
  return bytes
}

function parsePart(part: string): Record<string, unknown> {
  const bytes = decodePart(part)
  try {
    return parseStrictObject(utf8.decode(bytes))
  } catch (error) {
    // SyntaxError texts quote the input, so only our own kind of reason is told.
    throw malformed('a part of it is not a JSON object with unique keys and whole numbers', error)
  }
}

function malformed(reason: string, cause?: unknown): AccessError {
  return new AccessError('token_malformed', `the password is not a valid token: ${reason}`, {
    hint: "The password must be the job's OIDC token, a JSON Web Token, byte for byte as the CI system gave it.",
    ...(cause instanceof RangeError || cause instanceof TypeError ? { cause } : {}),
  })
}
