/** `pgusher env`: a connection for the steps that follow, in each form, used by what reads that form. */
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type EnvFormat, runEnv } from '../../src/client/environment/run-env.ts'
import { createServerApi } from '../../src/client/server-api.ts'
import { type CiIssuer, startCiIssuer } from '../support/ci/issuer.ts'
import { simulateCi } from '../support/ci/simulate.ts'
import { available, type Finished, output, start } from '../support/commands.ts'
import { jobEnv, pgusher, UNTIL } from '../support/exec.ts'
import { RULES, type Stage, startStage } from '../support/pgusher.ts'
import { withClient } from '../support/postgres.ts'
import { AUDIENCE } from '../support/tokens.ts'

let issuer: CiIssuer
let stage: Stage
let directory: string
let github: Record<string, string>
const opened = new AsyncDisposableStack()
beforeAll(async () => {
  issuer = await startCiIssuer()
  opened.defer(() => issuer.close())
  directory = await mkdtemp(join(tmpdir(), 'pgusher-env-'))
  opened.defer(() => rm(directory, { recursive: true }))
  stage = await startStage({
    issuers: {
      github: { ...issuer.issuerConfig('github-actions'), require: { repository_owner_id: '9100001' } },
      gitlab: issuer.issuerConfig('gitlab'),
    },
    rules: RULES.map((rule) =>
      rule.name === 'report' && rule.allow ? { ...rule, allow: { ...rule.allow, ticket_life: '5m' } } : rule,
    ),
    config: (config) => ({ ...config, tickets: { key: randomBytes(32).toString('base64') } }),
  })
  opened.use(stage)
  const ci = await simulateCi('github-actions', issuer)
  opened.defer(() => ci.close())
  github = { ...ci.env, GITHUB_ENV: join(directory, 'github-env'), GITHUB_STEP_SUMMARY: join(directory, 'summary') }
})
afterAll(() => opened.disposeAsync())

/** In this process, to be quick; the command line is what `eval` and the usage test below run. */
async function environment(format: EnvFormat, { env = github, user = 'shop_migrator' } = {}): Promise<Finished> {
  const [out, err]: [string[], string[]] = [[], []]
  const code = await runEnv({
    server: { host: '127.0.0.1', port: stage.port },
    ...{ caFile: stage.caFile, database: 'shop-prod', user, audience: AUDIENCE, source: { env }, format, env },
    print: (text) => void out.push(text),
    say: (text) => void err.push(text),
  })
  return { code, stdout: out.join(''), stderr: err.join('') }
}
const roleBy = (connectionString: string): Promise<string> =>
  withClient({ connectionString }, async (client) => (await client.query('select current_user as role')).rows[0].role)

test('url, and json with all variables', async () => {
  const [url, json] = await Promise.all([environment('url'), environment('json')])
  expect(url).toMatchObject({ code: 0, stdout: expect.stringMatching(/^postgres:\/\/shop_migrator:\S+\n$/) })
  expect(await roleBy(url.stdout.trim())).toBe('shop_migrator')
  const all = JSON.parse(json.stdout) as Record<string, string>
  expect(all).toMatchObject({
    PGHOST: '127.0.0.1',
    PGPORT: String(stage.port),
    PGSSLMODE: 'verify-full',
    PGSSLROOTCERT: stage.caFile,
    FLYWAY_URL: `jdbc:postgresql://127.0.0.1:${stage.port}/shop-prod?sslmode=verify-full&sslrootcert=${stage.caFile}`,
    FLYWAY_PASSWORD: all['PGPASSWORD'],
  })
  expect(all['JDBC_DATABASE_URL']).toContain(`&password=${all['PGPASSWORD']}&`)
})

test('a ticket where the rule gives one, and the token with a warning where it gives none', async () => {
  await using ci = { ...(await simulateCi('gitlab', issuer)), [Symbol.asyncDispose]: () => ci.close() }
  const { code, stdout, stderr } = await environment('url', { env: ci.env, user: 'shop_reader' })
  expect({ code, stderr }).toEqual({
    code: 0,
    stderr: expect.stringMatching(new RegExp(`^pgusher: GitLab CI/CD, .*; a ticket ${UNTIL}\n$`)),
  })
  const ticket = new URL(stdout.trim()).password
  expect(ticket).toMatch(/^pgut_/)
  expect(await roleBy(stdout.trim())).toBe('shop_reader')
  await createServerApi({ server: { host: '127.0.0.1', port: stage.port }, caFile: stage.caFile }).giveBack(ticket)
  const { stderr: warned } = await environment('url')
  expect(warned).toMatch(
    new RegExp(
      `; warning: the token itself, good for connections ${UNTIL}, as there is no ticket: rule "migrate-production" gives no tickets`,
    ),
  )
})

