import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { cancelRequest } from '../../src/wire/frontend.ts'
import { createCa } from '../support/certificates.ts'
import { onEachPostgres } from '../support/each-postgres.ts'
import { type ConfigInput, type Stage, startStage } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'
import { bind, copyData, dial, execute, flush, parse, query, rawSession, terminate } from '../support/raw-client.ts'

let stage: Stage

/** Roles stay while the tests look at warm connections, and go when the stage closes. */
const withWarm =
  (linger = '1m', warm: NonNullable<ConfigInput['databases'][string]['warm']> = { life: '1m', keep: 2 }) =>
  (config: ConfigInput): ConfigInput => {
    const entries = Object.entries(config.databases).map(([name, entry]) => {
      const credentials = { ...entry.credentials, linger }
      return [name, { ...entry, warm, credentials }]
    })
    return { ...config, databases: Object.fromEntries(entries) }
  }

beforeAll(async () => {
  stage = await startStage({ config: withWarm() })
})

afterAll(() => stage.close())

/** A job's token, so that a test begins without warm connections. */
let jobs = 0
const newJob = () => stage.token('github', { run_id: String(1000 + ++jobs), check_run_id: String(2000 + jobs) })

interface Visit<T = unknown> {
  pid: number
  result: T
}

const pidOf = async (client: pg.Client): Promise<number> =>
  (await client.query('select pg_backend_pid() as pid')).rows[0].pid

const gone = (pid: number) =>
  eventually(async () => (await stage.admin(`select from pg_stat_activity where pid = ${pid}`)).length === 0)

/** Resolves when the backend is reset, or gone. True: it is warm. */
async function settled(pid: number, at = stage): Promise<boolean> {
  let warm = false
  await eventually(async () => {
    const rows = await at.admin<{ parked: boolean }>(
      `select state = 'idle' and query like '/* pgusher: kept%' as parked from pg_stat_activity where pid = ${pid}`,
    )
    warm = rows[0]?.parked ?? false
    return rows.length === 0 || warm
  })
  return warm
}

/** A session from connect to the end of its reset. */
async function visit<T>(
  password: string,
  work: (client: pg.Client) => Promise<T>,
  options: pg.ClientConfig = {},
  at = stage,
): Promise<Visit<T>> {
  const client = new pg.Client({ ...at.client({ token: password }), ...options })
  await client.connect()
  const pid = await pidOf(client)
  const result = await work(client).finally(() => client.end())
  await settled(pid, at)
  return { pid, result }
}

/** What a session can see of its own beginning. */
async function look(client: pg.Client): Promise<Record<string, unknown>> {
  // First: pg rejects at the error, and a Terminate that comes before ReadyForQuery costs the connection.
  const lastval = await client.query('select lastval()').then(
    ({ rows: [row] }) => row,
    (error: pg.DatabaseError) => error.code,
  )
  const { rows } = await client.query(`select
    session_user, current_user, current_setting('is_superuser') as superuser, current_setting('search_path') as path,
    current_setting('work_mem') as memory, current_setting('my.thing', true) as thing, current_setting('TimeZone') as zone,
    current_setting('application_name') as application, current_setting('client_encoding') as encoding,
    current_setting('seed') as seed, current_setting('default_transaction_read_only') as readonly, pg_my_temp_schema()::int as temp,
    to_regclass('pg_temp.left_over') as left_over, array(select pg_listening_channels()) as channels,
    (select count(*)::int from pg_prepared_statements) as prepared, (select count(*)::int from pg_cursors) as cursors,
    (select count(*)::int from pg_locks where pid = pg_backend_pid() and locktype = 'advisory') as locks,
    array(select name || ' ' || source || ' ' || coalesce(reset_val, '') from pg_settings where source <> 'default'
      and name <> 'pgusher.job' order by 1) as settings`)
  return { ...rows[0], lastval }
}

const job = async (client: pg.Client): Promise<Record<string, string>> =>
  JSON.parse((await client.query("select current_setting('pgusher.job') as job")).rows[0].job)

