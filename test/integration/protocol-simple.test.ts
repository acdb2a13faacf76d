/** The simple query protocol: what the client sees and what the audit says of it, execution by execution. */
import { expect, test } from 'vitest'
import { onEachPostgres } from '../support/each-postgres.ts'
import { query, type RawClient, rawSession, terminate } from '../support/raw-client.ts'
import { type Statement, statementsOf } from '../support/statement-events.ts'

onEachPostgres((stage) => {
  /** A session of its own for `work`; returns the session's statements. */
  async function during(work: (client: RawClient) => Promise<void>): Promise<Statement[]> {
    using client = await rawSession(stage(), { token: await stage().token() })
    await work(client)
    client.send(terminate)
    expect(await client.rest()).toEqual([])
    return statementsOf(stage(), client.port)
  }

  test('one statement, one event, with class, rows and bytes', async () => {
    const statements = await during(async (client) => {
      expect(await client.ask(query('select id, item from public.orders order by id'))).toEqual([
        ...['T', 'D 1|tea', 'D 2|coffee', 'D 3|cocoa', 'C SELECT 3', 'Z I'],
      ])
      expect(await client.ask(query(''))).toEqual(['I', 'Z I'])
      expect(await client.ask(query('create temp table t (a int)'))).toEqual(['C CREATE TABLE', 'Z I'])
      expect(await client.ask(query('insert into t select generate_series(1, 5)'))).toEqual(['C INSERT 0 5', 'Z I'])
      expect(await client.ask(query('update t set a = a + 1 where a > 2'))).toEqual(['C UPDATE 3', 'Z I'])
      expect((await client.ask(query('selec 1')))[0]).toBe('E 42601 syntax error at or near "selec"')
    })
    expect(statements).toMatchObject([
      { sql: 'select id, item from public.orders order by id', class: 'READ', rows: 3, affected: undefined },
      { sql: '', rows: 0 },
      { sql: 'create temp table t (a int)', class: 'DDL' },
      { sql: 'insert into t select generate_series(1, 5)', class: 'WRITE', affected: 5, rows: 0 },
      { sql: 'update t set a = a + 1 where a > 2', class: 'WRITE', affected: 3 },
      { sql: 'selec 1', outcome: 'failure', code: '42601' },
    ])
    expect(statements.map(({ protocol, batch, tx }) => [protocol, batch, tx])).toEqual(
      Array(6).fill(['simple', 0, 'idle']),
    )
  })

  test('a multi-statement Query has an event for each statement that ran; the one that failed carries what follows it', async () => {
    const statements = await during(async (client) => {
      expect(
        await client.ask(
          query('select 1; create temp table b (x int); insert into b values (1), (2); select x from b'),
        ),
      ).toEqual(['T', 'D 1', 'C SELECT 1', 'C CREATE TABLE', 'C INSERT 0 2', 'T', 'D 1', 'D 2', 'C SELECT 2', 'Z I'])
      expect(await client.ask(query('select 2; select 1/0; select 3'))).toEqual([
        ...['T', 'D 2', 'C SELECT 1', 'E 22012 division by zero', 'Z I'],
      ])
      expect(await client.ask(query('select 4'))).toEqual(['T', 'D 4', 'C SELECT 1', 'Z I'])
    })
    expect(statements).toMatchObject([
      { sql: 'select 1', batch: 0, rows: 1 },
      { sql: 'create temp table b (x int)', batch: 1, class: 'DDL' },
      { sql: 'insert into b values (1), (2)', batch: 2, affected: 2 },
      { sql: 'select x from b', batch: 3, rows: 2 },
      { sql: 'select 2', batch: 0, outcome: 'success' },
      { batch: 1, outcome: 'failure', code: '22012' },
      { sql: 'select 4', batch: 0 },
    ])
    expect(statements[5]?.sql).toContain('select 1/0')
    expect(statements[5]?.sql).toContain('select 3')
  })

  test('two Queries back to back are answered and recorded one by one, the first of them failing', async () => {
    const statements = await during(async (client) => {
      client.send(query('select nothing'), query('begin'), query('select 2'), query('rollback'))
      expect(await client.until('Z', 4)).toEqual([
        ...['E 42703 column "nothing" does not exist', 'Z I', 'C BEGIN', 'Z T'],
        ...['T', 'D 2', 'C SELECT 1', 'Z T', 'C ROLLBACK', 'Z I'],
      ])
    })
    expect(statements).toMatchObject([
      { sql: 'select nothing', outcome: 'failure', code: '42703', tx: 'idle' },
      { sql: 'begin', outcome: 'success', tx: 'idle' },
      { sql: 'select 2', tx: 'open', rows: 1 },
      { sql: 'rollback', tx: 'open' },
    ])
  })

  test('a failed transaction: the state is told and recorded', async () => {
    const statements = await during(async (client) => {
      client.send(query('begin'), query('select 1/0'), query('select 1'), query('rollback'))
      expect((await client.until('Z', 4)).filter((text) => /^[ZE]/.test(text))).toEqual([
        ...['Z T', 'E 22012 division by zero', 'Z E'],
        'E 25P02 current transaction is aborted, commands ignored until end of transaction block',
        ...['Z E', 'Z I'],
      ])
    })
    expect(statements.map(({ tx, code }) => [tx, code])).toEqual([
      ...[
        ['idle', undefined],
        ['open', '22012'],
        ['failed', '25P02'],
        ['failed', undefined],
      ],
    ])
  })

  test('notices, also those of a DO block, and a parameter that changes in mid-session', async () => {
    const statements = await during(async (client) => {
      expect(await client.ask(query(`do $$ begin raise notice 'one'; raise warning 'two'; end $$`))).toEqual([
        ...['N 00000 one', 'N 01000 two', 'C DO', 'Z I'],
      ])
      expect(await client.ask(query(`set timezone to 'Europe/Berlin'`))).toEqual([
        ...['C SET', 'S TimeZone=Europe/Berlin', 'Z I'],
      ])
    })
    expect(statements).toMatchObject([{ class: 'FUNCTION' }, { class: 'MISC_SET', outcome: 'success' }])
  })

  test('invariant 22: statements in LATIN1 and SJIS are recorded as what they say', async () => {
    const statements = await during(async (client) => {
      await client.ask(query(`set client_encoding to 'LATIN1'`))
      await client.ask(query(Buffer.from(`select 'Zürich' as größe`, 'latin1')))
      await client.ask(query(`set client_encoding to 'SJIS'`))
      // 表 is 0x95 0x5C: its second byte is a backslash in ASCII.
      await client.ask(query(Buffer.concat([Buffer.from("select '"), Buffer.from([0x95, 0x5c]), Buffer.from("'")])))
      await client.ask(query(`reset client_encoding`))
      await client.ask(query(`select 'Zürich'`))
    })
    expect(statements.map(({ sql }) => sql).filter((sql) => sql?.startsWith('select'))).toEqual([
      ...[`select 'Zürich' as größe`, `select '表'`, `select 'Zürich'`],
    ])
    expect(statements.map(({ outcome }) => outcome)).toEqual(Array(6).fill('success'))
  })

  test('LISTEN and NOTIFY, also while idle and from another session', async () => {
    using other = await rawSession(stage(), { token: await stage().token() })
    const statements = await during(async (client) => {
      expect(await client.ask(query('listen deploys'))).toEqual(['C LISTEN', 'Z I'])
      expect(await client.ask(query(`notify deploys, 'mine'`))).toEqual(['C NOTIFY', 'A deploys mine', 'Z I'])
      await other.ask(query(`select pg_notify('deploys', 'yours')`))
      // Nothing was asked for: it comes by itself.
      expect(await client.until('A')).toEqual(['A deploys yours'])
      expect(await client.ask(query('unlisten *'))).toEqual(['C UNLISTEN', 'Z I'])
    })
    expect(statements).toMatchObject([
      ...[{ sql: 'listen deploys' }, { sql: `notify deploys, 'mine'` }, { sql: 'unlisten *' }],
    ])
  })

  test('large objects by SQL, cursors, advisory locks', async () => {
    const statements = await during(async (client) => {
      const answers: string[] = []
      for (const sql of [
        ...['begin', `select lo_from_bytea(424242, '\\x00ff10')`, 'select lo_get(424242)', 'select lo_unlink(424242)'],
        ...['declare c scroll cursor for select generate_series(1, 10)', 'fetch 3 from c', 'move 2 in c'],
        ...['fetch backward 1 from c', 'close c', 'select pg_advisory_xact_lock(7)', 'commit'],
        ...['select pg_advisory_lock(8)', 'select pg_advisory_unlock(8)'],
      ]) {
        answers.push(...(await client.ask(query(sql))).filter((text) => /^[CDE]/.test(text)))
      }
      expect(answers).toEqual([
        ...['C BEGIN', 'D 424242', 'C SELECT 1', 'D \\x00ff10', 'C SELECT 1', 'D 1', 'C SELECT 1'],
        ...['C DECLARE CURSOR', 'D 1', 'D 2', 'D 3', 'C FETCH 3', 'C MOVE 2', 'D 4', 'C FETCH 1', 'C CLOSE CURSOR'],
        ...['D', 'C SELECT 1', 'C COMMIT', 'D', 'C SELECT 1', 'D t', 'C SELECT 1'],
      ])
    })
    expect(statements).toHaveLength(13)
    expect(statements.map(({ rows }) => rows)).toEqual([0, 1, 1, 1, 0, 3, 0, 1, 0, 1, 0, 1, 1])
    expect(statements.every(({ outcome }) => outcome === 'success')).toBe(true)
  })

  test('two-phase commit, finished by another session of the job', async () => {
    const token = await stage().token()
    using other = await rawSession(stage(), { token })
    const statements = await during(async (client) => {
      expect(
        await client.ask(query(`begin; create table public.two_phase (a int); prepare transaction 'pgusher-2pc'`)),
      ).toEqual(['C BEGIN', 'C CREATE TABLE', 'C PREPARE TRANSACTION', 'Z I'])
      expect(await other.ask(query(`commit prepared 'pgusher-2pc'`))).toEqual(['C COMMIT PREPARED', 'Z I'])
      expect(await client.ask(query('drop table public.two_phase'))).toEqual(['C DROP TABLE', 'Z I'])
    })
    expect(statements).toMatchObject([
      ...[{ sql: 'begin' }, { class: 'DDL' }, { sql: `prepare transaction 'pgusher-2pc'` }, { class: 'DDL' }],
    ])
  })
})
