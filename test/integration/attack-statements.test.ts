/** Ways to run SQL past the record: each runs on real PostgreSQL, and what ran must be in the audit, under its own text. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { FrontendMessage as F } from '../../src/wire/constants.ts'
import { cstring, frame, int16 } from '../../src/wire/writer.ts'
import { type Stage, startStage } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'
import {
  bind,
  close,
  copyData,
  copyDone,
  describe,
  execute,
  flush,
  parse,
  query,
  type RawClient,
  rawSession,
  run,
  sync,
  terminate,
} from '../support/raw-client.ts'
import { type Statement, statementsOf } from '../support/statement-events.ts'

let stage: Stage
beforeAll(async () => {
  stage = await startStage()
  await stage.admin(
    `create table public.ran (what text);
     alter table public.ran owner to shop_migrator;
     create function public.note(what text) returns int language sql volatile as 'insert into public.ran values (what) returning 1';
     create function public.sly(what text) returns int language plpgsql immutable as 'begin return public.note(what); end';
     create table public.numbers (n int);
     alter table public.numbers owner to shop_migrator;
     create function public.refuse() returns trigger language plpgsql as 'begin raise exception $$no$$; end';
     create table public.guarded (n int);
     alter table public.guarded owner to shop_migrator;
     create trigger guard before insert on public.guarded for each statement execute function public.refuse();
     create table public.late (n int, constraint once unique (n) deferrable initially deferred);
     alter table public.late owner to shop_migrator;`,
    'shop',
  )
})
afterAll(() => stage.close())

/** Texts on record of a session that has ended, those too that were prepared or bound and never executed by the protocol. */
async function textsOf(port: number): Promise<unknown[]> {
  const events = await stage.events('statement')
  return events
    .filter((event) => (event['client'] as { port: number }).port === port)
    .map((event) => (event['db'] as { query?: { text: string } }).query?.text)
}

/** The statements of one session, which does as it likes and then ends. */
async function record(work: (client: RawClient) => Promise<void> | void): Promise<Statement[]> {
  return (await recordAll(work)).statements
}

async function recordAll(work: (client: RawClient) => Promise<void> | void) {
  using client = await rawSession(stage, { token: await stage.token() })
  await work(client)
  client.send(terminate)
  await client.rest()
  const statements = await statementsOf(stage, client.port)
  return { statements, texts: await textsOf(client.port) }
}

const told = (statements: readonly Statement[]) =>
  statements.map(({ sql, outcome, code, error }) => [sql, outcome, error ?? code ?? ''])
/** Process id of the session's backend. */
async function backendOf(client: RawClient): Promise<string> {
  return (await client.ask(query('select pg_backend_pid()')))[1]?.slice(2) ?? ''
}
const isActive = async (pid: string, sql: string): Promise<boolean> => {
  const where = `pid = ${pid} and state = 'active' and query like '%${sql}%'`
  return (await stage.admin(`select 1 from pg_stat_activity where ${where}`)).length > 0
}
const ran = async (what: string): Promise<boolean> =>
  (await stage.admin<{ n: string }>(`select count(*) as n from public.ran where what = '${what}'`, 'shop'))[0]?.n !==
  '0'

test('invariant 22: a Query that is refused for its end is not completed by what pgusher sends last', async () => {
  using client = await rawSession(stage, { token: await stage.token() })
  const whole = query(`select public.note('completed') --....`)
  client.send(whole.subarray(0, -2))
  // The first part is upstream, in a chunk of its own, once another session has been served.
  await stage.session({ token: await stage.token() }, (other) => other.query('select 1'))
  client.send(Buffer.from('xx'))
  expect((await client.rest()).at(-1)).toMatch(/^E 08P01/)
  await statementsOf(stage, client.port)
  expect(await ran('completed')).toBe(false)
})

test('nor is one whose end comes together with something that is refused', async () => {
  using client = await rawSession(stage, { token: await stage.token() })
  const whole = query(`select public.note('together') --..`)
  client.send(whole.subarray(0, -2))
  await stage.session({ token: await stage.token() }, (other) => other.query('select 1'))
  client.send(whole.subarray(-2), query('a\u{1}b').fill(0, 5))
  expect((await client.rest()).at(-1)).toMatch(/^E 08P01/)
  const [statement, ...others] = await statementsOf(stage, client.port)
  expect([statement?.sql, others]).toEqual([`select public.note('together') --..`, []])
})

