/** `serve --workers 2` when a worker dies, the configuration changes, and when it is ended. */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type ConfigInput, RULES, type Stage, type StageEvent, startStage } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'
import { query, type RawClient, rawSession, terminate } from '../support/raw-client.ts'

let stage: Stage
const rules = (config: ConfigInput): ConfigInput => ({
  ...config,
  drain_timeout: '20s',
  rules: [
    { ...RULES[0]!, allow: { database: 'shop-prod', role: 'shop_migrator', max_connections: 3 } },
    { ...RULES[1]!, allow: { database: 'shop-prod', role: 'shop_reader' } },
  ],
})
const broken = (config: ConfigInput): ConfigInput => ({ ...config, rules: [{ ...RULES[0]!, issuer: 'nobody' }] })
beforeAll(async () => {
  stage = await startStage({ workers: 2, config: rules })
})
afterAll(() => stage.close())

const portOf = (event: StageEvent): number => (event['client'] as { port: number }).port

/** The process of now that writes each log. */
async function processes(): Promise<Map<string, number>> {
  const pids = new Map<string, number>()
  for (const { pgusher } of await stage.events('audit.started')) {
    const { pid } = pgusher['audit'] as { pid: number }
    pids.set(String(pgusher['instance']), pid)
  }
  return pids
}

const isGone = (pid: number): Promise<boolean> =>
  readFile(`/proc/${pid}/stat`, 'utf8').then(
    (text) => / Z /.test(text),
    () => true,
  )

/** Sessions of one job, one on each worker. */
async function onBoth(token: string, user = 'shop_migrator'): Promise<Map<string, RawClient>> {
  const found = new Map<string, RawClient>()
  while (found.size < 2) {
    const client = await rawSession(stage, { token, user })
    const { pgusher } = await stage.waitForEvent(
      (one) => one.event === 'session.started' && portOf(one) === client.port,
    )
    const worker = String(pgusher['instance'])
    if (found.has(worker)) {
      client.send(terminate)
      await client.rest()
    } else found.set(worker, client)
  }
  return found
}

test('a worker that is killed: its sessions give back what they held, the others notice nothing, another takes its place', async () => {
  const token = await stage.token()
  const found = await onBoth(token)
  const [dies, lives] = [found.get('stage-1')!, found.get('stage-2')!]
  const third = await eventually(async () => {
    // One that was let go may not be given back yet.
    const client = await rawSession(stage, { token }).catch(() => undefined)
    if (client === undefined) return undefined
    const { pgusher } = await stage.waitForEvent(
      (one) => one.event === 'session.started' && portOf(one) === client.port,
    )
    if (pgusher['instance'] === 'stage-2') return client
    client.send(terminate)
    await client.rest()
    return undefined
  })
  await expect(rawSession(stage, { token })).rejects.toThrow('E 53300 this job holds 3 sessions')
  // What takes its place begins with the configuration in force, whatever the file says by then.
  expect(await stage.reload({ config: broken })).toBe(false)
  const pid = (await processes()).get('stage-1')!
  process.kill(pid, 'SIGKILL')
  await dies.rest()
  expect(await lives.ask(query('select 1'))).toContain('D 1')
  // The limit counts those who live. A connection may still have been in the dead one's queue.
  const fourth = await eventually(() => rawSession(stage, { token }).catch(() => undefined))
  await eventually(async () => (await processes()).get('stage-1') !== pid)
  const readers = await onBoth(await stage.token('gitlab'), 'shop_reader')
  expect([...readers.keys()].toSorted()).toEqual(['stage-1', 'stage-2'])
  for (const client of [lives, third]) expect(await client.ask(query('select 2'))).toContain('D 2')
  for (const client of [lives, third, fourth, ...readers.values()]) client.socket.destroy()
  await stage.waitForNoRoles()
})

test('invariant 42: a reload is taken by all workers or by none, and ends sessions wherever they are', async () => {
  const found = await onBoth(await stage.token())
  const readers = await onBoth(await stage.token('gitlab'), 'shop_reader')
  expect(await stage.reload({ config: broken })).toBe(false)
  for (const client of found.values()) expect(await client.ask(query('select 1'))).toContain('D 1')
  const { length: loaded } = await stage.events('policy.loaded')
  expect(await stage.reload({ rules: [RULES[1]!] })).toBe(true)
  for (const client of found.values())
    expect((await client.rest()).at(-1)).toMatch(/^E 57P01 session ended: the policy was changed/)
  for (const client of readers.values()) expect(await client.ask(query('select 1'))).toContain('D 1')
  const token = await stage.token()
  for (let attempt = 0; attempt < 4; attempt++) await expect(rawSession(stage, { token })).rejects.toThrow('E 42501')
  await eventually(async () => (await stage.events('policy.loaded')).length > loaded)
  expect(await stage.events('policy.loaded')).toHaveLength(loaded + 1)
  expect(await stage.reload({ config: rules })).toBe(true)
  for (const client of readers.values()) client.socket.destroy()
})

test('when the process that was started is killed, its workers end their sessions and themselves', async () => {
  const found = await onBoth(await stage.token())
  const pids = await processes()
  const exited = once(stage.pgusher.child!, 'exit')
  stage.pgusher.child!.kill('SIGKILL')
  await exited
  for (const client of found.values())
    expect((await client.rest()).at(-1)).toMatch(/^E 57P01 session ended: pgusher is shutting down/)
  await eventually(async () => (await Promise.all([...pids.values()].map(isGone))).every(Boolean))
  // The next start would remove it 20 s later.
  for (const login of await stage.mintedRoles()) await stage.admin(`drop role ${login}`)
  await stage.restart()
})

test('invariant 41: SIGTERM ends idle sessions, waits for statements on every worker, and takes the roles back', async () => {
  const [idle, busy] = [...(await onBoth(await stage.token())).values()]
  await busy!.ask(query('begin'))
  const pids = [...(await processes()).values()]
  const stopped = stage.pgusher.stop()
  expect((await idle!.rest()).at(-1)).toMatch(/^E 57P01 session ended: pgusher is shutting down/)
  expect(await busy!.ask(query(`select 'done'`))).toContain('D done')
  busy!.send(query('commit'))
  expect((await busy!.rest()).at(-1)).toMatch(/^E 57P01 session ended: pgusher is shutting down/)
  expect(await stopped).toBe(true)
  expect(await stage.mintedRoles()).toEqual([])
  expect(await Promise.all(pids.map(isGone))).toEqual([true, true, true])
  const closed = await stage.events('audit.stopped')
  expect(new Set(closed.map(({ pgusher }) => pgusher['instance']))).toEqual(new Set(['stage', 'stage-1', 'stage-2']))
})
