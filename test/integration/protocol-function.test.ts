/** FunctionCall, which runs code without SQL: refused without harm to the session unless the rule grants it, and always on record. */
import { expect, test } from 'vitest'
import { onEachPostgres } from '../support/each-postgres.ts'
import { RULES } from '../support/pgusher.ts'
import { functionCall, query, type RawClient, rawSession, run, sync, terminate } from '../support/raw-client.ts'
import { type Statement, statementsOf } from '../support/statement-events.ts'

/** `pg_proc.oid` of int4pl(int4, int4) and int4div(int4, int4), the same in every version. */
const [INT4PL, INT4DIV] = [177, 154]
const REFUSED = 'E 42501 FunctionCall denied: the rule that let this job in does not grant function_call'

onEachPostgres(
  (stage) => {
    async function during(
      shape: 'github' | 'buildkite',
      work: (client: RawClient) => Promise<void>,
    ): Promise<Statement[]> {
      using client = await rawSession(stage(), { token: await stage().token(shape) })
      await work(client)
      client.send(terminate)
      expect(await client.rest()).toEqual([])
      return statementsOf(stage(), client.port)
    }

    test('invariant 20: refused, the session lives on', async () => {
      const statements = await during('github', async (client) => {
        expect(await client.ask(functionCall(INT4PL, ['2', '3']))).toEqual([REFUSED, 'Z I'])
        expect(await client.ask(query('select 1'))).toEqual(['T', 'D 1', 'C SELECT 1', 'Z I'])
      })
      expect(statements).toMatchObject([
        { sql: undefined, protocol: 'function', outcome: 'denied' },
        { sql: 'select 1', outcome: 'success' },
      ])
    })

    test('refused in a transaction: it fails as any statement that fails, and not before the statements ahead of it', async () => {
      const statements = await during('github', async (client) => {
        client.send(query('begin'), query('select 1'), functionCall(INT4PL, ['2', '3']), query('select 2'))
        client.send(query('rollback'), functionCall(INT4PL, ['2', '3']), query('select 3'))
        expect((await client.until('Z', 7)).filter((text) => /^[EDZ]/.test(text))).toEqual([
          ...['Z T', 'D 1', 'Z T', REFUSED, 'Z E'],
          'E 25P02 current transaction is aborted, commands ignored until end of transaction block',
          ...['Z E', 'Z I', REFUSED, 'Z I', 'D 3', 'Z I'],
        ])
      })
      expect(statements.map(({ protocol, outcome, tx }) => [protocol, outcome, tx])).toEqual([
        ...[
          ['simple', 'success', 'idle'],
          ['simple', 'success', 'open'],
          ['function', 'denied', 'open'],
        ],
        ...[
          ['simple', 'failure', 'failed'],
          ['simple', 'success', 'failed'],
          ['function', 'denied', 'idle'],
        ],
        ['simple', 'success', 'idle'],
      ])
    })

    test('refused in an extended pipeline, before and behind an error', async () => {
      const statements = await during('github', async (client) => {
        client.send(run('select 1'), functionCall(INT4PL, ['2', '3']), run('select 2'), sync)
        expect((await client.until('Z', 2)).filter((text) => /^[EDZ]/.test(text))).toEqual([
          ...['D 1', REFUSED, 'Z I', 'D 2', 'Z I'],
        ])
        client.send(run('select 1/0'), functionCall(INT4PL, ['2', '3']), run('select 3'), sync, run('select 4'), sync)
        expect((await client.until('Z', 2)).filter((text) => /^[EDZ]/.test(text))).toEqual([
          ...['E 22012 division by zero', 'Z I', 'D 4', 'Z I'],
        ])
      })
      expect(statements.map(({ sql, protocol, outcome, error }) => [sql ?? protocol, error ?? outcome])).toEqual([
        ...[
          ['select 1', 'success'],
          ['function', 'denied'],
          ['select 2', 'success'],
        ],
        ...[
          ['select 1/0', 'failure'],
          ['function', 'not_executed'],
          ['select 3', 'not_executed'],
        ],
        ['select 4', 'success'],
      ])
    })

    test('invariant 20: granted, it runs, and is recorded with oid and arguments', async () => {
      const statements = await during('buildkite', async (client) => {
        expect(await client.ask(functionCall(INT4PL, ['2', '3']))).toEqual(['V 5', 'Z I'])
        expect(await client.ask(functionCall(INT4DIV, ['2', '0']))).toEqual(['E 22012 division by zero', 'Z I'])
        client.send(run('select 1'), functionCall(INT4PL, ['4', '4']), run('select 2'), sync, query('select 3'))
        expect((await client.until('Z', 3)).filter((text) => /^[DVE]/.test(text))).toEqual([
          ...['D 1', 'V 8', 'D 2', 'D 3'],
        ])
      })
      expect(statements.map(({ sql, protocol, outcome, code }) => [sql ?? protocol, code ?? outcome])).toEqual([
        ...[
          ['function', 'success'],
          ['function', '22012'],
          ['select 1', 'success'],
          ['function', 'success'],
        ],
        ...[
          ['select 2', 'success'],
          ['select 3', 'success'],
        ],
      ])
      const events = await stage().events(({ pgusher }) => pgusher['function_oid'] !== undefined)
      const hex = (...values: string[]) => values.map((value) => `\\x${Buffer.from(value).toString('hex')}`)
      expect(events.map(({ pgusher }) => [pgusher['function_oid'], pgusher['parameters']]).slice(-3)).toEqual([
        ...[
          [INT4PL, hex('2', '3')],
          [INT4DIV, hex('2', '0')],
          [INT4PL, hex('4', '4')],
        ],
      ])
    })
  },
  {
    rules: [
      ...RULES,
      {
        name: 'calls-functions',
        issuer: 'buildkite',
        match: { pipeline_id: '7ddd6920-d6cb-492b-9a36-e6482a2e780b', build_branch: 'main' },
        allow: { database: 'shop-prod', role: 'shop_migrator', function_call: true },
      },
    ],
  },
)
