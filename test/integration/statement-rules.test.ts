/** `allow.statements`: what a job may send is refused by its class, where it stands, and PostgreSQL never sees it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { RULES, type RuleInput, type Stage, startStage } from '../support/pgusher.ts'
import type { DatabaseInput } from '../support/pgusher-config.ts'
import {
  bind,
  describe as describeMessage,
  execute,
  parse,
  query,
  type RawClient,
  type RawOptions,
  rawSession,
  run,
  sync,
  terminate,
} from '../support/raw-client.ts'
import { type Statement, statementsOf } from '../support/statement-events.ts'

const limited = (
  name: string,
  shape: number,
  statements: NonNullable<RuleInput['allow']>['statements'],
): RuleInput => ({
  ...RULES[shape]!,
  name,
  allow: { database: ['shop-prod', 'warm'], role: 'shop_migrator', max_connections: 50, statements },
})

/** GitHub's jobs read, Buildkite's read and write, GitLab's migrate. */
const LIMITED: RuleInput[] = [
  { ...limited('read-only', 0, ['READ']), on_deny: { message: 'Reports read only.', contact: '#db-help' } },
  limited('no-schema', 2, ['READ', 'WRITE']),
  limited('migrate', 1, ['READ', 'WRITE', 'DDL']),
]
const withWarm = (entry: DatabaseInput): DatabaseInput => ({
  ...entry,
  credentials: { ...entry.credentials, linger: '30s' },
  warm: {},
})
type Shape = 'github' | 'buildkite' | 'gitlab'

let stage: Stage
beforeAll(async () => {
  stage = await startStage({
    rules: LIMITED,
    config: (config) => ({
      ...config,
      databases: { ...config.databases, warm: withWarm(config.databases['shop-prod']!) },
    }),
  })
  await stage.admin(
    `set role shop_migrator;
     create table public.numbers (n int);
     create function public.add(int) returns int language sql as 'insert into public.numbers values ($1) returning n';
     create view public.adding as select public.add(1) as n;
     create function public.sjis() returns text language sql as $$ select set_config('client_encoding', 'SJIS', false) $$;
     create view public.recoding as select public.sjis() as was;
     create function public.writable() returns text language sql
       as $$ select set_config('default_transaction_read_only', 'off', false) $$;
     create view public.freeing as select public.writable() as was;`,
    'shop',
  )
})
afterAll(() => stage?.close())

async function during(
  shape: Shape,
  work: (client: RawClient) => Promise<void>,
  options: RawOptions = {},
): Promise<Statement[]> {
  using client = await rawSession(stage, { token: await stage.token(shape) }, options)
  await work(client)
  client.send(terminate)
  expect(await client.rest()).toEqual([])
  return statementsOf(stage, client.port)
}

/** Errors without the denial's id, rows and ends; not how they were told. */
const told = (messages: readonly string[]): string[] =>
  messages.filter((text) => /^[EDCZ]/.test(text)).map((text) => text.replace(/ \[D-\w{6}\]$/, ''))
const rows = async (client: RawClient): Promise<string[]> =>
  (await client.ask(query('select n from numbers order by n'))).filter((text) => text.startsWith('D'))
const outcomes = (statements: readonly Statement[]): string[] =>
  statements.map(({ sql, outcome, error }) => `${sql}: ${error ?? outcome}`)

const INSERT = 'E 25006 statement refused: INSERT needs WRITE, and rule "read-only" allows READ'
const CREATE = 'E 42501 statement refused: CREATE TABLE a needs DDL, and rule "no-schema" allows READ and WRITE'

