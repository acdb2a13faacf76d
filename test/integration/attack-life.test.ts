/** What a hostile client costs: memory by pipelines, sessions and roles by leaving at a bad moment, the process by signals that fail. */
import { once } from 'node:events'
import { readFile, rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { passwordMessage, sslRequest } from '../../src/wire/frontend.ts'
import { type Stage, startStage } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'
import { approach, dial, parse, query, rawSession, run, startupOf, sync, terminate } from '../support/raw-client.ts'
import { statementsOf } from '../support/statement-events.ts'

const MiB = 1024 * 1024
let stage: Stage
beforeAll(async () => {
  stage = await startStage({ spawn: true })
})
afterAll(() => stage.close())

async function resident(): Promise<number> {
  const status = await readFile(`/proc/${stage.pgusher.child?.pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024
}

async function growthDuring(work: () => Promise<unknown>): Promise<number> {
  const before = await resident()
  let [peak, done] = [before, false]
  const watching = (async () => {
    for (; !done; await delay(20)) peak = Math.max(peak, await resident())
  })()
  await work().finally(() => {
    done = true
    return watching
  })
  return peak - before
}

/** Values of metrics without labels. */
async function gauges(...names: string[]): Promise<number[]> {
  const { httpAddress } = stage.pgusher
  const port = httpAddress.kind === 'tcp' ? httpAddress.port : 0
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
  return names.map((name) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1]))
}

const PADDING = 'x'.repeat(65_000)
/** 650 MB in all. The collector, the caches and the classifier's thread were seen to take up to 330 MiB for a while on a busy machine. */
const TEXTS = 10_000
const MAX_GROWTH = 500
const textOf = (index: number): string => `select ${index} /* ${PADDING} */`

test('texts without an answer: PostgreSQL is made to answer, and the client waits for it', async () => {
  using client = await rawSession(stage, { token: await stage.token() })
  const growth = await growthDuring(async () => {
    const texts = function* () {
      for (let i = 0; i < TEXTS; i++) yield parse('', textOf(i))
    }
    await client.sendAll(texts())
    client.send(sync)
    expect((await client.skipUntil('Z')).counts).toEqual({ '1': TEXTS, Z: 1 })
  })
  expect(growth / MiB).toBeLessThan(MAX_GROWTH)
})

test('texts behind an error, up to a Sync that does not come', async () => {
  using client = await rawSession(stage, { token: await stage.token() })
  const growth = await growthDuring(async () => {
    client.send(parse('', 'selekt'))
    await client.until('E')
    const texts = function* () {
      for (let i = 0; i < TEXTS; i++) yield parse(`p${i}`, textOf(i))
    }
    await client.sendAll(texts())
    client.send(sync)
    await client.until('Z')
  })
  expect(growth / MiB).toBeLessThan(MAX_GROWTH)
})

test('a client that goes at any moment of its login leaves no session, no role and nobody waiting', async () => {
  const token = await stage.token()
  const [before] = await gauges('pgusher_connections_total')
  const leave = async (at: number, how: 'reset' | 'finish'): Promise<void> => {
    if (at < 2) {
      const socket = await dial(stage)
      if (at === 1) socket.write(sslRequest())
      if (how === 'reset') socket.resetAndDestroy()
      else socket.end()
      return
    }
    const client = await approach(stage)
    client.send(startupOf({ token }))
    if (at > 2) client.send(passwordMessage(token))
    // Between two steps that take some milliseconds each.
    if (at > 3) await delay(at)
    client[how]()
    client.socket.resume()
    await Promise.race([once(client.socket, 'close'), delay(5_000)])
  }
  const moments = Array.from({ length: 24 }, (_, at) => at)
  await Promise.all(moments.flatMap((at) => [leave(at, 'reset'), leave(at, 'finish')]))
  await eventually(async () => {
    const [sessions, waiting, connections] = await gauges(
      'pgusher_sessions',
      'pgusher_unauthenticated_connections',
      'pgusher_connections_total',
    )
    return sessions === 0 && waiting === 0 && (connections ?? 0) >= (before ?? 0) + 48
  })
  await stage.waitForNoRoles()
})

test('FIN behind the password and a Query: the answer comes, and then the end', async () => {
  const token = await stage.token()
  using client = await approach(stage)
  client.send(startupOf({ token }), passwordMessage(token), query('select 7'))
  client.finish()
  expect((await client.rest()).slice(-3)).toEqual(['D 7', 'C SELECT 1', 'Z I'])
  expect((await statementsOf(stage, client.port)).map(({ sql }) => sql)).toEqual(['select 7'])
})

test('a hundred sessions that come and go leave no handle', async () => {
  const token = await stage.token()
  const once100 = async (): Promise<void> => {
    for (let round = 0; round < 10; round++) {
      await Promise.all(
        Array.from({ length: 10 }, async () => {
          using client = await rawSession(stage, { token })
          await client.ask(...Array.from({ length: 50 }, () => run('select 1')), sync)
          client.send(terminate)
          await client.rest()
        }),
      )
    }
  }
  await once100()
  const [before] = await gauges('nodejs_active_handles_total')
  await once100()
  await eventually(async () => ((await gauges('nodejs_active_handles_total'))[0] ?? 0) <= (before ?? 0) + 2)
})

test('reloads that overlap, and a rotation without its file, cost nobody a session', async () => {
  const token = await stage.token()
  using client = await rawSession(stage, { token })
  for (let i = 0; i < 5; i++) stage.pgusher.child?.kill('SIGHUP')
  await eventually(async () => (await readFile(stage.logFile, 'utf8')).split('configuration reloaded').length > 1)
  expect(await client.ask(query('select 1'))).toContain('D 1')
  await rm(stage.auditFile)
  stage.pgusher.child?.kill('SIGUSR2')
  expect(await client.ask(query('select 2'))).toContain('D 2')
  client.send(terminate)
  await client.rest()
  // The file is there again, with what came after.
  await eventually(async () => (await stage.events('session.ended').catch(() => [])).length > 0)
  expect(stage.pgusher.child?.exitCode).toBeNull()
})