test('a message with a body that it must not have is refused', async () => {
  for (const type of [F.Sync, F.Flush, F.CopyDone]) {
    using client = await rawSession(stage, { token: await stage.token() })
    client.send(frame(type, int16(0)), query('select 1'), sync)
    expect((await client.rest()).at(-1)).toMatch(/^E 08P01 protocol violation/)
    await statementsOf(stage, client.port)
  }
})

test('a name that PostgreSQL cuts is followed as PostgreSQL cuts it', async () => {
  const name = 'x'.repeat(63)
  const statements = await record(async (client) => {
    await client.ask(parse(`${name}a`, 'select 1'), bind('', `${name}a`), execute(''), sync)
    await client.ask(close('S', `${name}b`), parse(`${name}b`, `select public.note('cut')`), sync)
    expect(await client.ask(bind('', `${name}a`), execute(''), sync)).toContain('C SELECT 1')
  })
  expect(await ran('cut')).toBe(true)
  expect(told(statements)).toEqual([
    ['select 1', 'success', ''],
    [`select public.note('cut')`, 'success', ''],
  ])
})

test('names that differ in bytes which are no UTF-8 are two', async () => {
  const [one, two] = [Buffer.from([0xe9]), Buffer.from([0xe8])]
  const parseAs = (name: Buffer, sql: string) => frame(F.Parse, name, Buffer.from([0]), cstring(sql), int16(0))
  const bindAs = (name: Buffer) => frame(F.Bind, cstring(''), name, Buffer.from([0]), int16(0), int16(0), int16(0))
  using client = await rawSession(stage, { token: await stage.token() }, { parameters: { client_encoding: 'LATIN1' } })
  await client.ask(parseAs(one, 'select 1'), parseAs(two, 'select 2'), sync)
  await client.ask(bindAs(one), execute(''), bindAs(two), execute(''), sync)
  client.send(terminate)
  await client.rest()
  expect(told(await statementsOf(stage, client.port))).toEqual([
    ['select 1', 'success', ''],
    ['select 2', 'success', ''],
  ])
})

test('a statement that was prepared by the protocol and executed by SQL is on record with its text', async () => {
  const { texts } = await recordAll(async (client) => {
    await client.ask(parse('p', `select public.note('by sql')`), sync)
    await client.ask(query('execute p'))
    await client.ask(parse('q', `select public.note('by code')`), sync)
    await client.ask(query(`do $$ begin execute 'execute q'; end $$`))
    await client.ask(query('select 1'))
  })
  expect(await ran('by sql')).toBe(true)
  expect(await ran('by code')).toBe(true)
  expect(texts).toEqual([
    `select public.note('by sql')`,
    'execute p',
    `do $$ begin execute 'execute q'; end $$`,
    'select 1',
    `select public.note('by code')`,
  ])
})

test('a portal that was bound and fetched by SQL is on record with its text', async () => {
  const { texts } = await recordAll(async (client) => {
    await client.ask(query('begin'))
    await client.ask(parse('', `select public.note('fetched')`), bind('c', ''), sync)
    await client.ask(query('fetch all from c'))
    await client.ask(query('commit'))
  })
  expect(await ran('fetched')).toBe(true)
  expect(texts).toContain(`select public.note('fetched')`)
})

test('code that runs while a Bind is planned is on record without an Execute', async () => {
  const { texts } = await recordAll(async (client) => {
    await client.ask(parse('', `select public.sly('planned')`), bind('', ''), sync)
  })
  expect(await ran('planned')).toBe(true)
  expect(texts).toEqual([`select public.sly('planned')`])
})

test('a commit that fails at Sync is the failure of what it would have committed', async () => {
  const statements = await record(async (client) => {
    const answers = await client.ask(run('insert into public.late values (1), (1)'), sync)
    expect(answers.at(-2)).toMatch(/^E 23505/)
  })
  expect(told(statements)).toEqual([['insert into public.late values (1), (1)', 'failure', '23505']])
})