describe('a refused statement', () => {
  test('is told to the job with the way out, and to the audit with the same id; the session lives on', async () => {
    const failure = await stage.session({ token: await stage.token() }, async (client) => {
      const error = await client.query('insert into numbers values (1)').catch((thrown: unknown) => thrown)
      expect((await client.query('select 1 as one')).rows).toEqual([{ one: 1 }])
      return error
    })
    const event = await stage.waitForEvent('statement.denied')
    const { id, message } = event.pgusher['decision'] as { id: string; message: string }
    expect(failure).toMatchObject({
      severity: 'ERROR',
      code: '25006',
      message: `${INSERT.slice(8)} [${id}]`,
      hint: 'Reports read only. Contact: #db-help.',
    })
    expect(message).toBe(INSERT.slice(8))
    expect(event).toMatchObject({
      pgusher: {
        outcome: 'denied',
        decision: { stage: 'session', code: 'statement_not_allowed' },
        query: { class: 'WRITE', tables: ['numbers'] },
      },
      security_rule: { name: 'read-only' },
      db: { query: { text: 'insert into numbers values (1)' }, response: { status_code: '25006' } },
    })
    await stage.waitForEvent('session.ended')
    expect(await stage.events('statement.denied')).toHaveLength(1)
    const { host, port } = stage.pgusher.httpAddress as { host: string; port: number }
    const metrics = await (await fetch(`http://${host}:${port}/metrics`)).text()
    expect(metrics).toMatch(/^pgusher_denials_total\{code="statement_not_allowed"\} [1-9]/m)
  })

  test('in a transaction block fails it, and not before the statements ahead of it', async () => {
    const statements = await during('buildkite', async (client) => {
      client.send(
        query('begin'),
        query('insert into numbers values (1)'),
        query('create table a ()'),
        query('select 1'),
      )
      expect(told(await client.until('Z', 4))).toEqual([
        ...['C BEGIN', 'Z T', 'C INSERT 0 1', 'Z T', CREATE, 'Z E'],
        'E 25P02 current transaction is aborted, commands ignored until end of transaction block',
        'Z E',
      ])
      expect(told(await client.ask(query('create table a ()')))).toEqual([CREATE, 'Z E'])
      expect(told(await client.ask(query('commit')))).toEqual(['C ROLLBACK', 'Z I'])
      expect(await rows(client)).toEqual([])
    })
    expect(statements.map(({ outcome, tx }) => [outcome, tx])).toEqual([
      ...[
        ['success', 'idle'],
        ['success', 'open'],
        ['denied', 'open'],
      ],
      ...[
        ['failure', 'failed'],
        ['denied', 'failed'],
        ['success', 'failed'],
      ],
      ['success', 'idle'],
    ])
  })

  test('in a text of several: none of them runs, and there is one record', async () => {
    const statements = await during('buildkite', async (client) => {
      expect(told(await client.ask(query('insert into numbers values (1); create table a (); select 1')))).toEqual([
        CREATE,
        'Z I',
      ])
      expect(told(await client.ask(query('select 1; select 2; ; -- a comment\n')))).toEqual([
        ...['D 1', 'C SELECT 1', 'D 2', 'C SELECT 1', 'Z I'],
      ])
      expect(await rows(client)).toEqual([])
    })
    expect(outcomes(statements)).toEqual([
      'insert into numbers values (1);\ncreate table a ();\nselect 1: denied',
      ...['select 1: success', 'select 2: success', 'select n from numbers order by n: success'],
    ])
  })

  test('at its Parse, within a pipeline: what is behind it up to Sync is skipped, what is before it undone', async () => {
    const statements = await during('buildkite', async (client) => {
      client.send(run('insert into numbers values (1)'), parse('p', 'create table a ()'), describeMessage('S', 'p'))
      client.send(bind('', 'p'), execute(''), run('select 2'), sync, run('select 3'), sync)
      expect(told(await client.until('Z', 2))).toEqual(['C INSERT 0 1', CREATE, 'Z I', 'D 3', 'C SELECT 1', 'Z I'])
      expect(told(await client.ask(bind('', 'p'), execute(''), sync))[0]).toMatch(/^E 26000/)
      expect(await rows(client)).toEqual([])
    })
    expect(outcomes(statements).slice(0, 4)).toEqual([
      ...['insert into numbers values (1): success', 'create table a (): denied', 'select 2: not_executed'],
      'select 3: success',
    ])
  })

  test('behind an error of its pipeline is denied all the same, once', async () => {
    const statements = await during('buildkite', async (client) => {
      client.send(
        run('select 1/0'),
        run('create table a ()'),
        parse('', 'drop table numbers'),
        query('create table a ()'),
      )
      client.send(sync)
      expect(told(await client.until('Z'))).toEqual(['E 22012 division by zero', 'Z I'])
    })
    expect(outcomes(statements)).toEqual([
      ...[
        'select 1/0: failure',
        'create table a (): denied',
        'drop table numbers: denied',
        'create table a (): denied',
      ],
    ])
  })
})

