/**
 * Load: as many statement events as PostgreSQL itself has logged, exactly. pgbench in its three modes where it is installed, and
 * node-postgres everywhere.
 */
import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { available, jobEnvironment, output } from '../support/commands.ts'
import { type Stage, type StageEvent, startStage } from '../support/pgusher.ts'
import { eventually, type PostgresServer, setupShop, startPostgres } from '../support/postgres.ts'

let server: PostgresServer
let stage: Stage
beforeAll(async () => {
  server = await startPostgres({ settings: { log_statement: 'all' } })
  stage = await startStage({ upstream: { server, shop: await setupShop(server) } })
})
afterAll(async () => {
  await stage.close()
  await server.stop()
})

/** All events of the runs so far, once every session has ended. */
const finished = (sessions: number): Promise<StageEvent[]> =>
  eventually(async () => {
    const events = await stage.events()
    return events.filter(({ event }) => event === 'session.ended').length === sessions && events
  })

/** Statements and executions in PostgreSQL's own log, of the logins that pgusher made. */
async function logged(): Promise<number> {
  const log = await readFile(server.logFile, 'utf8')
  return (log.match(/^.* pgu_\w+@\w+ LOG: {2}(statement|execute )/gm) ?? []).length
}

async function counts(): Promise<[number, number, number]> {
  const events = await stage.events()
  const ended = events.filter(({ event }) => event === 'session.ended').length
  return [ended, events.filter(({ event }) => event === 'statement').length, await logged()]
}

test('eight clients of node-postgres', async () => {
  const [sessionsBefore, statementsBefore, loggedBefore] = await counts()
  const token = await stage.token('github', { run_id: 'node-postgres' })
  const work = async (index: number) =>
    stage.session({ token }, async (client) => {
      await client.query('create temp table t (a int)')
      for (let i = 0; i < 50; i++) {
        await client.query('begin')
        await client.query({ name: 'insert', text: 'insert into t values ($1)', values: [i] })
        await client.query(`update t set a = a + 1 where a = ${index}; select count(*) from t`)
        await client.query('commit')
      }
    })
  await Promise.all(Array.from({ length: 8 }, (_, index) => work(index)))
  const events = await finished(sessionsBefore + 8)
  const sent = events.filter(({ event }) => event === 'statement').slice(statementsBefore)
  expect(sent).toHaveLength(8 * (1 + 50 * 5))
  // PostgreSQL logs a Query of two statements once.
  expect(sent.length - 8 * 50).toBe((await logged()) - loggedBefore)
  expect(sent.filter(({ pgusher }) => pgusher.outcome !== 'success')).toEqual([])
})

if (await available('pgbench')) {
  describe('pgbench', () => {
    async function bench(...options: string[]): Promise<string> {
      const env = jobEnvironment(stage, { token: await stage.token('github', { run_id: options.join('') }) })
      return output(['pgbench', ...options], env)
    }

    test('-i', async () => {
      const [sessionsBefore, statementsBefore, loggedBefore] = await counts()
      await bench('-i', '-q', '-s', '2')
      const events = await finished(sessionsBefore + 1)
      const statements = events.filter(({ event }) => event === 'statement').slice(statementsBefore)
      expect(statements.filter(({ pgusher }) => pgusher.outcome !== 'success')).toEqual([])
      expect(statements).toHaveLength((await logged()) - loggedBefore)
      expect(statements.find(({ pgusher }) => pgusher['protocol'] === 'copy_in')?.pgusher['affected_rows']).toBe(
        200_000,
      )
    })

    test.each(['simple', 'extended', 'prepared'])('-M %s -c 8', async (mode) => {
      const [sessionsBefore, statementsBefore, loggedBefore] = await counts()
      const told = await bench('-n', '-M', mode, '-c', '8', '-j', '2', '-t', '60')
      expect(told).toContain('number of transactions actually processed: 480/480')
      expect(told).toContain('number of failed transactions: 0 (0.000%)')
      // One connection more looks at the tables before the clients start.
      const events = await finished(sessionsBefore + 9)
      const statements = events.filter(({ event }) => event === 'statement')
      const sent = statements.slice(statementsBefore)
      // Seven statements make a transaction of the built-in script.
      expect(sent.length).toBeGreaterThanOrEqual(480 * 7)
      expect(sent).toHaveLength((await logged()) - loggedBefore)
      expect(sent.filter(({ pgusher }) => pgusher.outcome !== 'success')).toEqual([])
      const updates = sent.filter(({ pgusher }) => pgusher['protocol'] !== 'copy_in' && pgusher['affected_rows'] === 1)
      expect(updates.length).toBe(480 * 4)
      expect(
        new Set(sent.map((event) => (event['cicd'] as { pipeline: { run: { id: string } } }).pipeline.run.id)).size,
      ).toBe(1)
    })
  })
}
