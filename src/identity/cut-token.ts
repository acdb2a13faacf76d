/** Whether a token lost its end: psql, pools and forms of web pages keep 100, 255 or 1,000 characters of a password. */

/**
 * Characters of base64url that a whole signature has at least (RFC 7518, 3.1; RSA keys of less than 2048 bits are refused
 * there). A shorter one cannot be good, so that no key need be fetched to say why.
 */
const SHORTEST: Readonly<Record<string, number>> = {
  RS256: 342,
  RS384: 342,
  RS512: 342,
  PS256: 342,
  PS384: 342,
  PS512: 342,
  ES256: 86,
  ES384: 128,
  ES512: 176,
  EdDSA: 86,
}

/** Of text that begins as tokens do. False for a whole one and for what was never a token. */
export function isCutToken(text: string): boolean {
  if (!/^eyJ[\w-]*(\.[\w-]*){0,2}$/.test(text)) return false
  const [header = '', payload, signature] = text.split('.')
  // A header alone is a hundred characters or more; a short one may be a password that happens to begin so.
  if (payload === undefined) return header.length >= 48
  if (signature === undefined || signature === '') return algorithmOf(header) !== 'none'
  const shortest = SHORTEST[algorithmOf(header) ?? '']
  return shortest !== undefined && signature.length < shortest
}

/** Not to be believed: it only tells how long the signature should be. */
function algorithmOf(header: string): string | undefined {
  if (header.length > 4_096) return undefined
  try {
    const { alg }: { alg?: unknown } = JSON.parse(Buffer.from(header, 'base64url').toString())
    return typeof alg === 'string' && Object.hasOwn(SHORTEST, alg) ? alg : alg === 'none' ? 'none' : undefined
  } catch {
    return undefined
  }
}
