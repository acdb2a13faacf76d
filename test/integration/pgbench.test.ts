/** pgbench in its three modes: clean, and as many statement events as PostgreSQL itself has logged, exactly. */
import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startPostgres } from '../../src/cli/demo/embedded-postgres.ts'
import { available, jobEnvironment, output } from '../support/commands.ts'
import { RULES, type Stage, type StageEvent, startStage } from '../support/pgusher.ts'
import { eventually, type PostgresServer, setupShop } from '../support/postgres.ts'

if (await available('pgbench')) {
  describe('pgbench', () => {
    let server: PostgresServer
    let stage: Stage
    beforeAll(async () => {
      server = await startPostgres({ settings: { log_statement: 'all' } })
      stage = await startStage({
        upstream: { server, shop: await setupShop(server) },
        rules: RULES,
      })
      await bench('-i', '-q', '-s', '2')
    })
    afterAll(async () => {
      await stage.close()
      await server.stop()
    })

    async function bench(...options: string[]): Promise<string> {
      const env = jobEnvironment(stage, { token: await stage.token('github', { run_id: options.join('') }) })
      return output(['pgbench', ...options], env)
    }

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

    test('the initialisation', async () => {
      const events = await finished(1)
      const statements = events.filter(({ event }) => event === 'statement')
      expect(statements.filter(({ pgusher }) => pgusher.outcome !== 'success')).toEqual([])
      expect(statements).toHaveLength(await logged())
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

    async function counts(): Promise<[number, number, number]> {
      const events = await stage.events()
      const ended = events.filter(({ event }) => event === 'session.ended').length
      return [ended, events.filter(({ event }) => event === 'statement').length, await logged()]
    }
  })
}
