/** PostgreSQL that is away, slow, cut off in the middle, restarted and replaced: what the job sees, and that nothing is left of it. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { startPostgres } from '../../src/cli/demo/embedded-postgres.ts'
import { AT_ONCE } from '../support/at-once.ts'
import type { PostgresServer } from '../support/postgres.ts'
import { eventually } from '../support/postgres.ts'
import { copyData, copyDone, query, type RawClient, rawSession, run, sync, terminate } from '../support/raw-client.ts'
import { statementsOf } from '../support/statement-events.ts'
import { startWatchedStage, type WatchedStage } from '../support/watched-stage.ts'

const LOST = 'E 08006 session ended: PostgreSQL closed the connection'
let watched: WatchedStage
let server: PostgresServer
let dataDir: string
const startServer = () => startPostgres({ dataDir, settings: { max_connections: '25' } })

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'pgusher-fault-'))
  server = await startServer()
  watched = await startWatchedStage({ server, listen: { handshake_timeout: '8s' } })
})
afterEach(async () => {
  watched.path.heal()
  await watched.path.listen()
  await watched.nothingLeft()
})
afterAll(async () => {
  await watched[Symbol.asyncDispose]()
  await server.stop()
  await rm(dataDir, { recursive: true, force: true })
})

const session = async (database = 'shop-prod'): Promise<RawClient> =>
  rawSession(watched.stage, { token: await watched.stage.token(), database })

/** What a job that tries to connect is told, and after how many milliseconds. */
async function refused(): Promise<{ told: string; after: number }> {
  const at = performance.now()
  const told = await session().then(
    () => 'let in',
    (error: Error) => error.message,
  )
  return { told, after: performance.now() - at }
}

async function leave(client: RawClient): Promise<void> {
  client.send(terminate)
  await client.rest()
}

/** The statement runs at PostgreSQL. */
const runs = (mark: string) =>
  eventually(async () => {
    const rows = await watched.stage.admin(
      `select 1 from pg_stat_activity where state = 'active' and query like '%${mark}%' and pid <> pg_backend_pid()`,
    )
    return rows.length === 1
  })

test('down: running sessions end with 08006, new ones get it at once, others go on, and it works again by itself', async () => {
  const running = await session()
  using elsewhere = await session('warehouse')
  running.send(query('select pg_sleep(60)'))
  await runs('pg_sleep(60)')
  await watched.path.refuse()
  const at = performance.now()
  watched.path.resetAll()
  expect((await running.rest()).at(-1)).toBe(LOST)
  expect(performance.now() - at).toBeLessThan(AT_ONCE)
  const { told, after } = await refused()
  expect(told).toMatch(/^E 08006 database "shop-prod" cannot be reached by pgusher/)
  expect(after).toBeLessThan(AT_ONCE)
  expect(await elsewhere.ask(query('select 1'))).toContain('D 1')
  await leave(elsewhere)
  await watched.path.listen()
  const again = await eventually(() => session().catch(() => undefined))
  await leave(again)
  expect(await statementsOf(watched.stage, running.port)).toMatchObject([{ outcome: 'unknown', error: 'upstream' }])
})

test('slow: 30 ms each way cost time and nothing else', async () => {
  watched.path.set('both', { latency: 30 })
  using client = await session()
  expect(await client.ask(query('select 7'))).toContain('D 7')
  await leave(client)
})

test('silent before the login: 08006 after connect_timeout or handshake_timeout, and the other database is not held up', async () => {
  watched.path.set('both', { stall: true })
  const [{ told, after }, elsewhere] = await Promise.all([
    refused(),
    session('warehouse').then(async (client) => {
      expect(await client.ask(query('select 1'))).toContain('D 1')
      await leave(client)
      return 'served'
    }),
  ])
  expect(told).toMatch(/^E 08006 /)
  expect(after).toBeLessThan(8_000 + AT_ONCE)
  expect(elsewhere).toBe('served')
})

test('silent in mid statement: a job that goes leaves nothing', async () => {
  const client = await session()
  client.send(query('select pg_sleep(60)'))
  await runs('pg_sleep(60)')
  watched.path.set('both', { stall: true })
  client.reset()
  await watched.stage.waitForEvent(
    ({ event, client: from }) => event === 'session.ended' && (from as { port: number }).port === client.port,
  )
})

