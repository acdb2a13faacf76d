/** The extended query protocol: pipelines, portals, names and errors, as the client sees them and as the audit has them. */
import { expect, test } from 'vitest'
import { onEachPostgres } from '../support/each-postgres.ts'
import {
  bind,
  close,
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

onEachPostgres((stage) => {
  async function during(work: (client: RawClient) => Promise<void>): Promise<Statement[]> {
    using client = await rawSession(stage(), { token: await stage().token() })
    await work(client)
    client.send(terminate)
    expect(await client.rest()).toEqual([])
    return statementsOf(stage(), client.port)
  }
  const brief = (statements: readonly Statement[]) =>
    statements.map(({ sql, outcome, code, error }) => `${sql}: ${code ?? error ?? outcome}`)

  test('unnamed statement with parameters and a Describe', async () => {
    const statements = await during(async (client) => {
      expect(
        await client.ask(
          ...[parse('', 'select id, item from public.orders where id < $1'), describe('S', ''), bind('', '', ['3'])],
          ...[describe('P', ''), execute(''), sync],
        ),
      ).toEqual(['1', 't', 'T', '2', 'T', 'D 1|tea', 'D 2|coffee', 'C SELECT 2', 'Z I'])
    })
    expect(statements).toMatchObject([
      {
        sql: 'select id, item from public.orders where id < $1',
        ...{ protocol: 'extended', class: 'READ', rows: 2, outcome: 'success', name: undefined },
      },
    ])
  })

  test('a long pipeline before one Sync', async () => {
    const count = 200
    const statements = await during(async (client) => {
      client.send(run('create temp table p (a int)'))
      for (let i = 0; i < count; i++) client.send(run(`insert into p values ($1) -- ${i}`, [String(i)]))
      client.send(run('select count(*) from p'), sync)
      const told = await client.until('Z')
      expect(told).toHaveLength((count + 1) * 3 + 5)
      expect(told.slice(-5)).toEqual(['1', '2', `D ${count}`, 'C SELECT 1', 'Z I'])
    })
    expect(statements).toHaveLength(count + 2)
    expect(statements.map(({ sql }) => sql).slice(1, -1)).toEqual(
      Array.from({ length: count }, (_, i) => `insert into p values ($1) -- ${i}`),
    )
    expect(statements.slice(1, -1).every(({ affected, outcome }) => affected === 1 && outcome === 'success')).toBe(true)
  })

  test('an error in the middle of a pipeline: what follows up to Sync is not executed, what follows Sync is', async () => {
    const statements = await during(async (client) => {
      const fails = 'select 1 / (id - 1) from public.orders order by id'
      client.send(run('select 1'), run(fails), run('select 3'), run('select 4'), sync, run('select 5'), sync)
      expect(await client.until('Z', 2)).toEqual([
        ...['1', '2', 'D 1', 'C SELECT 1', '1', '2', 'E 22012 division by zero', 'Z I'],
        ...['1', '2', 'D 5', 'C SELECT 1', 'Z I'],
      ])
    })
    expect(brief(statements)).toEqual([
      ...['select 1: success', 'select 1 / (id - 1) from public.orders order by id: 22012'],
      ...['select 3: not_executed', 'select 4: not_executed', 'select 5: success'],
    ])
  })

  test('errors of Parse, Bind and Describe', async () => {
    const statements = await during(async (client) => {
      client.send(run('selec 1'), run('select 2'), sync)
      client.send(parse('', 'select $1::int'), bind('', '', ['x']), execute(''), run('select 3'), sync)
      client.send(describe('S', 'nobody'), run('select 4'), sync)
      client.send(parse('alone', 'selec 5'), describe('S', 'alone'), sync)
      client.send(bind('', 'nobody'), execute(''), sync)
      expect(
        (await client.until('Z', 5)).filter((text) => text.startsWith('E')).map((text) => text.slice(0, 7)),
      ).toEqual(['E 42601', 'E 22P02', 'E 26000', 'E 42601', 'E 26000'])
      expect(await client.ask(query('select 6'))).toEqual(['T', 'D 6', 'C SELECT 1', 'Z I'])
    })
    expect(brief(statements)).toEqual([
      ...['selec 1: 42601', 'select 2: not_executed', 'select $1::int: 22P02', 'select 3: not_executed'],
      ...['select 4: 26000', 'selec 5: 42601', 'undefined: 26000', 'select 6: success'],
    ])
    // Nothing was executed under this text: the Parse itself is on record.
    expect(statements[5]).toMatchObject({ error: 'parse_failed' })
  })

  test('Flush brings answers before Sync', async () => {
    const statements = await during(async (client) => {
      client.send(run('select 1'), flush)
      expect(await client.until('C')).toEqual(['1', '2', 'D 1', 'C SELECT 1'])
      client.send(run('select 2'), flush)
      expect(await client.until('C')).toEqual(['1', '2', 'D 2', 'C SELECT 1'])
      expect(await client.ask(sync)).toEqual(['Z I'])
    })
    expect(brief(statements)).toEqual(['select 1: success', 'select 2: success'])
  })

  test('a portal that is suspended: one event an Execute, with the rows of each', async () => {
    const statements = await during(async (client) => {
      const sql = 'select generate_series(1, 5)'
      client.send(parse('five', sql), bind('p', 'five'), execute('p', 2), execute('p', 2), execute('p', 2), sync)
      expect(await client.until('Z')).toEqual([
        ...['1', '2', 'D 1', 'D 2', 's', 'D 3', 'D 4', 's', 'D 5', 'C SELECT 1', 'Z I'],
      ])
    })
    expect(statements.map(({ sql, rows, outcome, name }) => [sql, rows, outcome, name])).toEqual(
      [2, 2, 1].map((rows) => ['select generate_series(1, 5)', rows, 'success', 'five']),
    )
  })

  test('two portals of one statement take turns, and Close ends one of them', async () => {
    const statements = await during(async (client) => {
      client.send(query('begin'), parse('s', 'select generate_series($1::int, 9)'), bind('a', 's', ['1']))
      client.send(bind('b', 's', ['7']), execute('a', 1), execute('b', 1), execute('a', 1), close('P', 'a'), sync)
      expect(await client.until('Z', 2)).toEqual([
        ...['C BEGIN', 'Z T', '1', '2', '2', 'D 1', 's', 'D 7', 's', 'D 2', 's', '3', 'Z T'],
      ])
      expect(await client.ask(execute('b'), sync)).toEqual(['D 8', 'D 9', 'C SELECT 2', 'Z T'])
      expect((await client.ask(execute('a'), sync))[0]).toBe('E 34000 portal "a" does not exist')
      await client.ask(query('rollback'))
    })
    expect(brief(statements)).toEqual([
      'begin: success',
      ...Array(4).fill('select generate_series($1::int, 9): success'),
      ...['undefined: 34000', 'rollback: success'],
    ])
  })

  test('a named statement is used again, closed, and its name given to another', async () => {
    const statements = await during(async (client) => {
      await client.ask(parse('s', 'select $1::int'), sync)
      for (const value of ['1', '2']) await client.ask(bind('', 's', [value]), execute(''), sync)
      expect((await client.ask(parse('s', 'select 9'), sync))[0]).toContain('E 42P05')
      await client.ask(bind('', 's', ['3']), execute(''), sync)
      expect(await client.ask(close('S', 's'), parse('s', 'select 4'), bind('', 's'), execute(''), sync)).toEqual([
        ...['3', '1', '2', 'D 4', 'C SELECT 1', 'Z I'],
      ])
    })
    expect(brief(statements)).toEqual([
      ...['select $1::int: success', 'select $1::int: success', 'select 9: 42P05', 'select $1::int: success'],
      'select 4: success',
    ])
    expect(statements.map(({ name }) => name)).toEqual(Array(5).fill('s'))
  })

  test('invariant 19: a pipeline that fails before Close and Parse keeps the old text, and so does the record', async () => {
    const statements = await during(async (client) => {
      await client.ask(parse('s', 'select 1'), sync)
      client.send(run('select 1/0'), close('S', 's'), parse('s', 'select 2'), bind('', 's'), execute(''), sync)
      client.send(bind('', 's'), execute(''), sync)
      expect((await client.until('Z', 2)).filter((text) => text.startsWith('D'))).toEqual(['D 1'])
    })
    expect(brief(statements)).toEqual(['select 1/0: 22012', 'select 2: not_executed', 'select 1: success'])
  })

  test('invariant 19: PREPARE and DEALLOCATE by SQL share their names with the protocol', async () => {
    const statements = await during(async (client) => {
      await client.ask(query('prepare "By SQL"(int) as select $1 * 2'))
      expect(await client.ask(bind('', 'By SQL', ['21']), execute(''), sync)).toContain('D 42')
      await client.ask(parse('by_protocol', 'select 7'), sync)
      expect(await client.ask(query('execute by_protocol'))).toContain('D 7')
      await client.ask(query('deallocate by_protocol'))
      expect((await client.ask(bind('', 'by_protocol'), execute(''), sync))[0]).toContain('E 26000')
      await client.ask(query('discard all'))
      expect((await client.ask(bind('', 'By SQL'), execute(''), sync))[0]).toContain('E 26000')
    })
    expect(brief(statements)).toEqual([
      'prepare "By SQL"(int) as select $1 * 2: success',
      'prepare "By SQL"(int) as select $1 * 2: success',
      ...['execute by_protocol: success', 'deallocate by_protocol: success', 'undefined: 26000'],
      ...['discard all: success', 'undefined: 26000'],
    ])
  })

  test('a name that SQL gives away where nobody can read it is not guessed at', async () => {
    const statements = await during(async (client) => {
      await client.ask(parse('s', 'select 1'), sync)
      await client.ask(query('deallocate /* hidden */ s'))
      await client.ask(query('prepare /* hidden */ s as select 2'))
      expect(await client.ask(bind('', 's'), execute(''), sync)).toContain('D 2')
    })
    expect(statements.map(({ sql }) => sql).at(-1)).not.toBe('select 1')
  })

  test('a cursor declared by SQL, executed as a portal', async () => {
    const statements = await during(async (client) => {
      await client.ask(query('begin; declare walk cursor for select generate_series(1, 3)'))
      expect(await client.ask(execute('walk', 2), sync)).toEqual(['D 1', 'D 2', 's', 'Z T'])
      await client.ask(query('rollback'))
      await client.ask(query('begin'))
      await client.ask(query('declare stroll cursor for select generate_series(1, 3)'))
      expect(await client.ask(execute('stroll', 2), sync)).toEqual(['D 1', 'D 2', 's', 'Z T'])
      await client.ask(query('commit'))
    })
    const execution = { protocol: 'extended', rows: 2, outcome: 'success' }
    // Behind another statement of the same Query nobody but PostgreSQL knows where the DECLARE begins.
    expect(statements[2]).toMatchObject({ sql: undefined, ...execution })
    expect(statements[6]).toMatchObject({ sql: 'declare stroll cursor for select generate_series(1, 3)', ...execution })
  })

  test('empty statements, statements without rows, and simple Queries between Syncs', async () => {
    const statements = await during(async (client) => {
      client.send(run(''), run('set application_name to x'), sync, query('select 1'), run('select 2'), sync)
      expect(await client.until('Z', 3)).toEqual([
        ...['1', '2', 'I', '1', '2', 'C SET'],
        'S application_name=x',
        ...['Z I', 'T', 'D 1', 'C SELECT 1', 'Z I', '1', '2', 'D 2', 'C SELECT 1', 'Z I'],
      ])
    })
    expect(brief(statements)).toEqual([
      ...[': success', 'set application_name to x: success', 'select 1: success', 'select 2: success'],
    ])
  })

  test('a Query in an extended pipeline, before its Sync', async () => {
    const statements = await during(async (client) => {
      client.send(run('select 1'), query('select 2'), run('select 1/0'), query('select 3'), sync, query('select 4'))
      const told = await client.until('Z', 3)
      // PostgreSQL 18 says T after a Query within a pipeline, the versions before it I.
      expect(told.filter((text) => /^[DEZ]/.test(text)).map((text) => text.replace(/^Z .$/, 'Z'))).toEqual([
        ...['D 1', 'D 2', 'Z', 'E 22012 division by zero', 'Z', 'D 4', 'Z'],
      ])
    })
    expect(brief(statements)).toEqual([
      ...['select 1: success', 'select 2: success', 'select 1/0: 22012', 'select 3: not_executed', 'select 4: success'],
    ])
  })

  test('many statements by name and many portals, in any order, each under its own text', async () => {
    const statements = await during(async (client) => {
      const names = Array.from({ length: 50 }, (_, i) => `s${i}`)
      client.send(...names.map((name, i) => parse(name, `select ${i}`)), sync)
      await client.until('Z')
      client.send(...names.toReversed().flatMap((name) => [bind(name, name), execute(name)]), sync)
      expect((await client.until('Z')).filter((text) => text.startsWith('D'))).toHaveLength(50)
    })
    expect(statements.map(({ sql, name }) => `${name} ${sql}`)).toEqual(
      Array.from({ length: 50 }, (_, i) => `s${49 - i} select ${49 - i}`),
    )
  })
})