test('a Sync within the second COPY of a Query shifts nothing', async () => {
  const statements = await record(async (client) => {
    client.send(query('copy public.numbers from stdin; copy public.numbers from stdin'))
    await client.until('G')
    client.send(copyDone)
    await client.until('G')
    client.send(sync, copyDone)
    await client.until('Z')
    await client.ask(query('select 1'))
    await client.ask(query('select 2'))
  })
  expect(told(statements).slice(-2)).toEqual([
    ['select 1', 'success', ''],
    ['select 2', 'success', ''],
  ])
})

test('a Sync behind data that COPY refuses shifts nothing', async () => {
  const statements = await record(async (client) => {
    client.send(query('copy public.numbers from stdin'))
    await client.until('G')
    client.send(copyData('no number\n'), sync)
    await client.until('Z', 2)
    await client.ask(query('select 1'))
    client.send(query('select 2'), query('select 3'))
    await client.until('Z', 2)
  })
  expect(told(statements)).toEqual([
    ['copy public.numbers from stdin', 'failure', '22P02'],
    ['select 1', 'success', ''],
    ['select 2', 'success', ''],
    ['select 3', 'success', ''],
  ])
})

test('a Query behind COPY data and Sync is recorded as it ran', async () => {
  const statements = await record(async (client) => {
    client.send(query('copy public.numbers from stdin'))
    await client.until('G')
    client.send(copyData('no number\n'), sync, query(`select public.note('behind')`), query('select 2'), sync)
    await client.until('Z', 5)
    await client.ask(query('select 3'))
  })
  expect(await ran('behind')).toBe(true)
  expect(told(statements)).toEqual([
    ['copy public.numbers from stdin', 'failure', '22P02'],
    [`select public.note('behind')`, 'success', ''],
    ['select 2', 'success', ''],
    ['select 3', 'success', ''],
  ])
})

test('where a Sync may have been a part of COPY or not, and what runs depends on it, the session ends', async () => {
  using client = await rawSession(stage, { token: await stage.token() })
  client.send(run('copy public.numbers from stdin'), flush)
  await client.until('G')
  client.send(copyData('no number\n'), sync, copyDone, run(`select public.note('either')`), sync)
  expect((await client.rest()).at(-1)).toMatch(/^E 08P01 protocol violation/)
  expect(told(await statementsOf(stage, client.port))).toEqual([
    ['copy public.numbers from stdin', 'failure', '22P02'],
    [`select public.note('either')`, 'unknown', 'protocol'],
  ])
})

test('COPY by the extended protocol that fails before it reads anything', async () => {
  const statements = await record(async (client) => {
    client.send(run('copy public.guarded from stdin'), sync)
    await client.until('Z')
    await client.ask(query('select 1'))
    await client.ask(run('select 2'), sync)
  })
  expect(told(statements)).toEqual([
    ['copy public.guarded from stdin', 'failure', 'P0001'],
    ['select 1', 'success', ''],
    ['select 2', 'success', ''],
  ])
})

test('what runs when the client goes away is on record, in the middle of a Query too', async () => {
  using client = await rawSession(stage, { token: await stage.token() })
  const pid = await backendOf(client)
  client.send(query(`select 1; select pg_sleep(60), 'second'`))
  await eventually(() => isActive(pid, 'second'))
  client.reset()
  const statements = (await statementsOf(stage, client.port)).slice(1)
  expect(statements.map(({ sql }) => sql?.trim())).toEqual(['select 1', `select pg_sleep(60), 'second'`])
  expect(statements[1]?.outcome).not.toBe('success')
})

test('what has no answer yet is recorded under its own text, not under what had its names before', async () => {
  using client = await rawSession(stage, { token: await stage.token() })
  const pid = await backendOf(client)
  await client.ask(run('select 1'), sync)
  client.send(query('select pg_sleep(60)'), run(`select public.note('unanswered')`), sync)
  await eventually(() => isActive(pid, 'pg_sleep'))
  client.reset()
  expect((await statementsOf(stage, client.port)).slice(1).map(({ sql }) => sql)).toEqual([
    'select 1',
    'select pg_sleep(60)',
    `select public.note('unanswered')`,
  ])
})

