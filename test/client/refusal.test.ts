/** Refusals as the job's author reads them. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { githubClaims } from '../../src/cli/demo/ci-claims.ts'
import { ownIdentity } from '../../src/client/claims.ts'
import { clockTime, identityLine } from '../../src/client/identity-line.ts'
import { type Refusal, refusalMarkdown, refusalText } from '../../src/client/refusal.ts'
import { hostAndPort, parseServerAddress } from '../../src/client/server-address.ts'
import { forged } from '../support/tokens.ts'

const identityOf = (claims: Record<string, unknown>) =>
  ownIdentity(
    forged(
      { alg: 'ES256' },
      { iss: 'https://token.actions.githubusercontent.com', aud: 'https://pgusher.acme.example', ...claims },
    ),
    'github-actions',
  )
const refusal: Refusal = {
  sqlstate: '42501',
  message:
    'access to "shop-prod" denied: claim ref is "refs/heads/fix-1", rule "migrate-production" needs "refs/heads/main" [D-TCH5Q1]',
  detail:
    'rule "migrate-production":\nclaim ref: wanted "refs/heads/main", got "refs/heads/fix-1"\nclaim environment: wanted "production", got nothing',
  hint: 'Production migrations run only from main. Contact: #db-help.',
}
const context = (claims: Record<string, unknown>) => ({
  database: 'shop-prod',
  user: 'shop_migrator',
  identity: identityOf(claims),
})

test('what was wanted stands beside the token’s own claims, first of all', () => {
  const text = refusalText(refusal, context(githubClaims({ ref: 'refs/heads/fix-1', environment: undefined })))
  const lines = text.split('\n')
  expect(lines.slice(0, 6)).toEqual([
    'pgusher: refused: role shop_migrator on database shop-prod (SQLSTATE 42501)',
    `  ${refusal.message}`,
    '  hint: Production migrations run only from main. Contact: #db-help.',
    expect.stringMatching(/^ {2}claim +this job's token +wanted$/),
    expect.stringMatching(/^ {2}ref +refs\/heads\/fix-1 +"refs\/heads\/main"$/),
    expect.stringMatching(/^ {2}environment +nothing +"production"$/),
  ])
  expect(lines).toContainEqual(expect.stringMatching(/^ {2}repository_id +784500001$/))
  expect(text.match(/^ {2}ref /gm)).toHaveLength(1)
})

test('a rule stands above what the table does not have of it', () => {
  const detail = 'rule "a":\nclaim ref: wanted "x", got "y"\nrule "b":\nexpired on 2026-01-01\nrule "c":'
  const lines = refusalText({ ...refusal, detail }, context(githubClaims({ ref: 'y' }))).split('\n')
  expect(lines.slice(2, 5)).toEqual(['  rule "b":', '  expired on 2026-01-01', expect.stringMatching(/^ {2}hint: /)])
})

test('without a token that can be read there are the server’s words', () => {
  const text = refusalText(
    { ...refusal, detail: 'some words', hint: undefined },
    { ...context({}), identity: undefined },
  )
  expect(text).toBe(
    `pgusher: refused: role shop_migrator on database shop-prod (SQLSTATE 42501)\n  ${refusal.message}\n  some words\n`,
  )
})

test('Markdown: a table', () => {
  const text = refusalMarkdown(refusal, context(githubClaims({ ref: 'refs/heads/fix-1' })))
  expect(text).toMatch(
    /^### No access by pgusher: role <code>shop&#95;migrator<\/code> on database <code>shop-prod<\/code>$/m,
  )
  expect(text).toMatch(
    /^\| <code>ref<\/code> \| <code>refs\/heads\/fix-1<\/code> \| <code>"refs\/heads\/main"<\/code> \|$/m,
  )
})

test('whatever a claim or a server says, nothing in it acts on a terminal, a log or a page', () => {
  const evil = fc.oneof(
    // Any code point, lone surrogates too; the unit `binary` takes seconds to be made.
    fc.string({ unit: fc.integer({ min: 0, max: 0x10ffff }).map((code) => String.fromCodePoint(code)) }),
    fc.constantFrom(
      '\x1b[2J',
      '\u202e',
      '|',
      '<img src=x>',
      '`',
      '[a](b)',
      '\n::add-mask::x',
      '**',
      '~~',
      '\n# x',
      '@user',
    ),
  )
  fc.assert(
    fc.property(evil, evil, evil, evil, (ref, message, detail, hint) => {
      const shown = { sqlstate: '42501', message, detail: `claim ref: wanted ${detail}, got x\n${detail}`, hint }
      const own = context(githubClaims({ ref: ref.toWellFormed().replaceAll('\0', '') }))
      const text = refusalText(shown, own)
      expect(text.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\p{Bidi_Control}\u2028\u2029]/u)
      expect(text).not.toMatch(/^::/m)
      const page = refusalMarkdown(shown, own)
      expect(page.replace(/<\/?code>/g, '')).not.toMatch(/[<`\\~]|\[.*\]\(/)
      const cells = page.split('\n').flatMap((line) => (line.startsWith('|') ? [line.split('|').length] : []))
      expect(new Set(cells)).toEqual(new Set([5]))
    }),
  )
})

test('one line says who this is', () => {
  const server = { host: 'pgusher.acme.example', port: 6432 }
  const line = (claims: Record<string, unknown>) =>
    identityLine({
      provider: 'GitHub Actions',
      identity: identityOf(claims),
      database: 'shop-prod',
      user: 'ci',
      server,
    })
  expect(line(githubClaims())).toBe(
    'GitHub Actions, repository acme/shop, ref refs/heads/main, role ci, database shop-prod at pgusher.acme.example:6432',
  )
  expect(line(githubClaims({ ref: 'refs/heads/\n\x1b[31m', repository: 'acme/\u202eshop' }))).not.toMatch(
    /[\p{Cc}\p{Bidi_Control}]/u,
  )
  expect(clockTime(Date.UTC(2026, 10, 21, 9, 5, 7), Date.UTC(2026, 10, 21, 23))).toBe('09:05:07 UTC')
  expect(clockTime(Date.UTC(2026, 10, 22, 9, 5, 7), Date.UTC(2026, 10, 21, 23))).toBe('2026-11-22 09:05:07 UTC')
})

test('--server', () => {
  expect(
    ['pgusher', 'pgusher.acme.example:1', '10.0.0.7:65535', '[::1]', '[fe80::1]:7000'].map(parseServerAddress),
  ).toEqual([
    { host: 'pgusher', port: 6432 },
    { host: 'pgusher.acme.example', port: 1 },
    { host: '10.0.0.7', port: 65_535 },
    { host: '::1', port: 6432 },
    { host: 'fe80::1', port: 7000 },
  ])
  for (const bad of ['', ':6432', 'a:0', 'a:65536', 'a:b', 'http://a', 'a/b', '::1', 'a b', 'a:1:2', '/tmp']) {
    expect(parseServerAddress(bad)).toBeUndefined()
  }
  const host = fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6())
  fc.assert(
    fc.property(host, fc.integer({ min: 1, max: 65_535 }), (name, port) => {
      expect(parseServerAddress(hostAndPort({ host: name, port }))).toEqual({ host: name, port })
    }),
  )
})
