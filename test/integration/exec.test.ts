/**
 * Programs, unchanged, below `pgusher exec` in a job of GitHub Actions whose tokens are over after seconds: each connection gets
 * one of its own. On Debian's PostgreSQL where it is installed, since pg_dump refuses a server newer than itself.
 */
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type CiIssuer, startCiIssuer } from '../support/ci/issuer.ts'
import { type SimulatedCi, simulateCi } from '../support/ci/simulate.ts'
import { available, type Finished, type Started } from '../support/commands.ts'
import { type ExecOptions, startExec, UNTIL } from '../support/exec.ts'
import { RULES, type Stage, startStage } from '../support/pgusher.ts'
import { eventually, postgresVersions, setupShop } from '../support/postgres.ts'

/**
 * Seconds. pgusher takes a token until 30 s after its end, so the first are over eight seconds after they were issued. Where a machine is too
 * busy for a job to begin in that time, the next ones do.
 */
const LIVES = [-22, 0, 60]
const LEEWAY = 30
/** Milliseconds in which a job begins on any machine. */
const PATIENCE = 60_000
const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const JDBC = '/usr/share/java/postgresql.jar'

let stage: Stage
let ci: SimulatedCi
let issuer: CiIssuer
/** They begin with the file and go on at its end. */
let pools: Pools
const opened = new AsyncDisposableStack()
beforeAll(async () => {
  issuer = await startCiIssuer()
  opened.defer(() => issuer.close())
  const debian = postgresVersions().find(({ version }) => version < 18)
  const server = await debian?.start()
  opened.defer(async () => server?.stop())
  stage = await startStage({
    issuers: {
      github: { ...issuer.issuerConfig('github-actions'), require: { repository_owner_id: '9100001' } },
      gitlab: issuer.issuerConfig('gitlab'),
    },
    rules: RULES.map((rule) =>
      rule.name === 'report' && rule.allow ? { ...rule, allow: { ...rule.allow, ticket_life: '5m' } } : rule,
    ),
    config: (config) => ({ ...config, tickets: { key: randomBytes(32).toString('base64') } }),
    ...(server === undefined ? {} : { upstream: { server, shop: await setupShop(server) } }),
  })
  opened.use(stage)
  ci = await simulateCi('github-actions', issuer)
  opened.defer(() => ci.close())
  pools = await startPools()
})
afterAll(() => opened.disposeAsync())

type Options = Partial<ExecOptions> & { job?: SimulatedCi }
const exec = (command: readonly string[], { job = ci, env, options = [], ...rest }: Options = {}): Started =>
  startExec(stage, command, { env: { ...job.env, ...env }, options, ...rest })
const ended = (command: readonly string[], options: Options = {}): Promise<Finished> => exec(command, options).finished
const node = (script: string): string[] => [process.execPath, '--input-type=module', '-e', script]
const goOn = (): string => join(stage.directory, 'go-on')

async function closing(simulated: Promise<SimulatedCi>): Promise<SimulatedCi & AsyncDisposable> {
  const ci = await simulated
  return Object.assign(ci, { [Symbol.asyncDispose]: () => ci.close() })
}

/** Jobs that have begun, and go on when the tokens of their first connections are over. */
interface Pools {
  github: Started
  gitlab: Started
  /** No older than their first tokens, and when it is over, in milliseconds since the epoch. */
  token: string
  over: number
  /** Tickets that were given back before. */
  returned: number
}

async function startPools(): Promise<Pools> {
  for (const lifeSeconds of LIVES) {
    const jobs = [simulateCi('github-actions', issuer, { lifeSeconds }), simulateCi('gitlab', issuer, { lifeSeconds })]
    const [first, second] = await Promise.all(jobs)
    if (first === undefined || second === undefined) break
    opened.defer(async () => void (await Promise.all([first.close(), second.close()])))
    const github = exec(node(poolProgram()), { job: first })
    const gitlab = exec(node(poolProgram()), { job: second, user: 'shop_reader' })
    if ((await Promise.all([hasBegun(github), hasBegun(gitlab)])).every(Boolean)) {
      const token = await issuer.token('github-actions', { lifeSeconds })
      const returned = (await stage.events('ticket.returned')).length
      return { ...{ github, gitlab, token, returned }, over: Date.now() + (LEEWAY + lifeSeconds) * 1_000 }
    }
    for (const { child } of [github, gitlab]) child.kill()
    await Promise.all([github.finished, gitlab.finished])
  }
  throw new Error('no job began before its token was over')
}