test('the next session of the job has the backend of the one before, its own record, and nothing else of it', async () => {
  const mine = await newJob()
  const first = await visit(mine, async (client) => [
    await job(client),
    await client.query('select 1; select 2; select 3'),
  ])
  const { pid, result } = await visit(mine, async (client) => {
    const begun = await job(client)
    await client.query('discard all')
    return { begun, after: await job(client) }
  })
  expect(pid).toBe(first.pid)
  const started = await eventually(async () => {
    const found = await stage.events('session.started')
    return found.length === 2 && found
  })
  expect(started.map(({ pgusher }) => pgusher['upstream'])).toEqual([{ reused: false }, { reused: true }])
  const ids = started.map((event) => (event['session'] as { id: string }).id)
  expect(result.begun).toMatchObject({ session: ids[1], run: String(1000 + jobs) })
  // What RESET ALL comes back to was sent by another session of the job: it tells of the job only.
  expect(result.after).toMatchObject({ run: String(1000 + jobs), rule: 'migrate-production' })
  expect(result.after['session']).toBeUndefined()
  const ended = await eventually(async () => {
    const found = await stage.events(
      ({ event, session }) => event === 'session.ended' && (session as { id: string }).id === ids[1],
    )
    return found[0]
  })
  // Three of the job's own and no DISCARD ALL or comparison of ours.
  expect(ended.pgusher).toMatchObject({ end_reason: 'client', totals: { statements: 4, errors: 0 } })
  // A statement that a busy classifier gave up may have no text of its own.
  const texts = (await stage.events('statement')).map(
    ({ db }) => (db as { query?: { text?: string } }).query?.text ?? '',
  )
  expect(texts.filter((text) => /set_config|setseed|pg_conf_load_time|DISCARD/.test(text))).toEqual([])
})

describe('a session leaves', () => {
  test.each([
    ['nothing', 'select 1', true],
    ['settings', "set work_mem = '9MB'; set search_path = pg_catalog; set timezone = 'Asia/Tokyo'", true],
    ['an encoding', "set client_encoding = 'LATIN1'", true],
    ['a read-only default', 'set session characteristics as transaction read only', true],
    ['no role', 'set role none', true],
    ['another application_name', "set application_name = 'other'", true],
    ['another pgusher.job', `set pgusher.job = '{"run":"of somebody else"}'`, false],
    ['LISTEN', 'listen orders', true],
    ['a prepared statement', 'prepare p as select 1', true],
    ['a cursor WITH HOLD', 'begin; declare c cursor with hold for select 1; commit', true],
    ['advisory locks', 'select pg_advisory_lock(4711), pg_advisory_lock_shared(4712)', true],
    ['a sequence position', 'create sequence s_left; select nextval($$s_left$$); drop sequence s_left', true],
    ['replayed random numbers', 'select setseed(0.5)', true],
    ['PL/pgSQL loaded', 'do $$ begin perform 1; end $$', true],
    ['a setting of its own name', "set my.thing = 'left'", false],
    ['seed as a setting', 'set seed = 0.5', true],
    ['a setting made by set_config', "select set_config('my.thing', 'left', true)", false],
    ['a setting made in a DO block', "do $$ begin set local my.thing = 'left'; end $$", false],
    ['a temporary table', 'create temp table left_over (a int) on commit preserve rows', false],
    ['an open transaction', 'begin', false],
    ['a failed transaction', 'begin; select 1/0', false],
    ['a default for its login', "set role none; alter role current_user set work_mem = '9MB'", false],
  ])('%s, and the next one begins as a fresh one does', async (_, sql, kept) => {
    const mine = await newJob()
    const { pid, result: fresh } = await visit(mine, async (client) => {
      const seen = await look(client)
      await client.query(sql).catch(() => {})
      return seen
    })
    const next = await visit(mine, look)
    expect(next.pid === pid).toBe(kept)
    if (sql.includes('alter role')) expect(next.result).toMatchObject({ memory: '9MB' })
    else expect(next.result).toEqual(fresh)
  })
})

test('random numbers are not those that setseed() asked for', async () => {
  const mine = await newJob()
  const random = async (client: pg.Client) => (await client.query('select random() as r')).rows[0].r
  const first = await visit(mine, async (client) => {
    await client.query('select setseed(0.5)')
    const expected = await random(client)
    await client.query('select setseed(0.5)')
    return expected
  })
  const second = await visit(mine, random)
  expect(second.pid).toBe(first.pid)
  expect(second.result).not.toBe(first.result)
})

