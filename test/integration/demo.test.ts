import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { startPostgres } from '../../src/cli/demo/embedded-postgres.ts'
import { createCa, type TestCa } from '../support/certificates.ts'
import { eventually, type PostgresServer, postgresVersions, query, urlFor } from '../support/postgres.ts'

const run = promisify(execFile)
const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

/** All that a demo makes lies below it, so that what is left can be seen. */
let scratch: string
let demos: ChildProcess[]

beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'pgusher-demo-test-'))
  // PostgreSQL runs as another user where we are root, and must get in.
  await chmod(scratch, 0o755)
  demos = []
})

afterEach(async () => {
  for (const demo of demos) if (demo.exitCode === null && demo.signalCode === null) demo.kill('SIGKILL')
  await eventually(async () => (await processes()).length === 0)
  await rm(scratch, { recursive: true, force: true })
})

interface Demo {
  child: ChildProcess
  /** stdout and stderr so far. */
  output(): string
  /** Resolves as soon as `text` was said. */
  says(text: string): Promise<unknown>
  ended(): Promise<{ code: number | null; signal: string | null }>
}

function demo(args: readonly string[], env: NodeJS.ProcessEnv = {}): Demo {
  const environment: NodeJS.ProcessEnv = { ...process.env, TMPDIR: scratch, ...env }
  if (env['FORCE_COLOR'] === undefined) delete environment['FORCE_COLOR']
  const child = spawn(process.execPath, ['--', MAIN, 'demo', ...args], {
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  demos.push(child)
  let said = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text
    })
  }
  const closed = once(child, 'close')
  return {
    child,
    output: () => said,
    says: (text) =>
      eventually(async () => {
        if (!said.includes(text) && child.exitCode !== null) throw new Error(`it ended without "${text}":\n${said}`)
        return said.includes(text)
      }, 30_000),
    async ended() {
      await closed
      return { code: child.exitCode, signal: child.signalCode }
    },
  }
}

/** Command lines of processes that use a file below `scratch`. */
async function processes(): Promise<string[]> {
  const { stdout } = await run('ps', ['-eo', 'args'], { maxBuffer: 16 * 1024 * 1024 })
  return stdout.split('\n').filter((line) => line.includes(scratch))
}

async function expectNothingLeft(): Promise<void> {
  expect(await readdir(scratch)).toEqual([])
  expect(await processes()).toEqual([])
}

