import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AccessError } from '../../src/errors.ts'
import { decodeToken } from '../../src/identity/token.ts'
import { forged, signingKey } from '../support/tokens.ts'

const TOKEN = forged(
  { typ: 'JWT', alg: 'RS256', kid: '38826b17-6a30-5f9b-b169-8beb8202f723', x5t: 'ykNaY4qM_ta4k2TgZOCEYLkcYlA' },
  { iss: 'https://ci.acme.example', sub: 'job'.repeat(100) },
)

function refusal(password: string): AccessError {
  try {
    decodeToken(password)
  } catch (error) {
    if (error instanceof AccessError) return error
    throw error
  }
  throw new Error('accepted')
}

const shown = ({ message, detail, hint }: AccessError): string => [message, detail, hint].join('\n')

describe('nothing was put in place of a variable', () => {
  test.each([
    ['null', 'the password is the word null'],
    ['undefined', 'the password is the word undefined'],
    ['None', 'the password is the word none'],
    ['""', 'a pair of quotation marks'],
    ['$TOKEN', 'a shell variable or command that was not expanded'],
    [`\${PG_ID_TOKEN}`, 'a shell variable or command that was not expanded'],
    [`\${PG_ID_TOKEN:-}`, 'a shell variable or command that was not expanded'],
    ['$(cat token.jwt)', 'a shell variable or command that was not expanded'],
    [`\${{ steps.token.outputs.value }}`, 'an expression in double braces that was not evaluated'],
    ['%PG_ID_TOKEN%', '%NAME% is for cmd'],
    ['$env:PG_ID_TOKEN', '$env:NAME for PowerShell'],
    ['***', 'the mask that CI systems print'],
    ['[MASKED]', 'the mask that CI systems print'],
  ])('%s', (password, words) => {
    const error = refusal(password)
    expect(error).toMatchObject({ code: 'token_missing', sqlstate: '28P01' })
    expect(error.message).toMatch(/^no token: /)
    expect(error.message).toContain(words)
    expect(shown(error)).toContain('permissions: id-token: write')
  })
})

describe('a token with something around it', () => {
  test.each([
    [`{"count":1923,"value":"${TOKEN}"}`, 'take its field "value", for example with jq -r .value'],
    [`{ "id_token": "${TOKEN}" }`, 'take its field "id_token"'],
    ['{"message":"Unable to get ACTIONS_ID_TOKEN_REQUEST_URL"}', 'an error message of the CI in JSON'],
    ['{"a":1}', 'the password is JSON'],
    [`@{count=1923; value=${TOKEN}}`, 'a PowerShell object'],
    [`"${TOKEN}"`, 'quotation marks'],
    [`Bearer ${TOKEN}`, 'the word Bearer'],
    [`PG_ID_TOKEN=${TOKEN}`, 'an assignment'],
    [`${TOKEN.slice(0, 76)}\n${TOKEN.slice(76)}`, 'a line break or a blank in it'],
    [`${TOKEN} ${TOKEN}`, 'a line break or a blank in it'],
    [` ${TOKEN}`, 'in front of the token'],
    [`\n${TOKEN}`, 'in front of the token'],
    [`\r\n\t${TOKEN}`, 'in front of the token'],
    [`\ufeff${TOKEN}`, 'in front of the token'],
    ['<!DOCTYPE html><title>Sign in</title>', 'a web page'],
    ['curl: (22) The requested URL returned error: 403', 'the request for the token failed'],
    ['/var/run/secrets/tokens/pgusher', 'the path of a file'],
    ['./token.jwt', 'the path of a file'],
    [`${TOKEN}.a.b`, 'encrypted (five parts)'],
  ])('%#', (password, words) => {
    const error = refusal(password)
    expect(error).toMatchObject({ code: 'token_malformed', sqlstate: '28P01' })
    expect(error.message).toContain(words)
  })
})

