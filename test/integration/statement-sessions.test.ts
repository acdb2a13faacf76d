/** What `allow.statements` makes of a session: read-only transactions, warm connections, reloads, clients that do not wait. */
import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type ConfigInput, RULES, type RuleInput, type Stage, startStage } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'
import { copyData, query, rawSession, run, sync } from '../support/raw-client.ts'
import { type Statement, statementsOf } from '../support/statement-events.ts'

type Classes = NonNullable<NonNullable<RuleInput['allow']>['statements']>

const rule = (name: string, shape: number, statements: Classes, more: Partial<RuleInput> = {}): RuleInput => ({
  ...RULES[shape]!,
  name,
  allow: { database: ['shop-prod', 'warm'], role: 'shop_migrator', max_connections: 50, statements },
  ...more,
})
/** GitHub's jobs read, GitLab's migrate, Buildkite's read and are not told what they may. */
const rules = (github: Classes = ['READ']): RuleInput[] => [
  rule('read-only', 0, github),
  rule('migrate', 1, ['READ', 'WRITE', 'DDL']),
  rule('kept-back', 2, ['READ'], { explain: false }),
]
const config = (base: ConfigInput): ConfigInput => {
  const entry = base.databases['shop-prod']!
  const warm = { ...entry, credentials: { ...entry.credentials, linger: '1m' }, warm: { life: '1m' } }
  return { ...base, databases: { ...base.databases, warm } }
}

let stage: Stage
beforeAll(async () => {
  stage = await startStage({ rules: rules(), config })
  await stage.admin(
    `set role shop_migrator;
     create table public.numbers (n int);
     create function public.add(int) returns int language sql as 'insert into public.numbers values ($1) returning n';
     create view public.adding as select public.add(1) as n;
     create function public.writable() returns text language sql
       as $$ select set_config('default_transaction_read_only', 'off', false) $$;
     create view public.freeing as select public.writable() as value;`,
    'shop',
  )
})
afterAll(() => stage?.close())

/** Errors without the denial's id, rows and ends; not how they were told. */
const told = (messages: readonly string[]): string[] =>
  messages.filter((text) => /^[EDCZ]/.test(text)).map((text) => text.replace(/ \[D-\w{6}\]$/, ''))

const outcomes = (statements: readonly Statement[]): string[] =>
  statements.map(({ sql, outcome, error }) => `${sql}: ${error ?? outcome}`)

describe('a session of a rule that writes nothing', () => {
  test('is read-only for PostgreSQL too, whatever the client asks for, and what hides from the rule is refused there', async () => {
    const parameters = { default_transaction_read_only: 'off', options: '-c transaction_read_only=off' }
    using client = await rawSession(stage, { token: await stage.token() }, { parameters })
    expect(client.parameters.get('default_transaction_read_only')).toBe('on')
    expect(told(await client.ask(query('show transaction_read_only')))).toEqual(['D on', 'C SHOW', 'Z I'])
    expect(told(await client.ask(query('select * from adding')))).toEqual([
      ...['E 25006 cannot execute INSERT in a read-only transaction', 'Z I'],
    ])
  })

  test.each([
    'begin read write',
    'set transaction read write',
    'set session characteristics as transaction read write',
    'set default_transaction_read_only = off',
    'SET LOCAL "transaction_READ_only" TO 0',
    "select set_config('transaction_read_only', 'off', true)",
    "select 1; select set_config('default_transaction_read_only', 'false', false)",
  ])('stays so: %s', async (sql) => {
    using client = await rawSession(stage, { token: await stage.token() })
    expect(told(await client.ask(query(sql)))).toEqual([
      'E 42501 statement refused: it switches read-only transactions off, and rule "read-only" is read-only',
      'Z I',
    ])
    expect(told(await client.ask(query('begin')))).toEqual(['C BEGIN', 'Z T'])
    expect(told(await client.ask(query('show transaction_read_only')))[0]).toBe('D on')
  })

  test('ends where a function switches that off', async () => {
    using client = await rawSession(stage, { token: await stage.token() })
    client.send(query('select * from freeing'))
    expect(told(await client.rest())).toEqual([
      ...['D off', 'C SELECT 1', 'Z I'],
      `E 57P01 session ended: default_transaction_read_only was switched off out of pgusher's sight, and rule "read-only" is read-only`,
    ])
    await statementsOf(stage, client.port)
  })
})

test('a client that sends a new statement and closes at once gets its answer, and what is behind it runs', async () => {
  using client = await rawSession(stage, { token: await stage.token('gitlab') })
  client.send(
    query('insert into numbers values (11)'),
    query('drop function nothing()'),
    query('select n from numbers'),
  )
  client.finish()
  expect(told(await client.rest())).toEqual([
    ...['C INSERT 0 1', 'Z I', 'E 42883 function nothing() does not exist', 'Z I', 'D 11', 'C SELECT 1', 'Z I'],
  ])
  await stage.admin('truncate public.numbers', 'shop')
})

test('a statement that is refused in the middle of COPY ends the session, as any would', async () => {
  using client = await rawSession(stage, { token: await stage.token('gitlab') })
  client.send(query('copy numbers from stdin'))
  await client.until('G')
  client.send(copyData('1\n'), query('drop role nobody'))
  expect((await client.rest()).map((text) => text.slice(0, 7))).toEqual(['E 08P01', 'E 08P01'])
  const statements = await statementsOf(stage, client.port)
  expect(outcomes(statements)).toEqual(['copy numbers from stdin: failure', 'drop role nobody: denied'])
})

