/** `serve --workers 2` when every worker is killed at a bad moment of a job: nothing of it is left, and its limits are whole again. */
import { readFile } from 'node:fs/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type ConfigInput, RULES, type Stage, startStage } from '../support/pgusher.ts'
import { eventually, withClient } from '../support/postgres.ts'
import { query, type RawClient, rawSession, terminate } from '../support/raw-client.ts'

const MOST = 3

let stage: Stage
const clients: RawClient[] = []
beforeAll(async () => {
  const config = (base: ConfigInput): ConfigInput => ({
    ...base,
    rules: [{ ...RULES[0]!, allow: { database: 'shop-prod', role: 'shop_migrator', max_connections: MOST } }],
  })
  stage = await startStage({ workers: 2, config })
})
afterEach(async () => {
  for (const client of clients.splice(0)) client.socket.destroy()
  await stage.waitForNoRoles()
})
afterAll(() => stage.close())

/** Processes whose parent is the one that was started, and that carry connections: those with a log. */
async function workers(): Promise<Map<string, number>> {
  const last = new Map<string, number>()
  for (const { pgusher } of await stage.events('audit.started'))
    last.set(String(pgusher['instance']), (pgusher['audit'] as { pid: number }).pid)
  last.delete('stage')
  return last
}

async function killWorkers(): Promise<void> {
  const before = [...(await workers()).values()]
  for (const pid of before) process.kill(pid, 'SIGKILL')
  await eventually(async () => [...(await workers()).values()].every((pid) => !before.includes(pid)), 25_000)
}

/** All that the job may have, and one that it may not. */
async function holdsAll(token: string): Promise<void> {
  for (let held = 0; held < MOST; held++)
    // A connection may still come to the queue of one that is dead.
    clients.push((await eventually(() => rawSession(stage, { token }).catch(() => undefined)))!)
  await expect(rawSession(stage, { token })).rejects.toThrow(`E 53300 this job holds ${MOST} sessions`)
}

const waitingAdmins = `SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'pgusher%'`

test('in the making of a role', async () => {
  const token = await stage.token()
  await withClient(stage.server.superuserUrl, async (superuser) => {
    await superuser.query('BEGIN')
    await superuser.query('LOCK TABLE pg_catalog.pg_authid IN SHARE MODE')
    const lost = Array.from({ length: MOST }, () => rawSession(stage, { token }).then(String, () => 'lost'))
    await eventually(async () => (await stage.admin(waitingAdmins)).length > 0)
    await killWorkers()
    expect(await Promise.all(lost)).toEqual(Array(MOST).fill('lost'))
    await superuser.query('ROLLBACK')
  })
  await stage.waitForNoRoles()
  await holdsAll(token)
})

test('in statements, a transaction and COPY, of which PostgreSQL hears nothing for a minute', async () => {
  const token = await stage.token('github', { run_id: '900001', check_run_id: '900001' })
  const busy = await Promise.all(Array.from({ length: MOST }, () => rawSession(stage, { token })))
  await busy[0]!.ask(query('create table half (a int)'))
  busy[0]!.send(query('begin; insert into half values (1); select pg_sleep(60)'))
  busy[1]!.send(query('select pg_sleep(60)'))
  busy[2]!.send(query('copy half from stdin'))
  await busy[2]!.until('G')
  await killWorkers()
  for (const client of busy) await client.rest()
  await stage.waitForNoRoles()
  expect(await stage.admin('select count(*)::int as n from half', 'shop')).toEqual([{ n: 0 }])
  const left = `SELECT query FROM pg_stat_activity WHERE usename LIKE 'pgu\\_%'`
  expect(await stage.admin(left)).toEqual([])
  await holdsAll(token)
})

/** One session of the job on each worker; by worker. */
async function onBoth(token: string): Promise<Map<string, RawClient>> {
  const found = new Map<string, RawClient>()
  while (found.size < 2) {
    const client = await rawSession(stage, { token })
    const { pgusher } = await stage.waitForEvent(
      (one) => one.event === 'session.started' && (one['client'] as { port: number }).port === client.port,
    )
    const worker = String(pgusher['instance'])
    if (found.has(worker)) {
      client.send(terminate)
      await client.rest()
    } else {
      found.set(worker, client)
      clients.push(client)
    }
  }
  return found
}

test('with another session of the job on a worker that lives: the role stays, and the statement of the dead one does not', async () => {
  const found = await onBoth(await stage.token('github', { run_id: '900002', check_run_id: '900002' }))
  const running = async (): Promise<unknown[]> => {
    const sql = `SELECT query FROM pg_stat_activity WHERE usename LIKE 'pgu\\_%' AND state = 'active' ORDER BY 1`
    return (await stage.admin(sql)).map(({ query: text }) => text)
  }
  for (const [worker, client] of found) client.send(query(`select pg_sleep(60), '${worker}'`))
  await eventually(async () => (await running()).length === 2)
  process.kill((await workers()).get('stage-1')!, 'SIGKILL')
  await found.get('stage-1')!.rest()
  await eventually(async () => (await running()).length < 2)
  expect(await running()).toEqual([`select pg_sleep(60), 'stage-2'`])
  expect(await stage.mintedRoles()).toHaveLength(1)
})

test('each dead one is said once, and its record ends where it was killed', async () => {
  const log = await readFile(stage.logFile, 'utf8')
  expect(log.match(/"a worker has ended; another takes its place"/g)).toHaveLength(5)
  for (const writer of ['stage', 'stage-1', 'stage-2']) {
    const own = (await stage.events()).filter(({ pgusher }) => pgusher['instance'] === writer)
    let expected = 1
    for (const { event, pgusher } of own) {
      if (event === 'audit.started') expected = 1
      expect(pgusher.seq).toBe(expected++)
    }
  }
})
