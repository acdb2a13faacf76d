/** What can go wrong with pgusher itself: its disk, its configuration, its clock, its clients, and the signal that ends it. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { AT_ONCE } from '../support/at-once.ts'
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts'
import { readAudit } from '../support/nothing-left.ts'
import { type Stage, startStage } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'
import { copyData, query, type RawClient, rawSession, run, shown, sync, terminate } from '../support/raw-client.ts'
import { clockShiftedBy } from '../support/shifted-clock.ts'
import { startWatchedStage, type WatchedStage } from '../support/watched-stage.ts'

const REFUSED = 'E 57P03 no session can start: the audit log cannot be written'
const ENDED = 'E 57P03 session ended: the audit log cannot be written, and no statement runs without it'

let watched: WatchedStage
let stage: Stage
/** Between clients and pgusher. */
let front: FaultProxy
const disk = (directory: string): string => join(directory, 'disk', 'audit.jsonl')
/** Files that were put aside, before the one that is written. */
const aside: string[] = []
beforeAll(async () => {
  watched = await startWatchedStage({
    listen: { handshake_timeout: '8s' },
    auditFiles: ({ directory }) => [...aside, disk(directory)],
    config: (config) => {
      const path = disk(dirname(config.audit?.file?.path ?? ''))
      mkdirSync(dirname(path), { recursive: true })
      return { ...config, audit: { ...config.audit, file: { path } } }
    },
  })
  stage = watched.stage
  front = await startFaultProxy({ host: '127.0.0.1', port: stage.port })
})
afterAll(async () => {
  await front?.[Symbol.asyncDispose]()
  await watched?.[Symbol.asyncDispose]()
})

const session = async (through: Stage = stage): Promise<RawClient> =>
  rawSession(through, { token: await stage.token() })

async function leave(client: RawClient): Promise<void> {
  client.send(terminate)
  await client.rest()
}

/** 57P03 for who comes and who is there. Returns in how many milliseconds pgusher noticed. */
async function auditRefuses(running: RawClient, at: number): Promise<number> {
  await eventually(() =>
    session().then(
      (client) => {
        client.socket.destroy()
        return false
      },
      ({ message }: Error) => message.startsWith(REFUSED),
    ),
  )
  const noticed = performance.now() - at
  running.send(query('delete from public.orders'))
  expect(await running.rest()).toEqual([ENDED])
  expect(await stage.admin('select count(*)::int as n from public.orders', 'shop')).toEqual([{ n: 3 }])
  return noticed
}

async function worksAgain(): Promise<void> {
  const client = await eventually(() => session().catch(() => undefined))
  expect(await client.ask(query('select 1'))).toContain('D 1')
  await leave(client)
  await watched.nothingLeft()
}

/** The limit on a file's size stops a write at its exact byte, as a full disk does. */
const limitFiles = (bytes: number | 'unlimited'): void =>
  void execFileSync('prlimit', [`--fsize=${bytes}:unlimited`, '--pid', String(stage.pgusher.child?.pid)])

test('audit disk full: 57P03 for new sessions and at the next statement, and it goes on when there is room', async () => {
  const [running, others] = [await session(), await session()]
  const started = () =>
    readAudit([disk(stage.directory)]).then((all) => all.filter(({ event }) => event === 'session.started'))
  await eventually(async () => (await started()).length >= 4)
  const at = performance.now()
  limitFiles((await stat(disk(stage.directory))).size + 100)
  // The record of this one finds no room.
  expect(await others.ask(query('select 1'))).toContain('D 1')
  expect(await auditRefuses(running, at)).toBeLessThan(AT_ONCE)
  others.socket.destroy()
  limitFiles('unlimited')
  await worksAgain()
})

test('audit directory gone and back: the same, and no record is lost between the two files', async () => {
  const running = await session()
  const at = performance.now()
  const gone = join(stage.directory, 'gone')
  await rename(dirname(disk(stage.directory)), gone)
  aside.push(join(gone, 'audit.jsonl'))
  expect(await auditRefuses(running, at)).toBeLessThan(AT_ONCE)
  await mkdir(dirname(disk(stage.directory)))
  await worksAgain()
})

interface Load {
  /** Round trips so far. */
  readonly rounds: number
  /** Ends each client after its round trip. Resolves with what each was told last. */
  stop(): Promise<(string | undefined)[]>
}

/** Reads up to ReadyForQuery. What the client was told last, where its connection ended before. */
async function answered(client: RawClient): Promise<string | undefined> {
  for (let last = 'end'; ; ) {
    const message = await client.next().catch(() => undefined)
    if (message === undefined) return last
    if (message.type === 'Z') return undefined
    last = shown(message)
  }
}