test('the values that a client is told at its beginning are those of a fresh connection', async () => {
  const mine = await newJob()
  const told = async (sql: string) => {
    using client = await rawSession(stage, { token: mine })
    const pid = Number(
      /(\d+)/.exec(
        (await client.ask(query('select pg_backend_pid()'))).find((line) => line.startsWith('D')) ?? '',
      )?.[1],
    )
    await client.ask(query(sql))
    client.send(terminate)
    await client.rest()
    await settled(pid)
    return { pid, parameters: [...client.parameters], greeting: client.greeting }
  }
  const first = await told(
    "set timezone = 'Asia/Tokyo'; set datestyle = 'German'; set client_encoding = 'LATIN1'; set role none",
  )
  expect(await told('select 1')).toEqual(first)
})

test('what was executed and not synchronised is rolled back, as PostgreSQL does at Terminate', async () => {
  const mine = await newJob()
  await visit(mine, (client) => client.query('create table unsynced (a int)'))
  using client = await rawSession(stage, { token: mine })
  client.send(parse('', 'insert into unsynced values (1)'), bind('', ''), execute(''), flush)
  expect((await client.until('C')).at(-1)).toContain('INSERT')
  client.send(terminate)
  await client.rest()
  const { result } = await visit(mine, async (next) => {
    const { rowCount } = await next.query('select * from unsynced')
    await next.query('drop table unsynced')
    return rowCount
  })
  expect(result).toBe(0)
})

test('what comes behind Terminate, and a COPY that Terminate breaks off, is nothing', async () => {
  const mine = await newJob()
  await visit(mine, (client) => client.query('create table copied (a text)'))
  using behind = await rawSession(stage, { token: mine })
  behind.send(terminate, query('create table behind (a int)'))
  await behind.rest()
  using copying = await rawSession(stage, { token: mine })
  copying.send(query('copy copied from stdin'))
  await copying.until('G')
  copying.send(copyData('half\n'), terminate)
  await copying.rest()
  const { result } = await visit(mine, async (next) => {
    const { rows } = await next.query(
      "select to_regclass('behind') as behind, (select count(*)::int from copied) as copied",
    )
    await next.query('drop table copied')
    return rows[0]
  })
  expect(result).toEqual({ behind: null, copied: 0 })
})

test('a statement that Terminate follows at once runs to its end, and its backend is not kept', async () => {
  const mine = await newJob()
  using client = await rawSession(stage, { token: mine })
  const answer = (await client.ask(query('select pg_backend_pid()'))).find((line) => line.startsWith('D'))
  client.send(query('create table late (a int)'), terminate)
  await client.rest()
  expect(await settled(Number(answer?.slice(2)))).toBe(false)
  const { result } = await visit(mine, (next) => next.query('drop table late'))
  expect(result.command).toBe('DROP')
})

test('other settings at the start, another job, and another database get another backend', async () => {
  const mine = await newJob()
  const nothing = async () => {}
  const { pid } = await visit(mine, nothing)
  const others = [
    await visit(mine, nothing, { options: '-c timezone=Asia/Tokyo' }),
    await visit(mine, nothing, { options: '-c work_mem=9MB' }),
    await visit(mine, nothing, { application_name: 'flyway' }),
    await visit(mine, nothing, { database: 'warehouse' }),
    await visit(await newJob(), nothing),
  ]
  expect(others.map((other) => other.pid)).not.toContain(pid)
  expect(await visit(mine, nothing, { application_name: 'flyway' })).toMatchObject({ pid: others[2]?.pid })
})

test('two sessions at a time never have one backend, and no more than `keep` stay', async () => {
  const mine = await newJob()
  const together = async () => {
    const clients = await Promise.all(
      [1, 2, 3, 4].map(async () => {
        const client = new pg.Client(stage.client({ token: mine }))
        await client.connect()
        return client
      }),
    )
    const pids = await Promise.all(clients.map(pidOf))
    await Promise.all(clients.map((client) => client.end()))
    const kept = await Promise.all(pids.map((pid) => settled(pid)))
    return { pids, kept: pids.filter((_, index) => kept[index]) }
  }
  const first = await together()
  expect(new Set(first.pids).size).toBe(4)
  expect(first.kept).toHaveLength(2)
  const second = await together()
  expect(new Set(second.pids).size).toBe(4)
  expect(first.kept.every((pid) => second.pids.includes(pid))).toBe(true)
})