/** False where it ended instead. */
async function hasBegun({ stdout, child }: Started): Promise<boolean> {
  const printed = (): boolean => stdout().endsWith('\n')
  await eventually(async () => printed() || child.exitCode !== null, PATIENCE)
  return printed()
}

function poolProgram(): string {
  return `
    import { existsSync } from 'node:fs'
    import pg from ${JSON.stringify(`${ROOT}node_modules/pg/esm/index.mjs`)}
    const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL })
    const who = async () => (await pool.query('select current_user as role, pg_backend_pid() as pid')).rows[0]
    const first = await who()
    console.log(first.role)
    while (!existsSync(${JSON.stringify(goOn())})) await new Promise((next) => setTimeout(next, 20))
    ;(await pool.connect()).release(true)
    const second = await who()
    console.log(second.role, second.pid !== first.pid)
    await pool.end()`
}

test('node-pg-migrate up, by DATABASE_URL alone', async () => {
  const directory = join(stage.directory, 'migrations')
  await mkdir(directory)
  await writeFile(join(directory, '1_first.sql'), 'CREATE TABLE public.by_migration (a int);')
  await writeFile(join(directory, '2_second.sql'), 'ALTER TABLE public.by_migration ADD COLUMN b text;')
  const { code, stderr } = await ended([
    process.execPath,
    `${ROOT}node_modules/node-pg-migrate/bin/node-pg-migrate.js`,
    ...['up', '--migrations-dir', directory, '--migration-file-language', 'sql'],
  ])
  expect({ code, stderr }).toMatchObject({ code: 0 })
  const owners = await stage.admin(
    `select tableowner from pg_tables where tablename in ('by_migration', 'pgmigrations')`,
    'shop',
  )
  expect(owners).toEqual([{ tableowner: 'shop_migrator' }, { tableowner: 'shop_migrator' }])
})