describe('--once', () => {
  test('tells the story, ends with 0 and leaves nothing', async () => {
    const { output, ended } = demo(['--once'])
    expect(await ended(), output()).toEqual({ code: 0, signal: null })
    const login = /(pgu_\w+) \| shop_migrator/.exec(output())?.[1]
    for (const text of [
      'PostgreSQL   18.',
      `the table belongs to shop_migrator; ${login} was minted`,
      'access to "shop-prod" denied: claim ref is "refs/heads/fix-1", rule "migrate-production" needs',
      'HINT:    Production migrations run only from main. Contact: #db-help.',
      'ERROR:   permission denied for table orders',
      `=> SELECT count(*) FROM pg_roles WHERE rolname LIKE 'pgu\\_%'\n      0\n`,
      'DDL CREATE TABLE public.invoices',
      'no_matching_rule D-',
      'WRITE INSERT public.orders, SQLSTATE 42501',
    ])
      expect(output()).toContain(text)
    expect(output()).not.toContain('\x1b[')
    // A token, a password in a URL.
    expect(output()).not.toMatch(/eyJ|:\/\/[^\s/]+:[^\s/]+@/)
    await expectNothingLeft()
  })

  test('in colour where it is asked for; files stay where the directory was given, and jq answers the questions of an auditor', async () => {
    const directory = join(scratch, 'kept')
    const { output, ended } = demo(['--once', '--data-dir', directory], { FORCE_COLOR: '1' })
    expect(await ended(), output()).toEqual({ code: 0, signal: null })
    expect(output()).toContain('\x1b[32m✓\x1b[39m')
    expect((await readdir(directory)).sort()).toEqual([
      'audit.jsonl',
      'ca.crt',
      'pgusher.log',
      'pgusher.yaml',
      'tls.crt',
      'tls.key',
    ])
    const events = (await readFile(join(directory, 'audit.jsonl'), 'utf8')).trimEnd().split('\n')
    expect(JSON.parse(events.at(-1) ?? '')).toMatchObject({ event: 'audit.stopped' })
    await expectAnswers(join(directory, 'audit.jsonl'))
    const check = await run(process.execPath, [MAIN, 'check', '--config', join(directory, 'pgusher.yaml')])
    expect(check.stderr).toBe('')
    expect(await readdir(scratch)).toEqual(['kept'])
  })

  test('colours on a terminal, and none with NO_COLOR', async () => {
    // Nothing of where the tests run: CI systems set variables such as CI, which say that a terminal has no colours.
    const { PATH, HOME } = process.env
    const env = { PATH, HOME }
    const onTerminal = async (change: NodeJS.ProcessEnv): Promise<string> => {
      const command = `'${process.execPath}' -- '${MAIN}' demo --once --upstream mysql://localhost/`
      const options = { env: { ...env, TMPDIR: scratch, TERM: 'xterm-256color', ...change } }
      return (await run('script', ['-qc', command, '/dev/null'], options)).stdout
    }
    expect(await onTerminal({})).toContain('\x1b[31mpgusher demo:\x1b[39m --upstream wants')
    const plain = await onTerminal({ NO_COLOR: '1' })
    expect(plain).toContain('pgusher demo: --upstream wants')
    expect(plain).not.toContain('\x1b[3')
  })
})

interface Line {
  event: string
  time: string
  pgusher: {
    seq: number
    outcome: string
    idp?: { subject: string }
    decision?: { code: string; nearest: { claim: string; wanted: string; got: string }[] }
    query?: { tables: string[] }
  }
  cicd?: { pipeline: { run: { id: string; url: { full: string } } } }
  db?: { query?: { text: string } }
}

/** What jq says to the filter, where it is installed, and what `same` says in any case: the two must be equal. */
async function ask(file: string, filter: string, same: (line: Line) => unknown[]): Promise<unknown[]> {
  const lines = (await readFile(file, 'utf8')).trimEnd().split('\n')
  const ours = lines.flatMap((line) => same(JSON.parse(line) as Line))
  const jq = await run('jq', ['-c', filter, file]).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    return undefined
  })
  if (jq !== undefined) {
    const theirs = jq.stdout.trimEnd().split('\n')
    expect(theirs.map((line): unknown => JSON.parse(line))).toEqual(ours)
  }
  return ours
}

async function expectAnswers(file: string): Promise<void> {
  const runOf = ({ cicd }: Line) => cicd?.pipeline.run
  const touched = await ask(
    file,
    'select(.event=="statement" and (.pgusher.query.tables//[]|index("public.orders")))|.cicd.pipeline.run.url.full',
    (line) =>
      line.event === 'statement' && (line.pgusher.query?.tables ?? []).includes('public.orders')
        ? [runOf(line)?.url.full]
        : [],
  )
  const pipeline = 'https://gitlab.com/acme/shop/-/pipelines/1600000413'
  expect(touched).toEqual([pipeline, pipeline])
  const did = await ask(file, 'select(.cicd.pipeline.run.id=="18700000412")|[.event,.db.query.text]', (line) =>
    runOf(line)?.id === '18700000412' ? [[line.event, line.db?.query?.text ?? null]] : [],
  )
  expect(did).toEqual([
    ['credential.issued', null],
    ['session.started', null],
    ['statement', 'CREATE TABLE public.invoices (id int PRIMARY KEY, total numeric(8, 2))'],
    ['statement', 'SELECT session_user, current_user'],
    ['statement', "SELECT tableowner FROM pg_tables WHERE tablename = 'invoices'"],
    ['session.ended', null],
    ['credential.revoked', null],
  ])
  const refused = await ask(
    file,
    'select(.pgusher.outcome=="denied")|[.time,.pgusher.idp.subject,.pgusher.decision.code,.pgusher.decision.nearest]',
    ({ time, pgusher: { outcome, idp, decision } }) =>
      outcome === 'denied' ? [[time, idp?.subject, decision?.code, decision?.nearest]] : [],
  )
  const nearest = { rule: 'migrate-production', claim: 'ref', wanted: '"refs/heads/main"', got: '"refs/heads/fix-1"' }
  expect(refused).toEqual([
    [expect.any(String), 'repo:acme@9100001/shop@784500001:environment:production', 'no_matching_rule', [nearest]],
  ])
  const numbers = await ask(file, '.pgusher.seq', ({ pgusher }) => [pgusher.seq])
  expect(numbers).toEqual(numbers.map((_, index) => index + 1))
}