describe('invariant 23: what a statement can do counts', () => {
  test.each([
    ['copy (delete from numbers returning n) to stdout', 'DELETE needs WRITE'],
    ['with d as (delete from numbers returning n) select * from d', 'DELETE needs WRITE'],
    ['explain analyze delete from numbers', 'DELETE needs WRITE'],
    ['select * from numbers for update', 'SELECT with FOR UPDATE or FOR SHARE needs WRITE'],
    ['select 1 as a into b union select 2', 'SELECT INTO needs DDL'],
    ['copy numbers from stdin', 'COPY FROM needs WRITE'],
    ['prepare p as delete from numbers', 'DELETE needs WRITE'],
    ['/* select */ Tru/**/ncate numbers', 'pgusher could not read it as SQL'],
    ['/* select */ TRUNCATE\n--\nnumbers', 'TRUNCATE numbers needs WRITE'],
    [`insert into numbers select 1 where 'a\\' = 'a\\'`, 'INSERT needs WRITE'],
  ])('%s', async (sql, why) => {
    await during('github', async (client) => {
      expect(told(await client.ask(query(sql)))[0]).toMatch(`statement refused: ${why}`)
      expect(told(await client.ask(parse('', sql), sync))[0]).toMatch(`statement refused: ${why}`)
      // What is refused has no name by which it could run.
      expect(told(await client.ask(query('execute p')))[0]).toMatch(/^E 26000/)
    })
  })

  test.each([
    ['select public.add(1)', 'E 42501 statement refused: function public.add needs FUNCTION'],
    ['select (1).add', 'E 42501 statement refused: function add needs FUNCTION'],
    ['select (n).add from numbers', 'E 42501 statement refused: (n).add as a call of add(n) needs FUNCTION'],
    ["select ('/etc/passwd').pg_read_file", 'E 42501 statement refused: function pg_read_file needs FUNCTION'],
    ['create schema own grant usage on schema public to public', 'E 42501 statement refused: GRANT needs ROLE'],
    ['do $$ begin truncate numbers; end $$', 'E 42501 statement refused: DO needs FUNCTION'],
    ['set role shop_reader', 'E 42501 statement refused: SET role needs MISC_SET'],
    ["copy numbers to program 'x'", 'E 42501 statement refused: COPY TO PROGRAM needs FUNCTION'],
    [`select E'a\\'', public.add(1) --'`, 'E 42501 statement refused: function public.add needs FUNCTION'],
    [`select U&"\\0061dd"(1)`, 'E 42501 statement refused: function add needs FUNCTION'],
    ['select $a$ $$ $a$, add(1) -- $$', 'E 42501 statement refused: function add needs FUNCTION'],
  ])('%s', async (sql, why) => {
    await during('gitlab', async (client) => expect(told(await client.ask(query(sql)))[0]).toMatch(why))
  })

  test('what every session needs passes, and so does what was prepared', async () => {
    await during('github', async (client) => {
      const all = [
        "set role 'shop_migrator'",
        'set search_path = public',
        'begin',
        'savepoint a',
        'declare c cursor for select 7',
        'fetch c',
      ]
      for (const sql of [...all, 'rollback to a', 'commit', 'prepare p(int) as select $1 + 1', 'execute p(1)'])
        expect((await client.ask(query(sql))).filter((text) => text.startsWith('E'))).toEqual([])
      client.send(parse('q', 'select $1::int + 2'), bind('', 'q', ['1']), execute(''), sync, query('discard all'))
      expect(told(await client.until('Z', 2))).toEqual(['D 3', 'C SELECT 1', 'Z I', 'C DISCARD ALL', 'Z I'])
      expect(told(await client.ask(query('')))).toEqual(['Z I'])
    })
  })
})

describe('invariant 24: what cannot be read does not run', () => {
  test.each([
    ['selekt 1', 'pgusher could not read it as SQL'],
    [`select '${'x'.repeat(70_000)}'`, 'it is longer than 64 KiB'],
    [`select ${'1+'.repeat(20_000)}1`, 'pgusher could not read it as SQL'],
  ])('%.20s', async (sql, why) => {
    const statements = await during('gitlab', async (client) => {
      const refused = new RegExp(`^E 42501 statement refused: ${why}`)
      expect(told(await client.ask(query(sql)))).toEqual([expect.stringMatching(refused), 'Z I'])
      client.send(parse('long', sql), sync, run('select 1'), sync)
      expect(told(await client.until('Z', 2))).toEqual([
        ...[expect.stringMatching(refused), 'Z I', 'D 1', 'C SELECT 1', 'Z I'],
      ])
    })
    expect(statements.map(({ outcome }) => outcome)).toEqual(['denied', 'denied', 'success'])
    expect(statements[0]?.class).toBe('unknown')
  })

  test('10 MB are refused without being kept, and a message behind them is read', async () => {
    await during('gitlab', async (client) => {
      const many = Buffer.alloc(10_000_000, 'select 1;')
      await client.sendAll([query(many), parse('a', many), sync, query('select 1')])
      expect(told(await client.until('Z', 3)).map((text) => text.slice(0, 45))).toEqual(
        [
          ...[
            'E 42501 statement refused: it is longer than 6',
            'Z I',
            'E 42501 statement refused: it is longer than 6',
            'Z I',
          ],
          ...['D 1', 'C SELECT 1', 'Z I'],
        ].map((text) => text.slice(0, 45)),
      )
    })
  })
})

