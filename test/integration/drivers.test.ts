/**
 * Drivers with the token in the URL, against each PostgreSQL: those of Node.js, and those of Python and Java where they are
 * installed. What they did is what the audit says, statement by statement.
 */
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import pg from 'pg'
import { from as copyFrom, to as copyTo } from 'pg-copy-streams'
import Cursor from 'pg-cursor'
import postgres from 'postgres'
import { expect, test } from 'vitest'
import { onEachPostgres } from '../support/each-postgres.ts'
import type { StageEvent } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'
import { wasExecuted } from '../support/statement-events.ts'

const exec = promisify(execFile)
const client = (name: string) => fileURLToPath(new URL(`../support/clients/${name}`, import.meta.url))
const PYTHON = '/usr/bin/python3'
const JDBC = '/usr/share/java/postgresql.jar'

interface Driver {
  name: string
  command: readonly string[]
  /** Connections that it makes. */
  sessions: number
}

async function installed(): Promise<Driver[]> {
  const found: Driver[] = []
  const pythons = { asyncpg: 1, psycopg: 1, psycopg2: 2 }
  for (const [name, sessions] of Object.entries(pythons)) {
    const known = await exec(PYTHON, ['-c', `import ${name}`]).then(
      () => true,
      () => false,
    )
    if (known) found.push({ name, command: [PYTHON, client(`${name}_job.py`)], sessions })
  }
  const java = await exec('java', ['-version']).then(
    () => true,
    () => false,
  )
  if (java && existsSync(JDBC))
    found.push({ name: 'pgjdbc', command: ['java', '-cp', JDBC, client('Job.java')], sessions: 1 })
  return found
}