test('one byte a write, both ways: rows, a pipeline and COPY arrive whole', async () => {
  watched.path.set('both', { byteByByte: true })
  using client = await session()
  expect(
    (await client.ask(query('select generate_series(1, 20)'))).filter((text) => text.startsWith('D')),
  ).toHaveLength(20)
  expect((await client.ask(run('select 1'), run('select 2'), sync)).filter((text) => /^[DZ]/.test(text))).toEqual([
    'D 1',
    'D 2',
    'Z I',
  ])
  client.send(query('create temp table t (a text); copy t from stdin'))
  await client.until('G')
  expect(await client.ask(copyData('a\nb\n'), copyDone)).toContain('C COPY 2')
  await leave(client)
  expect((await statementsOf(watched.stage, client.port)).map(({ outcome }) => outcome)).toEqual(
    Array(5).fill('success'),
  )
})

test.each([
  ['in the middle of a header', 3, 'reset'],
  ['in the middle of rows', 20_003, 'reset'],
  ['in the middle of rows, politely', 20_003, 'finish'],
] as const)('cut %s: the job sees an end and never half an answer as a whole one', async (_where, after, how) => {
  const client = await session()
  watched.path.set('down', { cut: { after, how } })
  client.send(query(`select repeat('x', 100), generate_series(1, 1000)`))
  const told = await client.rest()
  expect(told.some((text) => text.startsWith('C '))).toBe(false)
  expect(told.at(-1)).toMatch(after < 5 ? /^E 08006/ : /^(E 08006|end in the middle of D|reset)/)
  expect(await statementsOf(watched.stage, client.port)).toMatchObject([{ outcome: 'unknown', error: 'upstream' }])
})

test('half-closed by PostgreSQL or toward it: the session ends with 08006, idle or busy', async () => {
  for (const direction of ['down', 'up'] as const) {
    const idle = await session()
    const busy = await session()
    busy.send(query('select pg_sleep(60)'))
    await runs('pg_sleep(60)')
    watched.path.halfClose(direction)
    expect((await idle.rest()).at(-1)).toMatch(/^E 08006|^E 57P0/)
    if (direction === 'down') expect((await busy.rest()).at(-1)).toBe(LOST)
    else busy.reset()
  }
})

test('max_connections reached: 53300, within a second, until somebody leaves', async () => {
  const clients: RawClient[] = []
  using all = new DisposableStack()
  let outcome = { told: '', after: 0 }
  while (clients.length < 30) {
    const at = performance.now()
    const next = await session().catch((error: Error) => error.message)
    outcome = { told: String(next), after: performance.now() - at }
    if (typeof next === 'string') break
    clients.push(all.use(next))
  }
  expect(outcome.told).toMatch(/^E 53300 .*"shop-prod"/)
  expect(outcome.after).toBeLessThan(AT_ONCE)
  await leave(clients.pop()!)
  await leave(await eventually(() => session().catch(() => undefined)))
  await Promise.all(clients.map(leave))
})

/** The same cluster comes up elsewhere, and the name that pgusher knows leads there. */
async function failOver(): Promise<void> {
  await server.stop()
  Object.assign(server, await startServer())
  watched.path.retarget(server)
}

test('a server that does not know the login of a job that goes on: 08006 once, and the next session has a new one', async () => {
  const first = await session()
  const [login] = await watched.stage.mintedRoles()
  // A standby that took over before it was told of the role.
  await watched.stage.admin(`drop owned by "${login}"; drop role "${login}"`)
  expect((await refused()).told).toMatch(/^E 08006 cannot log in to "shop-prod"/)
  const again = await session()
  expect(await watched.stage.mintedRoles()).not.toContain(login)
  await leave(again)
  await leave(first)
})

test('restarted and failed over in mid statement: 57P01 by PostgreSQL itself, the next session works on the new server', async () => {
  const client = await session()
  client.send(query('select pg_sleep(60)'))
  await runs('pg_sleep(60)')
  const [told] = await Promise.all([client.rest(), failOver()])
  expect(told.at(-1)).toMatch(/^E (57P01|08006)/)
  const again = await eventually(() => session().catch(() => undefined))
  expect(await again.ask(query('select 1'))).toContain('D 1')
  await leave(again)
})