if (await available('psql')) {
  describe('read by', () => {
    test('eval, and psql by PG* alone; what would lead it elsewhere is taken away', async () => {
      const line = pgusher(stage, 'env', { env: {}, options: ['--audience', AUDIENCE] })
        .map((one) => `'${one}'`)
        .join(' ')
      const script = `set -eu; eval "$(${line})"; psql -XAtc 'select current_user'; psql -XAt "$DATABASE_URL" -c 'select 2'`
      const env = jobEnv(stage, { env: { ...github, PGHOSTADDR: '10.9.9.9', PGSERVICE: 'elsewhere' } })
      expect(await output(['sh', '-c', script], env)).toBe('shop_migrator\n2\n')
    })

    test('a step of GitHub Actions: nothing secret is printed before it is masked, and nothing but masks at all', async () => {
      const { code, stdout, stderr } = await environment('github')
      expect({ code, stderr }).toMatchObject({ code: 0 })
      expect(stdout).toMatch(/^(?:::add-mask::\S+\n)+$/)
      const masked = stdout
        .trim()
        .split('\n')
        .map((line) => line.slice('::add-mask::'.length))
      const written = await readFile(github['GITHUB_ENV'] ?? '', 'utf8')
      const read = new Map(
        [...written.matchAll(/^(\w+)<<(\w+)\n(.*)\n\2$/gm)].map(([, name = '', , value = '']) => [name, value]),
      )
      expect(masked).toContain(read.get('PGPASSWORD'))
      expect(masked.reduce((text, secret) => text.replaceAll(secret, '***'), stderr)).toBe(stderr)
      const env = { ...jobEnv(stage, { env: {} }), ...Object.fromEntries(read) }
      expect(await output(['psql', '-XAtc', 'select current_user'], env)).toBe('shop_migrator\n')
    })

    test('GitLab, as a report of variables', async () => {
      const { code, stdout } = await environment('dotenv')
      expect(code).toBe(0)
      expect(Buffer.byteLength(stdout)).toBeLessThan(5 * 1024)
      const read = stdout
        .trim()
        .split('\n')
        .map((line) => /^(\w+)=(\S*)$/.exec(line)?.slice(1) ?? [])
      const env = { ...jobEnv(stage, { env: {} }), ...Object.fromEntries(read) }
      expect(await output(['psql', '-XAtc', 'select current_user'], env)).toBe('shop_migrator\n')
    })
  })
}

test('a refusal: told on stderr, nothing on stdout that a shell would take, a page in the job’s summary', async () => {
  const { code, stdout, stderr } = await environment('github', { user: 'shop_reader' })
  expect(code).toBe(1)
  expect(stdout).toMatch(/^::add-mask::\S+\n$/)
  const [, reason = ''] =
    /^pgusher: refused: role shop_reader on database shop-prod \(SQLSTATE 42501\)\n {2}(.*)$/m.exec(stderr) ?? []
  expect(reason).toMatch(/this job may not use role "shop_reader"; it may use "shop_migrator" \[D-\w{6}\]$/)
  const summary = await readFile(github['GITHUB_STEP_SUMMARY'] ?? '', 'utf8')
  expect(summary).toContain(
    '### No access by pgusher: role <code>shop&#95;reader</code> on database <code>shop-prod</code>',
  )
  expect(summary).toContain('| <code>repository</code> | <code>acme/shop</code> |')
  const shell = await environment('shell', { user: 'shop_reader' })
  expect(shell).toMatchObject({ code: 1, stdout: '' })
})

test('what is missing: GITHUB_ENV, a token, a format', async () => {
  const { GITHUB_ENV: _, ...without } = github
  const [outside, none, wrong] = await Promise.all([
    environment('github', { env: without }),
    environment('shell', { env: {} }),
    start(pgusher(stage, 'env', { env: {}, options: ['--format', 'xml'] }), jobEnv(stage, { env: {} })).finished,
  ])
  expect(outside).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('GITHUB_ENV is not set') })
  expect(none).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('no CI system was recognised') })
  expect(wrong).toMatchObject({ code: 2, stdout: '' })
})