describe('stays up', () => {
  test('--env-file lets a shell in as an allowed job; Ctrl-C ends sessions and leaves nothing', async () => {
    const file = join(scratch, 'job.env')
    const { child, output, ended, says } = demo(['--env-file', file])
    await says('Ctrl-C ends everything')
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    const { stdout } = await run('sh', ['-c', '. "$0" && env', file], { env: {} })
    const env = Object.fromEntries(stdout.split('\n').map((line) => line.split(/=(.*)/s).slice(0, 2))) as Record<
      string,
      string
    >
    expect(output()).toContain(`export DATABASE_URL='${env['DATABASE_URL']}'`)
    expect(env['PGSSLMODE']).toBe('verify-full')
    const byVariables = {
      host: env['PGHOST']!,
      port: Number(env['PGPORT']),
      user: env['PGUSER']!,
      database: env['PGDATABASE']!,
      password: env['PGPASSWORD']!,
      ssl: { ca: await readFile(env['PGSSLROOTCERT'] ?? '', 'utf8') },
    }
    for (const config of [{ connectionString: env['DATABASE_URL']! }, byVariables]) {
      const client = new pg.Client(config)
      await client.connect()
      const { rows } = await client.query('SELECT current_user, count(*)::int AS orders FROM public.orders')
      expect(rows).toEqual([{ current_user: 'shop_migrator', orders: 3 }])
      await client.end()
    }
    const audit = (): Promise<string> => readFile(env['PGUSHER_AUDIT_LOG'] ?? '', 'utf8')
    await eventually(async () => (await audit()).includes('SELECT current_user, count(*)::int'))

    const idle = new pg.Client(byVariables)
    const farewell = once(idle, 'error')
    await idle.connect()
    idle.on('error', () => {})
    child.kill('SIGINT')
    expect((await farewell)[0]).toMatchObject({ code: '57P01' })
    expect(await ended(), output()).toEqual({ code: 0, signal: null })
    await expectNothingLeft()
  })

  test('a second signal does not wait, and files still go', async () => {
    // PostgreSQL's guardian, another user where we are root, has to remove its own directory here.
    await chmod(scratch, 0o1777)
    const { child, ended, says } = demo([])
    await says('Ctrl-C ends everything')
    child.kill('SIGTERM')
    child.kill('SIGINT')
    expect(await ended()).toMatchObject({ signal: null })
    await eventually(async () => (await readdir(scratch)).length === 0)
  })
})

describe('Ctrl-C', () => {
  test.each(['PostgreSQL', '4  The minted roles'])('at "%s" leaves nothing', async (moment) => {
    const { child, output, ended, says } = demo(['--env-file', join(scratch, 'job.env')])
    await says(moment)
    child.kill('SIGINT')
    const end = await ended()
    // Where the signal came too late for the middle of the story, its end is one like any other.
    expect(end, output()).toEqual({ code: output().includes('Ctrl-C ends everything') ? 0 : 130, signal: null })
    await expectNothingLeft()
  })
})