const others = await installed()
onEachPostgres(
  (stage) => {
    /** A job of its own, so that its statements can be told from others'. */
    let runs = 0
    async function job() {
      const run = String(900_000 + runs++)
      const url = new URL(stage().url({ token: await stage().token('github', { run_id: run }) }))
      const statements = async (): Promise<StageEvent[]> => {
        const mine = await eventually(async () => {
          const events = await stage().events((event) => runOf(event) === run)
          const [started, ended] = ['session.started', 'session.ended'].map(
            (name) => events.filter(({ event }) => event === name).length,
          )
          return (ended ?? 0) > 0 && started === ended && events
        })
        return mine.filter((event) => event.event === 'statement' && wasExecuted(event))
      }
      return { url, statements }
    }
    const runOf = (event: StageEvent) =>
      (event['cicd'] as { pipeline?: { run?: { id?: string } } } | undefined)?.pipeline?.run?.id
    const textOf = (event: StageEvent) => (event['db'] as { query?: { text?: string } }).query?.text
    const outcomes = (events: readonly StageEvent[]) => new Set(events.map(({ pgusher }) => pgusher.outcome))

    test('node-postgres: parameters, names, a pool, errors, notices, LISTEN', async () => {
      const { url, statements } = await job()
      const pool = new pg.Pool({ connectionString: url.href, max: 3 })
      const rows = await Promise.all(
        Array.from({ length: 20 }, (_, i) =>
          pool.query({ name: 'twice', text: 'select $1::int * 2 as n', values: [i] }),
        ),
      )
      expect(rows.map(({ rows: [row] }) => row.n)).toEqual(Array.from({ length: 20 }, (_, i) => i * 2))
      await expect(pool.query('select * from public.nothing')).rejects.toMatchObject({ code: '42P01' })
      const client = await pool.connect()
      const heard = once(client, 'notification')
      await client.query('listen pool')
      await client.query(`notify pool, 'hello'`)
      expect((await heard)[0]).toMatchObject({ channel: 'pool', payload: 'hello' })
      await client.query('begin')
      await client.query('create table public.by_pg (a bytea, b jsonb)')
      await client.query('insert into public.by_pg values ($1, $2)', [Buffer.from([0, 255, 10]), { deep: ['ü'] }])
      expect((await client.query('select * from public.by_pg')).rows).toEqual([
        { a: Buffer.from([0, 255, 10]), b: { deep: ['ü'] } },
      ])
      await client.query('rollback')
      client.release()
      await pool.end()
      const events = await statements()
      expect(events).toHaveLength(20 + 1 + 7)
      expect(events.filter(({ pgusher }) => pgusher['statement_name'] === 'twice')).toHaveLength(20)
      expect(events.filter((event) => textOf(event) === 'select $1::int * 2 as n')).toHaveLength(20)
      expect(events.filter(({ pgusher }) => pgusher.outcome === 'failure')).toHaveLength(1)
    })

    test('pg-cursor and pg-copy-streams', async () => {
      const { url, statements } = await job()
      const client = new pg.Client({ connectionString: url.href })
      await client.connect()
      const cursor = client.query(new Cursor<{ g: number }>('select generate_series(1, $1::int) as g', [250]))
      const sizes: number[] = []
      for (let rows = await cursor.read(100); rows.length > 0; rows = await cursor.read(100)) sizes.push(rows.length)
      expect(sizes).toEqual([100, 100, 50])
      await cursor.close()
      await client.query('create temp table lines (id int, item text)')
      const lines = Array.from({ length: 10_000 }, (_, i) => `${i}\titem ${i}\n`)
      await pipeline(Readable.from(lines), client.query(copyFrom('copy lines from stdin')))
      let bytes = 0
      const out = client.query(copyTo('copy lines to stdout'))
      for await (const chunk of out) bytes += (chunk as Buffer).length
      expect(bytes).toBe(lines.join('').length)
      await client.end()
      const events = await statements()
      const told = events.map(({ pgusher, db }) => [
        ...[pgusher['protocol'], pgusher['affected_rows']],
        (db as { response: { returned_rows: number } }).response.returned_rows,
      ])
      expect(told).toEqual([
        ...[
          ['extended', undefined, 100],
          ['extended', undefined, 100],
          ['extended', undefined, 50],
        ],
        ...(told.length > 6 ? [['extended', undefined, 0]] : []),
        ...[
          ['simple', undefined, 0],
          ['copy_in', 10_000, 0],
          ['copy_out', undefined, 10_000],
        ],
      ])
      expect(outcomes(events)).toEqual(new Set(['success']))
    })

    test('postgres.js: pipelined queries, a transaction, a cursor, unsafe, COPY, cancel', async () => {
      const { url, statements } = await job()
      const [host, port] = [url.hostname, Number(url.port)]
      const sql = postgres({
        ...{ host, port, user: url.username, password: decodeURIComponent(url.password) },
        ...{ database: url.pathname.slice(1), ssl: { ca: stage().ca }, max: 2, fetch_types: false, onnotice: () => {} },
      })
      const many = await Promise.all(Array.from({ length: 30 }, (_, i) => sql`select ${i}::int as n`))
      expect(many.map(([row]) => row?.['n'])).toEqual(Array.from({ length: 30 }, (_, i) => i))
      await sql.begin(async (tx) => {
        await tx`create temp table t (a int) on commit drop`
        await tx`insert into t ${tx([{ a: 1 }, { a: 2 }])}`
        expect(await tx`select count(*)::int as n from t`).toMatchObject([{ n: 2 }])
      })
      await expect(sql`select 1 / ${0}::int`).rejects.toMatchObject({ code: '22012' })
      const sizes: number[] = []
      await sql`select generate_series(1, 25) as g`.cursor(10, async (rows) => void sizes.push(rows.length))
      expect(sizes).toEqual([10, 10, 5])
      expect(await sql.unsafe('select 1 as a; select 2 as b')).toMatchObject([[{ a: 1 }], [{ b: 2 }]])
      const slow = sql`select pg_sleep(60)`.execute()
      const refused = expect(slow).rejects.toMatchObject({ code: '57014' })
      await eventually(async () => {
        const sql = `select 1 from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'`
        return (await stage().admin(sql)).length > 0
      })
      slow.cancel()
      await refused
      await sql.end()
      const events = await statements()
      expect(events.filter((event) => textOf(event) === 'select $1::int as n')).toHaveLength(30)
      expect(events.filter(({ pgusher }) => pgusher.outcome === 'failure').map(textOf)).toEqual([
        ...['select 1 / $1::int', 'select pg_sleep(60)'],
      ])
      expect(events.map(textOf)).toEqual(expect.arrayContaining(['select 1 as a', 'select 2 as b']))
    })

    test.concurrent.each(others)('$name', async ({ name, command, sessions }) => {
      const token = await stage().token('github', { run_id: name })
      const url = new URL(stage().url({ token }))
      const { stdout } = await exec('timeout', ['60', ...command], {
        env: {
          PATH: process.env['PATH'],
          HOME: stage().directory,
          DATABASE_URL: url.href,
          JDBC_URL: `jdbc:postgresql://${url.host}${url.pathname}`,
          PGUSER: 'shop_migrator',
          PGPASSWORD: token,
          CA: stage().caFile,
        },
      })
      expect(stdout).toBe('done\n')
      const events = await eventually(async () => {
        const mine = await stage().events((event) => runOf(event) === name)
        return mine.filter(({ event }) => event === 'session.ended').length === sessions && mine
      })
      const statements = events.filter((event) => event.event === 'statement' && wasExecuted(event))
      const outcomes = new Set(statements.map(({ pgusher }) => pgusher.outcome))
      expect([...outcomes].sort()).toEqual(['failure', 'success'])
      expect(statements).toHaveLength(await loggedBy(new Set(events.map(loginOf))))
    })

    const loginOf = (event: Record<string, unknown>) =>
      (event['pgusher'] as { db?: { login?: string } } | undefined)?.db?.login

    /** Statements that PostgreSQL's own log has of these logins. */
    async function loggedBy(logins: ReadonlySet<string | undefined>): Promise<number> {
      const log = await readFile(stage().server.logFile, 'utf8')
      return log.split('\n').filter((line) => {
        const [, login, what] = /^\S+ \S+ \S+ \[\d+\] (\S+)@\S+ LOG: {2}(statement|execute)\b/.exec(line) ?? []
        return what !== undefined && logins.has(login)
      }).length
    }
  },
  {},
  { settings: { log_statement: 'all' } },
)
