import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { challengeFor, expectDummyResponse, parseInitialResponse } from '../../src/sasl/oauthbearer.ts'

/** With `^` for the separator 0x01. */
const message = (text: string): Buffer => Buffer.from(text.replaceAll('^', '\x01'), 'latin1')

describe('the initial response', () => {
  test('any bearer token comes back', () => {
    const token = fc.stringMatching(/^[A-Za-z0-9._~+/-]{1,200}={0,2}$/)
    const scheme = fc.constantFrom('Bearer', 'bearer', 'BEARER')
    fc.assert(
      fc.property(token, scheme, fc.integer({ min: 1, max: 3 }), (given, word, spaces) => {
        expect(parseInitialResponse(message(`n,,^auth=${word}${' '.repeat(spaces)}${given}^^`))).toBe(given)
      }),
    )
  })

  test('RFC 7628, 4.1: other keys are ignored', () => {
    expect(parseInitialResponse(message('n,,^host=pg.example^port=5432^auth=Bearer vF9dft4qmT^^'))).toBe('vF9dft4qmT')
    expect(parseInitialResponse(message('y,,^auth=Bearer vF9dft4qmT^^'))).toBe('vF9dft4qmT')
  })

  test('invariant 10: libpq discovers the issuer by an empty auth value', () => {
    expect(parseInitialResponse(message('n,,^auth=^^'))).toBe('')
  })

  test.each([
    ['', 'its header is not n,,'],
    ['^', 'its header is not n,,'],
    ['n,,', 'its header is not n,,'],
    ['p=tls-unique,,^auth=Bearer x^^', 'channel binding is not offered'],
    ['n,a=joe,^auth=Bearer x^^', 'its header is not n,,'],
    ['n,,^', 'it has no end'],
    ['n,,^auth=Bearer x', 'it has no end'],
    ['n,,^auth=Bearer x^', 'it has no end'],
    ['n,,^auth=Bearer x^^more', 'it has no end'],
    ['n,,^auth=Bearer x^^more^^', 'a key or value in it is not allowed'],
    ['n,,^^', 'it has no auth value'],
    ['n,,^host=x^^', 'it has no auth value'],
    ['n,,^auth=Bearer x^auth=Bearer y^^', 'it has two auth values'],
    ['n,,^auth^^', 'a key or value in it is not allowed'],
    ['n,,^=x^^', 'a key or value in it is not allowed'],
    ['n,,^a1=x^^', 'a key or value in it is not allowed'],
    ['n,,^auth=Bearer \xff^^', 'a key or value in it is not allowed'],
    ['n,,^auth=Bearer x\0^^', 'a key or value in it is not allowed'],
  ])('%j is malformed', (text, why) => {
    expect(() => parseInitialResponse(message(text))).toThrow(`malformed OAUTHBEARER message: ${why}`)
    expect(() => parseInitialResponse(message(text))).toThrow(expect.objectContaining({ code: 'protocol_violation' }))
  })

  test.each(['Basic dXNlcjpwYXNz', 'Bearer', 'Bearer ', 'Bearer a b', 'Bearer a,b', 'x'])(
    'auth=%s is no token',
    (auth) => {
      const parse = () => parseInitialResponse(message(`n,,^auth=${auth}^^`))
      expect(parse).toThrow('the OAUTHBEARER message holds no bearer token')
      expect(parse).toThrow(expect.objectContaining({ code: 'token_malformed', sqlstate: '28P01' }))
    },
  )

  test('random bytes are refused by a code, never by a crash', () => {
    const pieces = fc.constantFrom('n,,', '\x01', 'auth=', 'Bearer ', 'x', '=', ',', '\0', '\xff')
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 60 }).map((data) => Buffer.from(data)),
      fc.array(pieces, { maxLength: 12 }).map((parts) => Buffer.from(parts.join(''), 'latin1')),
    )
    fc.assert(
      fc.property(bytes, (data) => {
        try {
          expect(parseInitialResponse(data)).toMatch(/^[A-Za-z0-9._~+/-]*=*$/)
        } catch (error) {
          expect(['protocol_violation', 'token_malformed']).toContain((error as { code?: string }).code)
        }
      }),
    )
  })
})

describe('the challenge', () => {
  const parsed = (issuerUrl: string) => JSON.parse(challengeFor({ issuerUrl, scope: 'openid' }).toString())

  test('RFC 7628, 3.2.2: status, scope and where to find the issuer', () => {
    expect(parsed('https://ci.example/oidc')).toEqual({
      status: 'invalid_token',
      'openid-configuration': 'https://ci.example/oidc/.well-known/openid-configuration',
      scope: 'openid',
    })
  })

  test('a slash at the end of the issuer is not doubled, and a well-known address stays', () => {
    const known = 'https://ci.example/.well-known/openid-configuration'
    expect(parsed('https://ci.example/')['openid-configuration']).toBe(known)
    expect(parsed(known)['openid-configuration']).toBe(known)
  })

  test('without one issuer only the status is told', () => {
    expect(JSON.parse(challengeFor(undefined).toString())).toEqual({ status: 'invalid_token' })
  })

  test('is answered by one separator byte', () => {
    expect(() => expectDummyResponse(message('^'))).not.toThrow()
    for (const answer of ['', '^^', 'x', 'n,,^auth=Bearer x^^']) {
      expect(() => expectDummyResponse(message(answer))).toThrow('the challenge is answered by one separator byte')
    }
  })
})
