import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AccessError } from '../../src/errors.ts'
import { decodeToken, MAX_TOKEN_BYTES } from '../../src/identity/token.ts'
import { forged, signingKey } from '../support/tokens.ts'

const header = { alg: 'RS256', kid: 'k1', typ: 'JWT' }
const payload = { iss: 'https://ci.acme.example', sub: 'job' }

function refusal(token: string): AccessError {
  try {
    decodeToken(token)
  } catch (error) {
    expect(error).toBeInstanceOf(AccessError)
    return error as AccessError
  }
  throw new Error(`accepted: ${token}`)
}

describe('invariant 11: decoding a token', () => {
  test('gives header fields and claims', () => {
    expect(decodeToken(forged(header, payload))).toEqual({ alg: 'RS256', kid: 'k1', iss: payload.iss, claims: payload })
  })

  test.each([
    ['an empty password', ''],
    ['an ordinary password', 'correct horse battery staple'],
    ['two parts', 'e30.e30'],
    ['an encrypted token of five parts', 'e30.e30.e30.e30.e30'],
    ['alg none without a signature', forged({ alg: 'none' }, payload, '')],
    ['padding', `${forged(header, payload)}==`],
    ['the other base64 alphabet', `${forged(header, payload)}+/`],
    ['white space inside', forged(header, payload).replace('.', '.\n')],
    ['a header that is a list', forged('[]', payload)],
    ['no alg', forged({ kid: 'k1' }, payload)],
    ['alg twice', forged('{"alg":"none","alg":"RS256"}', payload)],
    ['a claim twice', forged(header, '{"iss":"a","iss":"b"}')],
    ['a fraction', forged(header, '{"iss":"a","exp":1.5}')],
    ['a critical extension', forged({ ...header, crit: ['b64'], b64: false }, payload)],
    ['an unknown critical extension', forged({ ...header, crit: ['x'], x: 1 }, payload)],
    ['a kid that is a number', forged({ ...header, kid: 7 }, payload)],
    ['a kid of 257 bytes', forged({ ...header, kid: 'k'.repeat(257) }, payload)],
    ['a logout token', forged({ ...header, typ: 'logout+jwt' }, payload)],
    ['a byte order mark', forged(header, `\ufeff${JSON.stringify(payload)}`)],
    ['more than 64 KiB', `${forged(header, payload)}${'A'.repeat(MAX_TOKEN_BYTES)}`],
  ])('refuses %s', (_name, token) => {
    expect(refusal(token)).toMatchObject({ code: 'token_malformed', sqlstate: '28P01' })
  })

  test('refuses bytes that are no UTF-8', () => {
    const token = forged(header, '{}').replace(
      /\.e30\./,
      `.${Buffer.from('7b2261223a22ff227d', 'hex').toString('base64url')}.`,
    )
    expect(refusal(token).code).toBe('token_malformed')
  })

  test('refuses a second spelling of a signature', async () => {
    const token = await signingKey('k1').sign(payload)
    const last = token.at(-1) ?? ''
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
    // 64 bytes end in a character with four unused bits.
    const other = alphabet[alphabet.indexOf(last) + 1] ?? ''
    expect(refusal(token.slice(0, -1) + other).message).toContain('not canonical')
  })

  test('a key or a URL of a key in the header is ignored', () => {
    const { jwk } = signingKey('evil')
    const odd = { ...header, jwk, jku: 'https://evil.example/jwks', x5u: 'https://evil.example/x', x5c: ['AAAA'] }
    expect(decodeToken(forged(odd, payload))).toEqual(decodeToken(forged(header, payload)))
  })

  test('the message never holds a piece of what was sent', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 24, unit: fc.constantFrom(...'abcXYZ0123456789_-.{}":') }), (password) => {
        const error = refusal(password)
        const shown = `${error.message} ${error.detail ?? ''} ${error.hint ?? ''}`
        for (let at = 0; at + 12 <= password.length; at += 1) expect(shown).not.toContain(password.slice(at, at + 12))
      }),
    )
  })
})