test('a refused statement whose answer never came, because the session ended, was denied and not lost', async () => {
  // Decided before, so that none of them waits for that when the session ends.
  using before = await rawSession(stage, { token: await stage.token('gitlab') })
  await before.ask(query('select pg_sleep(0)'))
  await before.ask(run('drop role nobody'), sync)
  await before.ask(run('select 1'), sync)
  before.reset()
  using client = await rawSession(stage, { token: await stage.token('gitlab') })
  client.send(query('select pg_sleep(9)'), run('drop role nobody'), run('select 1'))
  await eventually(async () => {
    const ended = `select pg_terminate_backend(pid) from pg_stat_activity where query = 'select pg_sleep(9)'`
    return (await stage.admin(ended)).length === 1
  })
  await client.rest()
  expect(outcomes(await statementsOf(stage, client.port))).toEqual([
    ...['select pg_sleep(9): failure', 'drop role nobody: denied', 'select 1: not_executed'],
  ])
})

test('thousands of new statements in one pipeline, every other refused, are answered in order', async () => {
  const count = 2_000
  using client = await rawSession(stage, { token: await stage.token('gitlab') })
  const sent = Array.from({ length: count }, (_, n) =>
    n % 2 === 0 ? `select c${n} from (select ${n}) t(c${n})` : `do 'd${n}'`,
  )
  const written = client.sendAll(sent.map((sql, n) => (n % 4 < 2 ? query(sql) : Buffer.concat([run(sql), sync]))))
  const seen = told(await client.until('Z', count))
  await written
  const answers = seen.filter((text) => /^[DE]/.test(text))
  expect(answers).toEqual(
    sent.map((_, n) =>
      n % 2 === 0
        ? `D ${n}`
        : 'E 42501 statement refused: DO needs FUNCTION, and rule "migrate" allows READ, WRITE and DDL',
    ),
  )
  client.socket.destroy()
  const statements = await statementsOf(stage, client.port)
  expect(statements.map(({ sql, outcome }) => [sql, outcome])).toEqual(
    sent.map((sql, n) => [sql, n % 2 === 0 ? 'success' : 'denied']),
  )
})

test('a warm connection goes on after refused statements, under the same rule', async () => {
  const job = { token: await stage.token(), database: 'warm' }
  const visit = () =>
    stage.session(job, async (client) => {
      await expect(client.query('create table made ()')).rejects.toMatchObject({ code: '25006' })
      const { rows } = await client.query(
        "select pg_backend_pid() as pid, current_setting('transaction_read_only') as ro",
      )
      return rows[0] as { pid: number; ro: string }
    })
  const first = await visit()
  await eventually(async () => {
    const kept = `select from pg_stat_activity where pid = ${first.pid} and state = 'idle' and query like '/* pgusher: kept%'`
    return (await stage.admin(kept)).length === 1
  })
  expect(await visit()).toEqual(first)
  expect(first.ro).toBe('on')
})

test('a rule that does not explain itself says what a statement is, and not what it allows', async () => {
  using client = await rawSession(stage, { token: await stage.token('buildkite') })
  expect(told(await client.ask(query('delete from numbers')))).toEqual([
    'E 25006 statement refused: DELETE needs WRITE, and rule "kept-back" does not allow that',
    'Z I',
  ])
})

test('explain says which classes a rule allows, and why finds a refused statement by its id', async () => {
  const cli = async (...args: string[]): Promise<string> => {
    const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
    return (await promisify(execFile)(process.execPath, [main, ...args], { timeout: 60_000 })).stdout
  }
  const token = await stage.token('gitlab')
  const failure = await stage.session({ token }, (client) =>
    client.query("do 'x'").catch((error: Error) => error.message),
  )
  const [, id = ''] = /\[(D-\w{6})\]$/.exec(String(failure)) ?? []
  await stage.waitForEvent(({ pgusher }) => (pgusher['decision'] as { id?: string } | undefined)?.id === id)
  const tokenFile = join(stage.directory, 'token')
  await writeFile(tokenFile, token)
  const asked = ['--token-file', tokenFile, '--database', 'shop-prod', '--user', 'ci']
  const [why, explained] = await Promise.all([
    cli('why', id, '--audit', stage.auditFile),
    cli('explain', '--config', stage.configFile, ...asked),
  ])
  expect(explained).toMatch(/^statements +READ, WRITE, DDL, and what every session needs$/m)
  expect(why).toMatch(/^stage +session: a statement in a session/m)
  expect(why).toMatch(/^statement +do 'x'$/m)
  expect(why).toContain(`statement refused: DO needs FUNCTION, and rule "migrate" allows READ, WRITE and DDL [${id}]`)
})

test('invariant 42: a reload that takes a class away ends the session, one that adds a class does not', async () => {
  const session = async () => rawSession(stage, { token: await stage.token() })
  using wide = await session()
  expect(await stage.reload({ rules: rules(['READ', 'WRITE']), config })).toBe(true)
  // It goes on by what it began with.
  expect(told(await wide.ask(query('delete from numbers')))[0]).toMatch(/^E 25006 statement refused/)
  using wider = await session()
  expect(told(await wider.ask(query('delete from numbers')))).toEqual(['C DELETE 0', 'Z I'])
  expect(await stage.reload({ rules: rules(), config })).toBe(true)
  expect(told(await wider.rest())).toEqual(['E 57P01 session ended: the policy was changed and no longer allows it'])
  expect(told(await wide.ask(query('select 1')))).toEqual(['D 1', 'C SELECT 1', 'Z I'])
})