/** Clients that ask again as soon as they are answered, until they are told to end or are ended. */
async function startLoad(count: number): Promise<Load> {
  let [rounds, going] = [0, true]
  const clients = await Promise.all(Array.from({ length: count }, () => session()))
  const ends = clients.map(async (client, index) => {
    while (going) {
      client.send(
        index % 2 === 0 ? query('select 1; select 2') : Buffer.concat([run('select 3'), run('select 1/0'), sync]),
      )
      const last = await answered(client)
      if (last !== undefined) return last
      rounds++
    }
    await leave(client)
    return undefined
  })
  return {
    get rounds() {
      return rounds
    },
    async stop() {
      going = false
      return Promise.all(ends)
    },
  }
}

test('a reload with a broken file under load changes nothing for anybody', async () => {
  const load = await startLoad(6)
  const good = await readFile(stage.configFile, 'utf8')
  for (const broken of [good.slice(0, 500), good.replace('"version"', '"versoin"'), '', `${good}{`]) {
    await writeFile(stage.configFile, broken)
    expect(await stage.pgusher.reload()).toBe(false)
    const before = load.rounds
    await eventually(async () => load.rounds > before + 20)
    await leave(await session())
  }
  await writeFile(stage.configFile, good)
  expect(await stage.pgusher.reload()).toBe(true)
  expect(await load.stop()).toEqual(Array(6).fill(undefined))
  await watched.nothingLeft()
})

test('clients that vanish, cut off after any number of bytes and in mid COPY, statement and rows, leave nothing', async () => {
  const through = { ...stage, port: front.port }
  const cutOff = async (after: number, how: 'reset' | 'finish'): Promise<void> => {
    front.set('up', { cut: { after, how } })
    const client = await session(through).catch(() => undefined)
    if (client === undefined) return
    client.send(query('create temp table t (a text); copy t from stdin'), copyData('x'.repeat(2_000)))
    await client.rest()
  }
  // One after another: what was set holds for all connections of the proxy.
  for (const after of [0, 1, 7, 8, 60, 300, 700, 900, 1_500, 2_000, 2_400, 4_000]) {
    await cutOff(after, after % 200 === 0 ? 'finish' : 'reset')
  }
  front.heal()
  const clients = await Promise.all(Array.from({ length: 12 }, () => session(through)))
  for (const [index, client] of clients.entries()) {
    if (index % 3 === 0) client.send(query('select pg_sleep(60)'))
    if (index % 3 === 1) client.send(query(`select repeat('x', 1000), generate_series(1, 1000000)`))
    if (index % 3 === 2) client.send(query('create temp table t (a text); copy t from stdin'), copyData('half'))
  }
  await eventually(async () => {
    const rows = await stage.admin(`select 1 from pg_stat_activity where usename like 'pgu\\_%' and state = 'active'`)
    return rows.length === clients.length
  })
  const at = performance.now()
  front.resetAll()
  await watched.nothingLeft()
  expect(performance.now() - at).toBeLessThan(5_000 + AT_ONCE)
})

/** What pgusher tells two jobs whose tokens are good for 200 s and an hour, while its clock is off. */
async function toldByClock(seconds: number): Promise<string[]> {
  const { env } = clockShiftedBy(seconds)
  await using shifted = await startStage({ spawn: true, env, upstream: { server: watched.server, shop: stage.shop } })
  const jobs = [
    { token: await shifted.token('github', {}, { lifeSeconds: 200 }) },
    { token: await shifted.token('gitlab'), user: 'shop_reader' },
  ]
  const told: string[] = []
  for (const job of jobs) {
    const outcome = await rawSession(shifted, job).catch(({ message }: Error) => message)
    if (typeof outcome !== 'string') await leave(outcome)
    told.push(typeof outcome === 'string' ? outcome : 'let in')
  }
  await shifted.waitForNoRoles()
  return told
}

test('a clock that is five minutes off: behind, every token is refused with a reason; ahead, those that would be over then', async () => {
  const [ahead, behind] = await Promise.all([toldByClock(300), toldByClock(-300)])
  expect(ahead).toEqual([expect.stringMatching(/^E 28P01 .*expired/), 'let in'])
  expect(behind).toEqual(Array(2).fill(expect.stringMatching(/^E 28P01 the token is valid only 5 min from now/)))
})

test('SIGTERM under load: each client is told 57P01 behind a whole answer, new ones find nobody, and nothing is left', async () => {
  const { child } = stage.pgusher
  const load = await startLoad(10)
  await eventually(async () => load.rounds > 100)
  const exited = once(child!, 'exit')
  const at = performance.now()
  child?.kill('SIGTERM')
  const told = await load.stop()
  for (const last of told) if (last !== undefined) expect(last).toBe('E 57P01 session ended: pgusher is shutting down')
  expect(await exited).toEqual([0, null])
  expect(performance.now() - at).toBeLessThan(2_000 + AT_ONCE)
  await expect(session()).rejects.toThrow()
  expect(await stage.mintedRoles()).toEqual([])
  const events = await readAudit([...aside, disk(stage.directory)])
  expect(events.map(({ pgusher }) => pgusher.seq)).toEqual(events.map((_, index) => index + 1))
  const named = (name: string) => events.filter(({ event }) => event === name).length
  expect(named('session.ended')).toBe(named('session.started'))
  expect(events.at(-1)?.event).toBe('audit.stopped')
})