test('what a client pipelined does not run after it has gone', async () => {
  using client = await rawSession(stage, { token: await stage.token() })
  const pid = await backendOf(client)
  client.send(...Array.from({ length: 20 }, () => query('select pg_sleep(30)')))
  await eventually(() => isActive(pid, 'pg_sleep'))
  client.reset()
  const gone = async () => (await stage.admin(`select 1 from pg_stat_activity where pid = ${pid}`)).length === 0
  await eventually(gone)
})

test('as much as a session may prepare, a text is never forgotten before it was on record', async () => {
  const padding = `/* ${'x'.repeat(65_000)} */`
  const { texts } = await recordAll(async (client) => {
    await client.ask(parse('evil', `select public.note('forgotten')`), sync)
    for (let i = 0; i < 150; i++) await client.ask(parse(`p${i}`, `select ${i} ${padding}`), sync)
    await client.ask(parse('fresh', `select public.note('fresh')`), bind('', 'fresh'), execute(''), sync)
    await client.ask(bind('', 'evil'), execute(''), sync)
  })
  expect(await ran('forgotten')).toBe(true)
  expect(texts).toContain(`select public.note('fresh')`)
  expect(texts).toContain(`select public.note('forgotten')`)
})

test('a long name leaves no less room for the text', async () => {
  using client = await rawSession(stage, { token: await stage.token() })
  client.send(parse('x'.repeat(60_000), `select public.note('long') ${' '.repeat(66_000)}`), sync)
  expect((await client.rest()).at(-1)).toMatch(/^E 08P01/)
  await statementsOf(stage, client.port)
})

test('a cursor that was closed by SQL gives its name to nobody', async () => {
  const statements = await record(async (client) => {
    await client.ask(query('begin'))
    await client.ask(query('declare c cursor for select 1'))
    await client.ask(query('close c'))
    await client.ask(query(`do $$ declare c refcursor := 'c'; begin open c for select public.note('opened'); end $$`))
    await client.ask(execute('c'), sync)
    await client.ask(query('commit'))
  })
  expect(await ran('opened')).toBe(true)
  expect(statements.filter(({ sql }) => sql === 'declare c cursor for select 1')).toHaveLength(1)
})

test('what comes behind Terminate is neither sent nor recorded', async () => {
  using client = await rawSession(stage, { token: await stage.token() })
  client.send(query('select 1'), terminate, query('select 2'), Buffer.from('rubbish'))
  await client.rest()
  expect(told(await statementsOf(stage, client.port))).toEqual([['select 1', 'success', '']])
})

test('the label of a bound portal', async () => {
  const statements = await record(async (client) => {
    await client.ask(parse('s', 'select 1'), bind('', 's'), describe('P', ''), flush, execute(''), sync)
  })
  expect(told(statements)).toEqual([['select 1', 'success', '']])
})

test('a portal that its Bind left empty is answered as an empty query, and no text that stood there before is said to have run', async () => {
  const insert = "insert into public.ran values ('stale')"
  const statements = await record(async (client) => {
    await client.ask(query('begin'))
    await client.ask(parse('', insert), bind('', ''), parse('bad', 'select 1/0'), bind('', 'bad'), sync)
    // PostgreSQL has made the portal anew before it planned, and the plan failed.
    expect(await client.ask(execute(''), sync)).toEqual(['I', 'Z E'])
  })
  expect(told(statements).filter(([, outcome]) => outcome === 'success')).toEqual([
    ['begin', 'success', ''],
    ['', 'success', ''],
  ])
  expect(await stage.admin('select * from public.ran', 'shop')).not.toContainEqual({ what: 'stale' })
})

test('an empty query keeps its comment on record', async () => {
  const statements = await record(async (client) => {
    expect(await client.ask(run('/* ping */ ;'), query('-- pong'), sync)).toContain('I')
    await client.until('Z')
  })
  expect(told(statements)).toEqual([
    ['/* ping */ ;', 'success', ''],
    ['-- pong', 'success', ''],
  ])
})
