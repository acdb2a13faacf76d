import { join } from 'node:path'
import { expect, test } from 'vitest'
import { HEAD, writeFiles } from '../config/write-config.ts'
import { GITHUB_JOB } from '../policy/policy-of.ts'
import { AUDIENCE, signingKey } from '../support/tokens.ts'
import { runCli } from './run-cli.ts'

const ISSUER = 'https://token.actions.githubusercontent.com'
const RULES = `rules:
  - name: migrate
    issuer: github
    match: { repository_id: "784500001", ref: refs/heads/main }
    allow: { database: shop, role: migrator, max_session: 30m }
    on_deny: { contact: "#db-help" }
  - name: read
    issuer: github
    match: { repository_id: "784500001" }
    allow: { database: stock, role: reader }
`

async function explain(claims: Record<string, unknown>, ...args: string[]) {
  const directory = await writeFiles({ 'pgusher.yaml': HEAD + RULES, 'claims.json': JSON.stringify(claims) })
  const result = await runCli([
    'explain',
    '-c',
    join(directory, 'pgusher.yaml'),
    '--claims',
    join(directory, 'claims.json'),
    ...args,
  ])
  return { ...result, stdout: result.stdout.replaceAll(directory, '') }
}

const ASK = ['--database', 'shop', '--user', 'migrator']

test('an allowed job: every condition with ✓, the grant, exit 0', async () => {
  const { code, stdout } = await explain({ ...GITHUB_JOB, iss: ISSUER }, ...ASK)
  expect(code).toBe(0)
  expect(stdout).toBe(`request  database "shop", user "migrator"
issuer   github (github-actions)
subject  "repo:acme/shop:ref:refs/heads/main"
run      https://github.com/acme/shop/actions/runs/18700000412

require of issuer github
  ✓ repository_owner_id  wanted "9100001", got "9100001"

allow rule migrate (/pgusher.yaml:17): matches
  ✓ repository_id  wanted "784500001", got "784500001"
  ✓ ref            wanted "refs/heads/main", got "refs/heads/main"
allow rule read (/pgusher.yaml:22): skipped: is for "stock"

decision  allowed by rule migrate: role "migrator" on "shop", sessions up to 1800 s, at most 10 at once
`)
})

test('a denied job: ✗ and the very message, detail and hint that the job would see, exit 1', async () => {
  const { code, stdout } = await explain({ ...GITHUB_JOB, iss: ISSUER, ref: 'refs/heads/fix-1' }, ...ASK)
  expect(code).toBe(1)
  expect(stdout).toContain('  ✗ ref            wanted "refs/heads/main", got "refs/heads/fix-1"\n')
  expect(stdout).toMatch(
    /decision {2}denied: no_matching_rule\n\nFATAL: {2}42501: access to "shop" denied: claim ref is "refs\/heads\/fix-1", rule "migrate" needs "refs\/heads\/main"\nDETAIL: {2}rule "migrate":\n {9}claim ref: wanted .*\nHINT: {2}Contact: #db-help\.\n$/,
  )
})

test('--format json holds decision, error and trace', async () => {
  const denied = await explain({ ...GITHUB_JOB, iss: ISSUER, ref: 'x' }, ...ASK, '--format', 'json')
  expect(denied.code).toBe(1)
  expect(JSON.parse(denied.stdout)).toMatchObject({
    allowed: false,
    job: { issuer: 'github', tenancy_matches: true },
    error: { code: 'no_matching_rule', sqlstate: '42501', nearest: [{ rule: 'migrate', claim: 'ref' }] },
    rules: [
      { rule: 'migrate', matched: false, source: { line: 17 } },
      { rule: 'read', skipped: 'is for "stock"' },
    ],
  })
  const allowed = await explain({ ...GITHUB_JOB, iss: ISSUER }, ...ASK, '--format', 'json')
  expect(JSON.parse(allowed.stdout)).toMatchObject({
    allowed: true,
    grant: { rule: 'migrate', role: 'migrator' },
    matched: ['migrate'],
  })
})

test('the issuer of claims is found by iss, or named', async () => {
  expect(await explain({ ...GITHUB_JOB }, ...ASK, '--issuer', 'github')).toMatchObject({ code: 0 })
  expect((await explain({ ...GITHUB_JOB }, ...ASK)).stdout).toContain(
    'the claims have no iss; name their issuer by --issuer: github',
  )
  expect((await explain({ ...GITHUB_JOB, iss: 'https://x.example' }, ...ASK)).stdout).toMatch(
    /denied: issuer_unknown[\s\S]*belongs to no issuer of the configuration/,
  )
  expect((await explain({ ...GITHUB_JOB }, ...ASK, '--issuer', 'gitlab')).stdout).toContain(
    'no issuer is called "gitlab"; the configuration has github',
  )
})

test('what the preset refuses is refused here too', async () => {
  const { code, stdout } = await explain({ ...GITHUB_JOB, iss: ISSUER, event_name: 'pull_request_target' }, ...ASK)
  expect(code).toBe(1)
  expect(stdout).toMatch(/denied: denied_by_rule[\s\S]*event_name is "pull_request_target"/)
  expect((await explain({ ...GITHUB_JOB, iss: ISSUER, aud: 'https://other.example' }, ...ASK)).stdout).toContain(
    'denied: audience_mismatch',
  )
})

test('a token is verified with the keys of its issuer', async () => {
  const key = signingKey('k1', 'RS256')
  const now = Math.floor(Date.now() / 1000)
  const token = (claims: object) =>
    key.sign({ ...GITHUB_JOB, iss: ISSUER, aud: AUDIENCE, iat: now - 5, exp: now + 290, ...claims })
  const directory = await writeFiles({
    'pgusher.yaml': HEAD.replace('    audience:', '    jwks_file: jwks.json\n    audience:') + RULES,
    'jwks.json': JSON.stringify({ keys: [key.jwk] }),
    'good.jwt': `${await token({})}\n`,
    'empty.jwt': '\n',
    'old.jwt': await token({ iat: now - 900, exp: now - 600 }),
    'forged.jwt': await signingKey('k1', 'RS256').sign({
      ...GITHUB_JOB,
      iss: ISSUER,
      aud: AUDIENCE,
      iat: now,
      exp: now + 290,
    }),
  })
  const run = (file: string) =>
    runCli(['explain', '-c', join(directory, 'pgusher.yaml'), '--token-file', join(directory, file), ...ASK])
  expect(await run('good.jwt')).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('decision  allowed by rule migrate'),
  })
  expect(await run('old.jwt')).toMatchObject({ code: 1, stdout: expect.stringContaining('denied: token_expired') })
  expect(await run('forged.jwt')).toMatchObject({
    code: 1,
    stdout: expect.stringContaining('denied: signature_invalid'),
  })
  expect(await run('empty.jwt')).toMatchObject({
    code: 1,
    stdout: expect.stringMatching(
      /denied: token_missing[\s\S]*the file .*empty\.jwt is empty, where a token is wanted/,
    ),
  })
  expect(await run('gone.jwt')).toMatchObject({
    code: 1,
    stdout: expect.stringContaining('gone.jwt cannot be read: no such file'),
  })
})

test('a configuration with errors is told on stderr, exit 1', async () => {
  const directory = await writeFiles({ 'pgusher.yaml': 'version: 2\n', 'claims.json': '{}' })
  const { code, stdout, stderr } = await runCli([
    'explain',
    '-c',
    join(directory, 'pgusher.yaml'),
    '--claims',
    join(directory, 'claims.json'),
    ...ASK,
  ])
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toMatch(/pgusher\.yaml:1:10: error: version must be 1/)
})
