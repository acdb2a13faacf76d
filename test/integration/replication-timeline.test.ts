/** Physical replication from the end of an old timeline: PostgreSQL has nothing to stream, says what comes next, and that it is done. */
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Stage, startStage } from '../support/pgusher.ts'
import { setupShop, startPostgres } from '../support/postgres.ts'
import { query, rawSession, terminate } from '../support/raw-client.ts'
import { statementsOf } from '../support/statement-events.ts'

let stage: Stage
const opened = new AsyncDisposableStack()
beforeAll(async () => {
  const directory = await mkdtemp(join(tmpdir(), 'pgusher-timeline-'))
  opened.defer(() => rm(directory, { recursive: true, force: true }))
  // Below a directory of its own: as root these are not PostgreSQL's to enter.
  await chmod(directory, 0o755)
  const dataDir = join(directory, 'data')
  // Without hot_standby nobody is let in before recovery has ended.
  const settings = { wal_level: 'replica', hot_standby: 'off', restore_command: 'false' }
  await (await startPostgres({ dataDir, settings })).stop()
  // Archive recovery without an archive ends at once, and begins the second timeline.
  await writeFile(join(dataDir, 'recovery.signal'), '', { mode: 0o666 })
  const server = await startPostgres({ dataDir, settings })
  opened.defer(() => server.stop())
  stage = await startStage({
    rules: [
      {
        ...{ name: 'replicate', issuer: 'github', match: { repository_id: '784500001' } },
        allow: { database: 'shop-prod', role: 'shop_migrator', replication: true },
      },
    ],
    upstream: { server, shop: await setupShop(server) },
  })
  opened.use(stage)
  // To make roles that may replicate.
  await stage.admin('alter role pgusher_admin replication')
})
afterAll(() => opened.disposeAsync())

test('START_REPLICATION that has nothing to stream is one statement on record', async () => {
  using client = await rawSession(stage, { token: await stage.token() }, { parameters: { replication: 'true' } })
  const history = await client.ask(query('TIMELINE_HISTORY 2'))
  const [end] = /[\dA-F]+\/[\dA-F]+/.exec(history.join('\n')) ?? []
  const told = await client.ask(query(`START_REPLICATION ${end} TIMELINE 1`))
  expect(told.filter((message) => message.startsWith('C '))).toEqual(['C START_STREAMING', 'C START_REPLICATION'])
  expect(await client.ask(query('IDENTIFY_SYSTEM'))).toContain('C IDENTIFY_SYSTEM')
  client.send(terminate)
  const succeeded = (sql: string) => ({ sql: expect.stringContaining(sql), outcome: 'success', batch: 0 })
  expect(await statementsOf(stage, client.port)).toMatchObject(
    ['TIMELINE_HISTORY', 'START_REPLICATION', 'IDENTIFY_SYSTEM'].map(succeeded),
  )
})
