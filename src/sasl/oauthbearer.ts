/**
 * The server's side of OAUTHBEARER as pure steps (RFC 7628), as libpq 18 speaks it: an initial response with the token, or
 * with an empty `auth` to discover the issuer; on failure a JSON challenge, a dummy answer, and then the error.
 */
import { AccessError } from '../errors.ts'

export const OAUTHBEARER = 'OAUTHBEARER'

/** What the client answers to the challenge: one separator and nothing else (RFC 7628, 3.2.3). */
const KVSEP = '\x01'

export interface Challenge {
  /** As in `iss`; clients look for `<issuer>/.well-known/openid-configuration`. */
  issuerUrl: string
  /** Scopes to ask for, separated by spaces; may be empty. */
  scope: string
}

/**
 * @param data the SASL initial response
 * @returns the token, or an empty string where the client only asks for the issuer
 * @throws AccessError `protocol_violation` for what is not RFC 7628, `token_malformed` for another scheme than Bearer
 */
export function parseInitialResponse(data: Buffer): string {
  const text = data.toString('latin1')
  // gs2-header: no channel binding ("y" is a client that would have some), no authorization identity.
  if (text.startsWith('p')) throw malformed('channel binding is not offered')
  if (!['n', 'y'].some((flag) => text.startsWith(`${flag},,${KVSEP}`))) throw malformed('its header is not n,,')
  const pairs = text.slice('n,,'.length + KVSEP.length).split(KVSEP)
  // "key=value" kvsep … kvsep: two empty pieces behind the last pair.
  if (pairs.length < 2 || pairs.pop() !== '' || pairs.pop() !== '') throw malformed('it has no end')
  let auth: string | undefined
  for (const pair of pairs) {
    const [, key, value] = /^([A-Za-z]+)=([\x20-\x7e\t\r\n]*)$/.exec(pair) ?? []
    if (key === undefined || value === undefined) throw malformed('a key or value in it is not allowed')
    // RFC 7628, 3.1: other keys (host, port) are ignored.
    if (key !== 'auth') continue
    if (auth !== undefined) throw malformed('it has two auth values')
    auth = value
  }
  if (auth === undefined) throw malformed('it has no auth value')
  return bearerToken(auth)
}

/** RFC 6750, 2.1: the scheme has no case, one or more spaces, then b64token. */
function bearerToken(auth: string): string {
  if (auth === '') return ''
  const token = /^Bearer +([A-Za-z0-9._~+/-]+=*)$/i.exec(auth)?.[1]
  if (token === undefined) {
    throw new AccessError('token_malformed', 'the OAUTHBEARER message holds no bearer token', {
      hint: 'The auth value is "Bearer", a space and the token.',
    })
  }
  return token
}

/**
 * The server's answer to a token that it does not take (RFC 7628, 3.2.2). `invalid_token` whatever the reason: it is the one
 * status after which libpq goes and gets a token; the reason follows in the ErrorResponse.
 */
export function challengeFor(challenge: Challenge | undefined): Buffer {
  const fields: Record<string, string> = { status: 'invalid_token' }
  if (challenge !== undefined) {
    const wellKnown = '/.well-known/openid-configuration'
    const issuer = challenge.issuerUrl
    fields['openid-configuration'] = issuer.includes('/.well-known/')
      ? issuer
      : `${issuer.replace(/\/$/, '')}${wellKnown}`
    fields['scope'] = challenge.scope
  }
  return Buffer.from(JSON.stringify(fields))
}

/** @throws AccessError `protocol_violation` unless `data` is the one separator that ends a failed exchange */
export function expectDummyResponse(data: Buffer): void {
  if (data.toString('latin1') !== KVSEP) throw malformed('the challenge is answered by one separator byte')
}

function malformed(why: string): AccessError {
  return new AccessError('protocol_violation', `malformed OAUTHBEARER message: ${why}`)
}
