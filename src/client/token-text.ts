/** What a CI system, file or command gave, as a token or as words about what is wrong with it. Nothing of it is repeated. */
import { AccessError } from '../errors.ts'
import { decodeToken, MAX_TOKEN_BYTES } from '../identity/token.ts'

/** A token is missing, and what to do about it: MESSAGE in one sentence, the rest in the hint. */
export function noToken(message: string, hint?: string, cause?: unknown): AccessError {
  return new AccessError('token_missing', message, {
    ...(hint === undefined ? {} : { hint }),
    ...(cause === undefined ? {} : { cause }),
  })
}

/** Three parts of base64url, or a ticket of pgusher. */
const TOKEN = /^(?:[\w-]+\.[\w-]+\.[\w-]+|pgut_[\w-]+)$/

/** Of pgusher's own making, to be shown in place of a token. */
export function isTicket(token: string): boolean {
  return token.startsWith('pgut_')
}

/**
 * @param text as it was read; white space around it is trimmed
 * @param where for the error, as `the file token.jwt` or `the answer of GitHub Actions`
 * @throws AccessError `token_missing` where it is empty, `token_malformed` where it has not the shape of a token
 */
export function tokenFrom(text: string, where: string): string {
  const token = text.trim()
  if (token === '') throw noToken(`${where} is empty, where a token is wanted`)
  if (token.length > MAX_TOKEN_BYTES) throw malformed(`${where} is longer than 64 KiB, so it is no token`)
  if (!TOKEN.test(token)) {
    throw malformed(`${where} is no token: a JSON Web Token has three parts with dots between them, and nothing else`)
  }
  return token
}

/**
 * The claims that a token makes, for people: nobody has looked at its signature.
 * @throws AccessError `token_malformed`, for a ticket too, which says nothing by itself
 */
export function ownClaims(token: string): Readonly<Record<string, unknown>> {
  return decodeToken(token).claims
}

function malformed(message: string): AccessError {
  return new AccessError('token_malformed', message)
}