if (await available('psql')) {
  describe('psql', () => {
    test('COPY both ways, a large result, an error of its own, and one line about the identity', async () => {
      const lines = Array.from({ length: 20_000 }, (_, n) => `${n}\titem ${n} ü\n`).join('')
      const script = `create temp table lines (id int, item text);\ncopy lines from stdin;\n${lines}\\.\n
        copy (select item from lines order by id) to stdout;\nselect repeat('0123456789', 1000) from generate_series(1, 1000);\nselect 1/0;\n`
      const { code, stdout, stderr } = await ended(['psql', '-X', '-qAt', '-v', 'ON_ERROR_STOP=1'], { input: script })
      const told = stdout.split('\n')
      expect(told.slice(0, 20_000)).toEqual(Array.from({ length: 20_000 }, (_, n) => `item ${n} ü`))
      expect(told.slice(20_000)).toEqual([...Array(1_000).fill('0123456789'.repeat(1_000)), ''])
      expect(code).toBe(3)
      expect(stderr.split('\n')).toEqual([
        `pgusher: GitHub Actions, repository acme/shop, ref refs/heads/main, role shop_migrator, database shop-prod at 127.0.0.1:${stage.port}; a fresh token for each connection`,
        expect.stringContaining('ERROR:  division by zero'),
        '',
      ])
    })

    test('Ctrl-C cancels the statement and not the job', async () => {
      const { child, finished } = exec(['psql', '-X', '-At'], { input: 'select pg_sleep(60);\nselect 42;\n' })
      await eventually(async () => {
        const sql = `select from pg_stat_activity where query like '%pg_sleep(60)%' and state = 'active' and pid <> pg_backend_pid()`
        return (await stage.admin(sql)).length > 0
      })
      child.kill('SIGINT')
      const { code, stdout, stderr } = await finished
      expect(stderr).toContain('ERROR:  canceling statement due to user request')
      expect({ code, stdout }).toEqual({ code: 3, stdout: '' })
    })

    test('a Unix socket that nobody else can reach, and no URL of JDBC, which could not use it', async () => {
      const script = `stat -c %a "$PGHOST"; psql -XAt -c 'select current_user' "$DATABASE_URL"; psql -XAtc 'select 1'; env`
      const { code, stdout } = await ended(['sh', '-c', script], {
        options: ['--socket'],
        env: { FLYWAY_URL: 'jdbc:elsewhere' },
      })
      expect(code).toBe(0)
      expect(stdout).toMatch(/^700\nshop_migrator\n1\n/)
      expect(stdout).not.toMatch(/^(?:JDBC|FLYWAY)/m)
      const [, directory = ''] = /^PGHOST=(.*)$/m.exec(stdout) ?? []
      expect(directory).toMatch(/^\//)
      expect(existsSync(directory)).toBe(false)
    })

    test('a refusal: the command gets it word for word, and the claims stand beside what was wanted', async () => {
      const { code, stdout, stderr } = await ended(['psql', '-XAtc', 'select 1'], {
        database: 'warehouse',
        user: 'shop_reader',
      })
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
      const [, denial] = /^psql: .*FATAL: {2}(.*)$/m.exec(stderr) ?? []
      expect(denial).toMatch(/^access to "warehouse" denied: .* \[D-\w{6}\]$/)
      expect(stderr).toContain(
        `pgusher: refused: role shop_reader on database warehouse (SQLSTATE 42501)\n  ${denial}\n`,
      )
      expect(stderr).toMatch(/^ {2}claim +this job's token/m)
      expect(stderr).toMatch(/^ {2}ref +refs\/heads\/main$/m)
    })
  })

  test.runIf(await available('pg_dump'))('pg_dump', async () => {
    const { code, stdout, stderr } = await ended(['pg_dump', '--table', 'public.orders'])
    expect({ code, stderr: stderr.split('\n').slice(1) }).toEqual({ code: 0, stderr: [''] })
    expect(stdout).toMatch(/^CREATE TABLE public\.orders[\s\S]*^1\ttea\n2\tcoffee\n3\tcocoa\n/m)
  })

  test.runIf(await available('pgbench'))('pgbench -C: a connection for each transaction', async () => {
    // Tokens that are over when they are made, and taken for 30 s more: none is used once more, but by connections that are made at the same moment.
    await using job = await closing(simulateCi('github-actions', issuer, { lifeSeconds: 0 }))
    const script =
      'pgbench -i -q && pgbench -n -S -C -c 3 -t 5 && psql -Xqc "drop table pgbench_accounts, pgbench_branches, pgbench_history, pgbench_tellers"'
    const { code, stdout, stderr } = await ended(['sh', '-c', script], { job })
    expect({ code, stderr }).toMatchObject({ code: 0 })
    expect(stdout).toContain('number of transactions actually processed: 15/15')
    expect(job.asked.length).toBeGreaterThan(5)
  })
}

test.runIf(existsSync(JDBC) && (await available('java')))('a program on JDBC, by JDBC_DATABASE_URL alone', async () => {
  const program = fileURLToPath(new URL('../support/clients/ExecJob.java', import.meta.url))
  const { code, stdout, stderr } = await ended(['java', '-cp', JDBC, program])
  expect({ code, stdout, stderr }).toMatchObject({ code: 0, stdout: 'shop_migrator\n' })
})

test('pools of node-postgres connect anew when the tokens of their first connections are long over', async () => {
  const { token, over, returned } = pools
  await eventually(async () => Date.now() > over, Math.max(0, over - Date.now()) + PATIENCE)
  await expect(stage.session({ token }, async () => {})).rejects.toThrow('the token expired')
  const ticketsReturned = async (): Promise<number> => (await stage.events('ticket.returned')).length
  expect(await ticketsReturned()).toBe(returned)
  await writeFile(goOn(), '')
  expect(await pools.github.finished).toMatchObject({
    ...{ code: 0, stdout: 'shop_migrator\nshop_migrator true\n' },
    stderr: expect.stringMatching(/; a fresh token for each connection\n$/),
  })
  // By a ticket, which is given back when the command has ended.
  expect(await pools.gitlab.finished).toMatchObject({
    ...{ code: 0, stdout: 'shop_reader\nshop_reader true\n' },
    stderr: expect.stringMatching(new RegExp(`^pgusher: GitLab CI/CD, repository acme/shop, .*; a ticket ${UNTIL}\n$`)),
  })
  await eventually(async () => (await ticketsReturned()) === returned + 1)
}, 240_000)

test('where the rule gives no tickets the one token is used, and that is said', async () => {
  const env = { MY_TOKEN: await issuer.token('github-actions') }
  const script = `psql -XAtc 'select current_user' || true`
  const { code, stderr } = await ended(['sh', '-c', script], { env, options: ['--token-env', 'MY_TOKEN'] })
  expect(code).toBe(0)
  expect(stderr).toMatch(
    new RegExp(
      `^pgusher: the variable MY_TOKEN, .*; a token ${UNTIL}, no ticket: rule "migrate-production" gives no tickets \\[D-\\w+\\]\n$`,
    ),
  )
})