describe('invariant 22: bytes mean to pgusher what they mean to PostgreSQL', () => {
  /** In SJIS a string of one character, in UTF-8 of two, of which the second is a backslash. */
  const sjis = Buffer.concat([Buffer.from("select '"), Buffer.from([0x95, 0x5c]), Buffer.from("'")])

  test('an encoding in which a quote can be part of a character is refused where it is seen', async () => {
    await during('gitlab', async (client) => {
      for (const sql of [
        "set names 'SJIS'",
        'set client_encoding to big5',
        "select set_config('client_encoding', 'gbk', true)",
      ])
        expect(told(await client.ask(query(sql)))).toEqual([
          'E 42501 statement refused: it sets a client_encoding in which a quote can be part of a character, and rule "migrate" lets only such statements pass as pgusher can read',
          'Z I',
        ])
      expect((await client.ask(query("set client_encoding = 'latin1'"))).slice(0, 2)).toEqual([
        'C SET',
        'S client_encoding=LATIN1',
      ])
      expect(told(await client.ask(query(Buffer.from("select length('\xe9\xa0')", 'latin1'))))).toEqual([
        ...['D 2', 'C SELECT 1', 'Z I'],
      ])
    })
  })

  test.each(['SJIS', 'BIG5', 'GBK', 'UHC', 'GB18030', 'JOHAB'])(
    'a session that begins with %s sends ASCII only',
    async (name) => {
      await during(
        'gitlab',
        async (client) => {
          expect(told(await client.ask(query(sjis)))).toEqual([
            `E 42501 statement refused: in client_encoding ${name} a quote can be part of a character, and rule "migrate" lets only such statements pass as pgusher can read`,
            'Z I',
          ])
          expect(told(await client.ask(query("select 'a'"))).at(0)).toBe('D a')
          expect(told(await client.ask(query("set client_encoding = 'UTF8'")))).toEqual(['C SET', 'Z I'])
          // RESET comes back to it, which is known of too late for what is sent behind.
          expect(told(await client.ask(query("select 'ä'")))[0]).toMatch('a quote can be part of a character')
        },
        { parameters: { client_encoding: name } },
      )
    },
  )

  test('one that a function sets is followed', async () => {
    await during('gitlab', async (client) => {
      expect(await client.ask(query('select * from recoding'))).toContain('S client_encoding=SJIS')
      expect(told(await client.ask(query(sjis)))[0]).toMatch('in client_encoding SJIS')
      expect(told(await client.ask(query('select 1')))).toEqual(['D 1', 'C SELECT 1', 'Z I'])
    })
  })

  test('standard_conforming_strings: off is refused where it is seen, and a backslash where it is off', async () => {
    await during('gitlab', async (client) => {
      expect(told(await client.ask(query('set standard_conforming_strings = off')))[0]).toMatch(
        'switches standard_conforming_strings off',
      )
      expect(told(await client.ask(query("select 'a\\'")))).toEqual(['D a\\', 'C SELECT 1', 'Z I'])
    })
    const off = { parameters: { standard_conforming_strings: 'off' } }
    await during(
      'gitlab',
      async (client) => {
        // To PostgreSQL one string, to who takes the backslash for itself a string and a DO.
        const sql = query("select 'a\\'; do $$ begin end $$; --'")
        for (const set of ['select 1', 'set standard_conforming_strings = on']) {
          await client.ask(query(set))
          expect(told(await client.ask(sql))[0]).toMatch('with standard_conforming_strings off a backslash')
        }
        expect(told(await client.ask(query("select 'a'")))).toEqual(['D a', 'C SELECT 1', 'Z I'])
      },
      off,
    )
  })

  test('bytes that are not UTF-8 do not go upstream', async () => {
    const statements = await during('gitlab', async (client) => {
      const bytes = Buffer.from([0x73, 0x65, 0x6c, 0x65, 0x63, 0x74, 0x20, 0x27, 0xc0, 0x27])
      expect(told(await client.ask(query(bytes)))).toEqual([
        ...['E 22021 statement refused: it is not valid UTF-8, which is the client_encoding of this session', 'Z I'],
      ])
      expect(told(await client.ask(parse('', bytes), sync))[0]).toMatch(/^E 22021 statement refused/)
    })
    expect(statements.map(({ outcome }) => outcome)).toEqual(['denied', 'denied'])
  })

  test.each([
    ['a NUL inside of a Query', query(Buffer.from('select 1\0; drop table numbers'))],
    ['a Query does not end with a NUL', Buffer.concat([Buffer.from('Q\0\0\0\x0c'), Buffer.from('select 1')])],
  ])('%s ends the session, and nothing of it went upstream', async (what, bytes) => {
    using client = await rawSession(stage, { token: await stage.token('gitlab') })
    client.send(bytes)
    expect(await client.rest()).toEqual([`E 08P01 protocol violation: ${what}`])
    expect(await statementsOf(stage, client.port)).toEqual([])
  })
})
