/** `allow.statements`: what a job may send is refused by its class, where it stands, and PostgreSQL never sees it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { RULES, type RuleInput, type Stage, startStage } from '../support/pgusher.ts'
import { bind, execute, parse, query, type RawClient, rawSession, run, sync, terminate } from '../support/raw-client.ts'
import { type Statement, statementsOf } from '../support/statement-events.ts'

const limited = (name: string, shape: number, statements: NonNullable<RuleInput['allow']>['statements']): RuleInput => ({
  ...RULES[shape]!,
  name,
  allow: { database: 'shop-prod', role: 'shop_migrator', max_connections: 50, statements },
  on_deny: { message: 'Reports read only.', contact: '#db-help' },
})

/** GitHub's jobs read, Buildkite's read and write, GitLab's do all but FUNCTION. */
const LIMITED = [
  limited('read-only', 0, ['READ']),
  limited('no-schema', 2, ['READ', 'WRITE']),
  limited('migrate', 1, ['READ', 'WRITE', 'DDL', 'ROLE', 'MISC', 'MISC_SET']),
]

let stage: Stage
beforeAll(async () => {
  stage = await startStage({ rules: LIMITED })
  await stage.admin('set role shop_migrator; create table public.numbers (n int)', 'shop')
})
afterAll(() => stage?.close())

type Shape = 'github' | 'buildkite' | 'gitlab'

async function during(shape: Shape, work: (client: RawClient) => Promise<void>): Promise<Statement[]> {
  using client = await rawSession(stage, { token: await stage.token(shape) })
  await work(client)
  client.send(terminate)
  expect(await client.rest()).toEqual([])
  return statementsOf(stage, client.port)
}

const withoutId = (messages: readonly string[]): string[] => messages.map((text) => text.replace(/ \[D-\w{6}\]$/, ''))

describe('a refused statement', () => {
  test('in the simple protocol', async () => {
    const statements = await during('github', async (client) => {
      expect(withoutId(await client.ask(query('insert into numbers values (1)')))).toEqual([
        'E 25006 statement refused: INSERT needs WRITE, and rule "read-only" allows READ',
        'Z I',
      ])
      expect(await client.ask(query('select count(*) from numbers'))).toEqual(['T', 'D 0', 'C SELECT 1', 'Z I'])
    })
    expect(statements).toMatchObject([
      { sql: 'insert into numbers values (1)', class: 'WRITE', outcome: 'denied', code: '25006' },
      { sql: 'select count(*) from numbers', outcome: 'success' },
    ])
  })
})