/** What a demo made on that server and has not taken back. */
function leftOn(server: PostgresServer): Promise<unknown[]> {
  return query(
    server.superuserUrl,
    `SELECT rolname AS name FROM pg_roles WHERE rolname ~ '^pg(u|demo)' UNION ALL SELECT datname FROM pg_database WHERE datname LIKE 'pgudemo%'`,
  )
}

async function expectStoryOn(server: PostgresServer, version: number, url = server.superuserUrl): Promise<void> {
  const { output, ended } = demo(['--once', '--upstream', url])
  expect(await ended(), output()).toEqual({ code: 0, signal: null })
  expect(output()).toContain(`PostgreSQL   ${version}.`)
  expect(output()).toMatch(/pgudemo\w+ \| pgudemo\w+_migrator/)
  expect(await leftOn(server)).toEqual([])
}

describe('--upstream', () => {
  let ca: TestCa
  let server: PostgresServer

  beforeAll(async () => {
    ca = await createCa()
    server = await startPostgres({ tls: await ca.issue({ cn: 'db', ips: ['127.0.0.1'] }) })
  })

  afterAll(() => server.stop())

  test('tells the story there, through TLS that is verified, and takes back what it made', async () => {
    const caFile = join(scratch, 'upstream-ca.crt')
    await writeFile(caFile, ca.cert)
    await expectStoryOn(server, 18, `${server.superuserUrl}?sslmode=verify-full&sslrootcert=${caFile}`)
    expect(await readFile(server.logFile, 'utf8')).toMatch(/user=pgudemo\w+x_\w+ .*SSL enabled/)
    expect(await readdir(scratch)).toEqual(['upstream-ca.crt'])
  })

  test('Ctrl-C while a job is connected', async () => {
    const { child, output, ended, says } = demo(['--upstream', server.superuserUrl])
    await says('3  A read-only job')
    child.kill('SIGINT')
    expect(await ended(), output()).toEqual({ code: 130, signal: null })
    expect(await leftOn(server)).toEqual([])
    await expectNothingLeft()
  })

  test('a user that is no superuser, and a server that is not there', async () => {
    await query(server.superuserUrl, `CREATE ROLE plain LOGIN PASSWORD 'plain'`)
    const plain = demo(['--once', '--upstream', urlFor(server.superuserUrl, { user: 'plain', password: 'plain' })])
    expect(await plain.ended()).toEqual({ code: 1, signal: null })
    expect(plain.output()).toContain('plain is no superuser of 127.0.0.1')
    const nobody = demo(['--once', '--upstream', 'postgres://postgres:secret-1@127.0.0.1:1/postgres'])
    expect(await nobody.ended()).toEqual({ code: 1, signal: null })
    expect(nobody.output()).toContain('ECONNREFUSED')
    expect(nobody.output()).not.toContain('secret-1')
    expect(await leftOn(server)).toEqual([])
  })
})

test('--upstream with each older PostgreSQL that is installed', async () => {
  for (const { version, start } of postgresVersions().filter((one) => one.version < 18)) {
    const server = await start()
    try {
      await expectStoryOn(server, version)
    } finally {
      await server.stop()
    }
  }
}, 120_000)

test('wrong options are told at once', async () => {
  const port = demo(['--port', 'abc'])
  expect(await port.ended()).toEqual({ code: 2, signal: null })
  expect(port.output()).toContain('a port is 1 to 65535')
  const url = demo(['--once', '--upstream', 'mysql://localhost/'])
  expect(await url.ended()).toEqual({ code: 1, signal: null })
  expect(url.output()).toContain('--upstream wants a URL such as postgres://')
  await expect(access(join(scratch, 'audit.jsonl'))).rejects.toThrow()
  await expectNothingLeft()
})