test("a session's cancel key ends with it, and one that was cancelled leaves no backend to the next", async () => {
  const mine = await newJob()
  const begin = async () => {
    const client = await rawSession(stage, { token: mine })
    const answer = (await client.ask(query('select pg_backend_pid()'))).find((line) => line.startsWith('D'))
    const pid = Number(answer?.slice(2))
    const end = async () => {
      client.send(terminate)
      await client.rest()
      client[Symbol.dispose]()
      return settled(pid)
    }
    return { client, pid, end }
  }
  const cancel = async ({ client: { key } }: Awaited<ReturnType<typeof begin>>) => {
    const socket = await dial(stage)
    const closed = new Promise((resolve) => socket.once('close', resolve))
    socket.resume().end(cancelRequest(key.processId, key.secret))
    await closed
  }
  const first = await begin()
  expect(await first.end()).toBe(true)
  const second = await begin()
  expect(second.pid).toBe(first.pid)
  const slept = second.client.ask(query('select pg_sleep(0.3)'))
  await cancel(first)
  expect((await slept).join()).not.toContain('57014')
  const cancelled = second.client.ask(query('select pg_sleep(60)'))
  const sleeps = `select from pg_stat_activity where pid = ${second.pid} and wait_event = 'PgSleep'`
  await eventually(async () => (await stage.admin(sleeps)).length === 1)
  await cancel(second)
  expect((await cancelled).join()).toContain('57014')
  expect(await second.end()).toBe(false)
})

test('a backend that ends, a role that may not log in, and a reload of PostgreSQL cost a connection and no session', async () => {
  const mine = await newJob()
  const login = async (client: pg.Client) =>
    (await client.query('select session_user as login')).rows[0].login as string
  const first = await visit(mine, login)
  await stage.admin(`select pg_terminate_backend(${first.pid}, 5000)`)
  const second = await visit(mine, login)
  expect(second.pid).not.toBe(first.pid)
  await stage.admin('select pg_reload_conf()')
  const loaded = await stage.admin<{ at: string }>('select pg_conf_load_time()::text as at')
  expect(loaded).toHaveLength(1)
  await stage.admin(`alter role ${first.result} nologin`)
  await expect(visit(mine, login)).rejects.toThrow()
  expect((await visit(mine, login)).pid).not.toBe(second.pid)
})

describe('what changes in the catalog while a connection is kept', () => {
  const login = async (client: pg.Client) =>
    (await client.query("select session_user as login, current_setting('work_mem') as memory")).rows[0]

  test('counts for the session that would get it', async () => {
    const mine = await newJob()
    const first = await visit(mine, login)
    await stage.admin(`alter role ${first.result.login} set work_mem = '9MB'`)
    const second = await visit(mine, login)
    expect(second.pid).not.toBe(first.pid)
    expect(second.result).toEqual({ login: first.result.login, memory: '9MB' })
  })

  test('counts from its commit on, whatever was committed while it was open', async () => {
    const mine = await newJob()
    const first = await visit(mine, login)
    const operator = new pg.Client(stage.server.superuserUrl)
    await operator.connect()
    await operator.query(`begin; alter role ${first.result.login} set work_mem = '9MB'`)
    // Later transactions end before it: the newest number says nothing about this one.
    await stage.admin('select pg_current_xact_id()')
    const second = await visit(mine, login)
    expect(second).toEqual(first)
    await operator.query('commit')
    await operator.end()
    expect((await visit(mine, login)).result.memory).toBe('9MB')
  })

  test('and costs nothing where the connection stands as before', async () => {
    const mine = await newJob()
    const { pid } = await visit(mine, (client) => client.query('create table other (a int)'))
    await stage.admin('select pg_current_xact_id()')
    expect((await visit(mine, (client) => client.query('drop table other'))).pid).toBe(pid)
  })
})

test('hundreds of errors leave nothing', async () => {
  const mine = await newJob()
  const { pid, result: fresh } = await visit(mine, look)
  const failing = await visit(mine, async (client) => {
    for (let count = 0; count < 200; count++) {
      const sql = count % 2 === 0 ? 'begin; select 1/0' : 'select * from no_such_table'
      await client.query(count % 3 === 0 ? { text: 'select $1::int / 0', values: [1] } : sql).catch(() => {})
    }
    await client.query('rollback')
  })
  expect(failing.pid).toBe(pid)
  expect(await visit(mine, look)).toEqual({ pid, result: fresh })
})

