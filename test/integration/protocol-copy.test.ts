/** COPY both ways, in the simple and the extended protocol, and the ways in which it breaks off. */
import { expect, test } from 'vitest'
import { onEachPostgres } from '../support/each-postgres.ts'
import {
  bind,
  copyData,
  copyDone,
  copyFail,
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
import { endOf, type Statement, statementsOf } from '../support/statement-events.ts'

onEachPostgres((stage) => {
  async function during(work: (client: RawClient) => Promise<void>): Promise<Statement[]> {
    using client = await rawSession(stage(), { token: await stage().token() })
    await client.ask(query('create temp table lines (id int, item text)'))
    await work(client)
    client.send(terminate)
    expect(await client.rest()).toEqual([])
    return (await statementsOf(stage(), client.port)).slice(1)
  }
  const COPY_IN = 'copy lines from stdin'
  const ROWS = ['1\tone\n', '2\ttwo\n', '3\tthree\n']

  test('in, simple protocol: rows and bytes, in one event', async () => {
    const statements = await during(async (client) => {
      client.send(query(COPY_IN))
      expect(await client.until('G')).toEqual(['G'])
      expect(await client.ask(...ROWS.map(copyData), copyDone)).toEqual(['C COPY 3', 'Z I'])
      expect(await client.ask(query('select count(*) from lines'))).toContain('D 3')
    })
    expect(statements).toMatchObject([
      { sql: COPY_IN, protocol: 'copy_in', class: 'WRITE', affected: 3, rows: 0, outcome: 'success' },
      { sql: 'select count(*) from lines', protocol: 'simple', rows: 1 },
    ])
    const data = ROWS.reduce((sum, row) => sum + row.length + 5, 0)
    expect(statements[0]?.requestBytes).toBe(COPY_IN.length + 6 + data)
  })

  test('in, with everything sent ahead of CopyInResponse, and a Query behind it', async () => {
    const statements = await during(async (client) => {
      client.send(query(COPY_IN), ...ROWS.map(copyData), copyDone, query('select count(*) from lines'))
      expect(await client.until('Z', 2)).toEqual(['G', 'C COPY 3', 'Z I', 'T', 'D 3', 'C SELECT 1', 'Z I'])
    })
    expect(statements).toMatchObject([
      { protocol: 'copy_in', affected: 3 },
      { protocol: 'simple', rows: 1 },
    ])
  })

  test('in, extended protocol as libpq does it: Sync before CopyData is ignored, also where it comes late', async () => {
    const statements = await during(async (client) => {
      client.send(run(COPY_IN), sync)
      expect(await client.until('G')).toEqual(['1', '2', 'G'])
      expect(await client.ask(...ROWS.map(copyData), copyDone, sync)).toEqual(['C COPY 3', 'Z I'])
      client.send(run(COPY_IN), flush)
      await client.until('G')
      client.send(sync, copyData('4\tfour\n'), sync, copyDone, sync, query('select count(*) from lines'))
      expect(await client.until('Z', 2)).toEqual(['C COPY 1', 'Z I', 'T', 'D 4', 'C SELECT 1', 'Z I'])
      client.send(run(COPY_IN), copyData('5\tfive\n'), copyDone, run('select 6'), sync)
      expect(await client.until('Z')).toEqual(['1', '2', 'G', 'C COPY 1', '1', '2', 'D 6', 'C SELECT 1', 'Z I'])
    })
    expect(statements.map(({ protocol, affected, rows, outcome }) => [protocol, affected, rows, outcome])).toEqual([
      ['copy_in', 3, 0, 'success'],
      ['copy_in', 1, 0, 'success'],
      ['simple', undefined, 1, 'success'],
      ['copy_in', 1, 0, 'success'],
      ['extended', undefined, 1, 'success'],
    ])
  })

  test('in, several in one Query', async () => {
    const statements = await during(async (client) => {
      client.send(query(`${COPY_IN}; select 1; ${COPY_IN}`))
      await client.until('G')
      client.send(copyData('1\tone\n'), copyDone)
      expect(await client.until('G')).toEqual(['C COPY 1', 'T', 'D 1', 'C SELECT 1', 'G'])
      expect(await client.ask(copyData('2\ttwo\n'), copyData('3\tthree\n'), copyDone)).toEqual(['C COPY 2', 'Z I'])
    })
    expect(statements).toMatchObject([
      { sql: COPY_IN, protocol: 'copy_in', batch: 0, affected: 1 },
      { sql: 'select 1', protocol: 'simple', batch: 1, rows: 1 },
      { sql: COPY_IN, protocol: 'copy_in', batch: 2, affected: 2 },
    ])
  })

  test('in, given up by the client, in both protocols', async () => {
    const statements = await during(async (client) => {
      client.send(query(COPY_IN))
      await client.until('G')
      expect(await client.ask(copyData(ROWS[0]!), copyFail('no more'))).toEqual([
        ...['E 57014 COPY from stdin failed: no more', 'Z I'],
      ])
      client.send(run(COPY_IN), flush)
      await client.until('G')
      expect(await client.ask(copyFail('enough'), run('select 1'), sync)).toEqual([
        ...['E 57014 COPY from stdin failed: enough', 'Z I'],
      ])
      expect(await client.ask(query('select count(*) from lines'))).toContain('D 0')
    })
    expect(statements).toMatchObject([
      { sql: COPY_IN, protocol: 'copy_in', outcome: 'failure', code: '57014' },
      { sql: COPY_IN, protocol: 'copy_in', outcome: 'failure', code: '57014' },
      { sql: 'select 1', outcome: 'failure', error: 'not_executed' },
      { sql: 'select count(*) from lines', outcome: 'success' },
    ])
  })

  test('in, refused by PostgreSQL in mid stream: what the client still sends is ignored', async () => {
    const statements = await during(async (client) => {
      client.send(query(COPY_IN))
      await client.until('G')
      client.send(copyData('1\tone\n'), copyData('x\ty\n'), copyDone)
      expect((await client.until('Z')).map((text) => text.slice(0, 7))).toEqual(['E 22P02', 'Z I'])
      // As a client that has not seen the error yet.
      client.send(...ROWS.map(copyData), copyDone)
      client.send(run(COPY_IN), flush)
      await client.until('G')
      client.send(copyData('x\ty\n'), ...ROWS.map(copyData), copyDone, sync, query('select count(*) from lines'))
      expect((await client.until('Z', 2)).map((text) => text.slice(0, 7))).toEqual([
        ...['E 22P02', 'Z I', 'T', 'D 0', 'C SELEC', 'Z I'],
      ])
    })
    expect(statements).toMatchObject([
      { sql: COPY_IN, protocol: 'copy_in', outcome: 'failure', code: '22P02' },
      { sql: COPY_IN, protocol: 'copy_in', outcome: 'failure', code: '22P02' },
      { sql: 'select count(*) from lines', protocol: 'simple', outcome: 'success', rows: 1 },
    ])
  })

  test('in, refused by a trigger before the first row, with the Sync that COPY would have ignored', async () => {
    const statements = await during(async (client) => {
      await client.ask(
        query(`create function pg_temp.no() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$`),
      )
      await client.ask(
        query('create trigger no before insert on lines for each statement execute function pg_temp.no()'),
      )
      client.send(run(COPY_IN), sync)
      expect(await client.until('Z')).toEqual(['1', '2', 'G', 'E P0001 no', 'Z I'])
      expect(await client.ask(run('select 1'), sync)).toEqual(['1', '2', 'D 1', 'C SELECT 1', 'Z I'])
    })
    expect(statements.slice(2)).toMatchObject([
      { sql: COPY_IN, outcome: 'failure', code: 'P0001' },
      { sql: 'select 1', outcome: 'success', rows: 1 },
    ])
  })

  test('out: text, CSV with a header, and binary', async () => {
    const statements = await during(async (client) => {
      const table = 'copy (select id, item from public.orders order by id) to stdout'
      expect(await client.ask(query(table))).toEqual([
        ...['H', 'd 1\ttea', 'd 2\tcoffee', 'd 3\tcocoa', 'c', 'C COPY 3', 'Z I'],
      ])
      expect(await client.ask(query(`${table} csv header`))).toEqual([
        ...['H', 'd id,item', 'd 1,tea', 'd 2,coffee', 'd 3,cocoa', 'c', 'C COPY 3', 'Z I'],
      ])
      const binary = await client.ask(run(`${table} (format binary)`), sync)
      expect(binary.slice(0, 3)).toEqual(['1', '2', 'H'])
      expect(binary.slice(-3)).toEqual(['c', 'C COPY 3', 'Z I'])
    })
    expect(statements.map(({ protocol, rows, affected, class: is }) => [protocol, rows, affected, is])).toEqual(
      Array(3).fill(['copy_out', 3, undefined, 'READ']),
    )
  })

  test('out, failing after some rows', async () => {
    const statements = await during(async (client) => {
      const told = await client.ask(query('copy (select 1 / (3 - g) from generate_series(1, 5) g) to stdout'))
      expect(told.at(-2)).toBe('E 22012 division by zero')
      expect(await client.ask(query('select 1'))).toContain('D 1')
    })
    expect(statements).toMatchObject([
      { protocol: 'copy_out', outcome: 'failure', code: '22012' },
      { sql: 'select 1', protocol: 'simple', outcome: 'success', rows: 1 },
    ])
  })

  test('CopyData, CopyDone and CopyFail outside of COPY are ignored', async () => {
    const statements = await during(async (client) => {
      client.send(copyData('stray'), copyDone, copyFail('stray'), query('select 1'))
      expect(await client.until('Z')).toEqual(['T', 'D 1', 'C SELECT 1', 'Z I'])
      client.send(copyDone, run('select 2'), copyDone, sync)
      expect(await client.until('Z')).toEqual(['1', '2', 'D 2', 'C SELECT 1', 'Z I'])
    })
    expect(statements.map(({ sql, protocol, outcome }) => [sql, protocol, outcome])).toEqual([
      ...[
        ['select 1', 'simple', 'success'],
        ['select 2', 'extended', 'success'],
      ],
    ])
  })

  test('invariant 23: a Query in the middle of COPY IN ends the session and is not recorded as executed', async () => {
    using client = await rawSession(stage(), { token: await stage().token() })
    await client.ask(query('create temp table lines (id int, item text)'))
    client.send(query(COPY_IN))
    await client.until('G')
    client.send(copyData(ROWS[0]!), query('drop table public.orders'))
    expect((await client.rest()).map((text) => text.slice(0, 7))).toEqual(['E 08P01', 'E 08P01'])
    expect((await statementsOf(stage(), client.port)).slice(1)).toMatchObject([
      { sql: COPY_IN, outcome: 'failure', code: '08P01' },
      { sql: 'drop table public.orders', outcome: 'unknown', code: undefined },
    ])
    expect((await endOf(stage(), client.port)).pgusher['end_reason']).toBe('upstream')
    expect(await stage().admin('select count(*)::int as n from public.orders', 'shop')).toEqual([{ n: 3 }])
  })

  test('a prepared COPY is executed twice', async () => {
    const statements = await during(async (client) => {
      client.send(parse('c', COPY_IN), bind('', 'c'), execute(''), copyData(ROWS[0]!), copyDone, sync)
      client.send(bind('', 'c'), execute(''), copyData(ROWS[1]!), copyData(ROWS[2]!), copyDone, sync)
      expect(await client.until('Z', 2)).toEqual(['1', '2', 'G', 'C COPY 1', 'Z I', '2', 'G', 'C COPY 2', 'Z I'])
    })
    expect(statements.map(({ sql, name, affected }) => [sql, name, affected])).toEqual([
      ...[
        [COPY_IN, 'c', 1],
        [COPY_IN, 'c', 2],
      ],
    ])
  })
})