test.each([
  ['ghp_16C7e42F292c6912E7710c838347Ae178B4a', 'a GitHub access token', 'id-token: write'],
  ['github_pat_11ABCDEFG0abcdefghijkl', 'a GitHub access token', 'id-token: write'],
  ['ghs_16C7e42F292c6912E7710c838347Ae178B4a', 'GITHUB_TOKEN', 'id-token: write'],
  ['glpat-XXXXXXXXXXXXXXXXXXXX', 'a GitLab access token', 'id_tokens:'],
  ['glcbt-64_abcdefghijklmnop', 'CI_JOB_TOKEN', 'id_tokens:'],
  ['bkua_0123456789abcdef', "Buildkite's API", 'oidc request-token'],
  ['CCIPAT_abc_def', "CircleCI's API", 'circleci run oidc get'],
  ['db.acme.example:5432/?Action=connect&DBUser=shop&X-Amz-Signature=abc', 'Amazon RDS', 'the CI system issues'],
  ['postgres://shop:hunter2@db.acme.example/shop', 'a whole connection string', 'the CI system issues'],
  ['correct horse battery staple', 'such as a database password', 'the CI system issues'],
  ['glacier-2026', 'such as a database password', 'the CI system issues'],
  ['bkup_2026', 'such as a database password', 'the CI system issues'],
  ['[x7!', 'such as a database password', 'the CI system issues'],
  ['"quoted"', 'such as a database password', 'the CI system issues'],
  ['s3cr3t.with.dots', 'such as a database password', 'the CI system issues'],
])('another secret: %s', (password, what, next) => {
  const error = refusal(password)
  expect(error).toMatchObject({ code: 'token_malformed', sqlstate: '28P01' })
  expect(error.message).toContain(what)
  expect(error.message).toContain(next)
})

describe('a token that was cut', () => {
  test.each([100, 128, 255, 256, 500, 1_000])('at %i characters', (length) => {
    const long = forged(
      { typ: 'JWT', alg: 'RS256', kid: 'k'.repeat(60) },
      { iss: 'https://ci.acme.example', sub: 'job'.repeat(200) },
    )
    const error = refusal(long.slice(0, length))
    expect(error).toMatchObject({ code: 'token_malformed' })
    expect(error.message).toContain(`the token was cut: it ends after ${length} characters`)
  })

  test('wherever it is cut, one that was signed is told to be cut, and whole it is not', async () => {
    const tokens = await Promise.all(
      (['RS256', 'ES256'] as const).map((alg) => signingKey('k'.repeat(24), alg).sign({ iss: 'x', sub: 'job' })),
    )
    for (const token of tokens) {
      expect(decodeToken(token).iss).toBe('x')
      for (let length = 60; length < token.length; length++) {
        expect(refusal(token.slice(0, length)).message).toContain(`it ends after ${length} characters`)
      }
    }
  })

  test('one without a signature by its own account is not', () => {
    expect(refusal(forged({ alg: 'none' }, { iss: 'x' }, '')).message).toContain('three parts')
  })
})

test('no piece of what was sent is repeated, whatever stands around it', () => {
  const around: ((secret: string) => string)[] = [
    (secret) => secret,
    (secret) => `$${secret}`,
    (secret) => `\${${secret}}`,
    (secret) => `%${secret}%`,
    (secret) => `\${{ ${secret} }}`,
    (secret) => `{"value":"${secret}"}`,
    (secret) => `{"${secret}":"x"}`,
    (secret) => `"${secret}"`,
    (secret) => `Bearer ${secret}`,
    (secret) => `${secret}=eyJhbGciOiJIUzI1NiJ9`,
    (secret) => `ghp_${secret}`,
    (secret) => `postgres://shop:${secret}@db/shop`,
    (secret) => `/home/${secret}/token`,
    (secret) => `eyJ${secret.repeat(3)}`,
  ]
  // Letters that make no words of a message.
  const secrets = fc.string({ minLength: 20, maxLength: 60, unit: fc.constantFrom(...'QXZJKVWqxzjkvw0123456789_') })
  fc.assert(
    fc.property(secrets, fc.constantFrom(...around), (secret, wrap) => {
      const told = shown(refusal(wrap(secret)))
      for (let at = 0; at + 6 <= secret.length; at++) expect(told).not.toContain(secret.slice(at, at + 6))
    }),
    { numRuns: 500 },
  )
})

test('invariant 39: the longest password costs little, whatever it is made of', () => {
  const long = (piece: string) => piece.repeat(65_000 / piece.length)
  const hostile = ['eyJ', 'a', 'a.', '.', '/a', '"value" ', '$(', '{"', ' ', 'eyJa.'].map(long)
  const before = process.cpuUsage()
  const begun = ['', 'eyJ', '$', '/', '{"value"', 'a:1?'].flatMap((first) => hostile.map((text) => first + text))
  for (let round = 0; round < 8; round++) for (const text of begun) refusal(text)
  // These 480 take 20 ms; with one pattern that tries two ways to divide 4 KB they took 360 ms.
  const { user, system } = process.cpuUsage(before)
  expect((user + system) / 1000).toBeLessThan(200)
})

test('whatever is sent, MESSAGE is one short line', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 300 }), (password) => {
      expect(refusal(password).message).toMatch(/^[\x20-\x7e…]{20,300}$/)
    }),
  )
})