test('a library that a session loaded, with settings of its own, is not there for the next', async () => {
  const mine = await newJob()
  await stage.admin('create extension pg_trgm', 'shop')
  try {
    const trgm = async (client: pg.Client) =>
      (await client.query("select name from pg_settings where name like 'pg_trgm.%'")).rows
    const { pid, result } = await visit(mine, async (client) => {
      const seen = await trgm(client)
      await client.query("select similarity('a', 'b')")
      return seen
    })
    expect(result).toEqual([])
    const next = await visit(mine, trgm)
    expect(next.pid).not.toBe(pid)
    expect(next.result).toEqual([])
  } finally {
    await stage.admin('drop extension pg_trgm', 'shop')
  }
})

test('where the database holds code that keeps something for itself, no connection is kept', async () => {
  const mine = await newJob()
  const nothing = async () => {}
  const { pid } = await visit(mine, nothing)
  await stage.admin('create extension dblink', 'shop')
  try {
    const second = await visit(mine, nothing)
    expect((await visit(mine, nothing)).pid).not.toBe(second.pid)
  } finally {
    await stage.admin('drop extension dblink', 'shop')
  }
  await gone(pid)
})

test('a login trigger runs for each session', async () => {
  const mine = await newJob()
  await visit(mine, async () => {})
  await stage.admin(
    `create table logins (who text); grant all on logins to public;
     create function note_login() returns event_trigger language plpgsql as 'begin insert into public.logins values (session_user); end';
     create event trigger note_login on login execute function note_login()`,
    'shop',
  )
  try {
    const before = (await stage.admin('select from logins', 'shop')).length
    for (const _ of [1, 2, 3]) await visit(mine, async () => {})
    const rows = await stage.admin<{ who: string }>('select who from logins', 'shop')
    expect(rows.filter(({ who }) => who.startsWith('pgu_')).length).toBe(3)
    expect(before).toBeGreaterThanOrEqual(0)
  } finally {
    await stage.admin('drop event trigger note_login; drop function note_login(); drop table logins', 'shop')
  }
})

test('a reload of the policy ends warm connections', async () => {
  const mine = await newJob()
  const { pid } = await visit(mine, async () => {})
  expect(await stage.reload({ config: withWarm() })).toBe(true)
  await gone(pid)
  expect((await visit(mine, async () => {})).pid).not.toBe(pid)
})

test('it goes when its life ends, when its role does, and when pgusher drains', async () => {
  expect(await stage.reload({ config: withWarm('1m', { life: '100ms' }) })).toBe(true)
  const short = await visit(await newJob(), async () => {})
  await gone(short.pid)
  expect(await stage.reload({ config: withWarm('300ms') })).toBe(true)
  const login = async (client: pg.Client) =>
    (await client.query('select session_user as login')).rows[0].login as string
  const { pid, result } = await visit(await newJob(), login)
  await gone(pid)
  await eventually(async () => !(await stage.mintedRoles()).includes(result))
  const failures = await stage.events('credential.revoke_failed')
  expect(failures.map(({ pgusher }) => (pgusher['credential'] as { login?: string }).login)).not.toContain(result)
})

const tls = await (await createCa()).issue({ cn: 'pg', ips: ['127.0.0.1'] })

describe('over TLS to PostgreSQL', () => {
  const overTls = (config: ConfigInput): ConfigInput => {
    const warm = withWarm('1m')(config)
    const entries = Object.entries(warm.databases).map(([name, entry]) => [
      name,
      { ...entry, tls: { mode: 'require' } },
    ])
    return { ...warm, databases: Object.fromEntries(entries) }
  }
  onEachPostgres(
    (at) => {
      test('a backend is used again, as new, also behind a large answer', async () => {
        const mine = await at().token()
        const look = async (client: pg.Client) =>
          (
            await client.query(`select current_setting('work_mem') as memory,
          current_user as role, current_setting('my.thing', true) as thing`)
          ).rows[0]
        const first = await visit(mine, look, {}, at())
        expect(first.result).toMatchObject({ role: 'shop_migrator' })
        const large = async (client: pg.Client) => {
          const seen = await look(client)
          await client.query(
            "set work_mem = '9MB'; set role none; select repeat('x', 1000000) from generate_series(1, 5)",
          )
          return seen
        }
        expect(await visit(mine, large, {}, at())).toEqual(first)
        expect(await visit(mine, look, {}, at())).toEqual(first)
      })
    },
    { config: overTls },
    { tls },
  )
})
