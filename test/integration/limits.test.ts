/** Large values, long results, clients that do not read, and messages that are none: what they cost and what is said. */
import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { cstring, frame, int16, int32 } from '../../src/wire/writer.ts'
import { type Stage, startStage } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'
import {
  bind,
  copyData,
  copyDone,
  execute,
  parse,
  query,
  type RawClient,
  rawSession,
  sync,
  terminate,
} from '../support/raw-client.ts'
import { endOf, statementsOf } from '../support/statement-events.ts'

const MiB = 1024 * 1024
let stage: Stage
beforeAll(async () => {
  // A process of its own, whose memory is its own.
  stage = await startStage({ spawn: true })
})
afterAll(() => stage.close())

const session = async (): Promise<RawClient> => rawSession(stage, { token: await stage.token() })

/** Resident memory of pgusher in bytes. */
async function resident(): Promise<number> {
  const status = await readFile(`/proc/${stage.pgusher.child?.pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024
}

/** The most that it took during `work`, over what it took before. */
async function growthDuring(work: () => Promise<unknown>): Promise<number> {
  const before = await resident()
  let [peak, done] = [before, false]
  const watching = (async () => {
    for (; !done; await delay(20)) peak = Math.max(peak, await resident())
  })()
  await work()
  done = true
  await watching
  return peak - before
}

test('a value of 300 MB in and out, and a result of 100 MB, in bounded memory', async () => {
  using client = await session()
  const size = 300 * MiB
  const growth = await growthDuring(async () => {
    const head = bind('', '', ['x'])
    // A Bind of one parameter of that size, sent in parts.
    const part = Buffer.alloc(MiB, 'v')
    const prefix = Buffer.concat([cstring(''), cstring(''), int16(0), int16(1), int32(size)])
    const header = Buffer.concat([head.subarray(0, 1), int32(4 + prefix.length + size + 2), prefix])
    await client.sendAll([parse('', 'select length($1)'), header, ...Array<Buffer>(300).fill(part), int16(0)])
    expect(await client.ask(execute(''), sync)).toEqual(['1', '2', `D ${size}`, 'C SELECT 1', 'Z I'])
    client.send(query(`select repeat('v', ${size})`))
    const value = await client.skipUntil('Z')
    expect(value.counts).toEqual({ T: 1, D: 1, C: 1, Z: 1 })
    expect(value.bytes).toBeGreaterThan(size)
    client.send(query(`select repeat('r', 1000), generate_series(1, 100000)`))
    expect((await client.skipUntil('Z')).counts).toEqual({ T: 1, D: 100_000, C: 1, Z: 1 })
  })
  // Of 700 MB that passed. The collector is in no hurry on a busy machine: 170 MiB were seen.
  expect(growth / MiB).toBeLessThan(300)
  client.send(terminate)
  await client.rest()
  const [first, second, third] = await statementsOf(stage, client.port)
  expect(first).toMatchObject({ sql: 'select length($1)', outcome: 'success', rows: 1 })
  expect(first?.requestBytes).toBeGreaterThan(size)
  expect(second).toMatchObject({ outcome: 'success', rows: 1 })
  expect(second?.responseBytes).toBeGreaterThan(size)
  expect(third).toMatchObject({ outcome: 'success', rows: 100_000 })
})

test('a statement longer than is kept: whole at PostgreSQL, cut and hashed in the audit', async () => {
  using client = await session()
  const sql = `select length('${'y'.repeat(3 * MiB)}')`
  expect(await client.ask(query(sql))).toContain(`D ${3 * MiB}`)
  expect(await client.ask(parse('', sql), bind('', ''), execute(''), sync)).toContain(`D ${3 * MiB}`)
  client.send(terminate)
  await client.rest()
  await statementsOf(stage, client.port)
  const events = await stage.events(
    (event) => event.event === 'statement' && (event['client'] as { port: number }).port === client.port,
  )
  expect(events.map(({ pgusher }) => pgusher['query'])).toMatchObject(
    Array(2).fill({ truncated: true, length_bytes: sql.length }),
  )
  const hashes = new Set(events.map(({ pgusher }) => (pgusher['query'] as { sha256: string }).sha256))
  expect(hashes.size).toBe(1)
})

test('invariant 27: clients that do not read cost at most 2 MiB each', async () => {
  const count = 30
  const clients = await Promise.all(Array.from({ length: count }, session))
  const growth = await growthDuring(async () => {
    for (const client of clients) client.send(query(`select repeat('x', 1000), generate_series(1, 1000000)`))
    // Every backend waits for somebody to read.
    await eventually(async () => {
      const waiting = await stage.admin(
        `select 1 from pg_stat_activity where usename like 'pgu\\_%' and wait_event = 'ClientWrite'`,
      )
      return waiting.length === count
    })
    await delay(200)
  })
  expect(growth / MiB / count).toBeLessThan(2)
  // They go on where they stopped.
  expect((await clients[0]?.skipUntil('Z'))?.counts['D']).toBe(1_000_000)
  for (const client of clients) client.reset()
  await Promise.all(clients.map(({ port }) => endOf(stage, port)))
})

test('a PostgreSQL that does not read stops the client, and not the memory of pgusher', async () => {
  using client = await session()
  using lock = await session()
  await lock.ask(query('create table public.slow (a text)'))
  await lock.ask(query('begin; lock table public.slow'))
  const growth = await growthDuring(async () => {
    const lines = Buffer.alloc(MiB, `${'z'.repeat(99)}\n`)
    const sending = client.sendAll([
      query('copy public.slow from stdin'),
      ...Array<Buffer>(60).fill(copyData(lines)),
      copyDone,
    ])
    await eventually(async () => {
      const rows = await stage.admin(`select 1 from pg_stat_activity where wait_event_type = 'Lock'`)
      return rows.length > 0 && client.socket.writableNeedDrain
    })
    await delay(300)
    await lock.ask(query('commit'))
    await sending
  })
  expect((await client.until('Z')).slice(-2)).toEqual([expect.stringMatching(/^C COPY \d+$/), 'Z I'])
  expect(growth / MiB).toBeLessThan(60)
  await lock.ask(query('drop table public.slow'))
})

const MALFORMED: readonly [string, Buffer][] = [
  ['an unknown type', frame(0x7a, Buffer.from('?'))],
  ['a message of a backend', frame(0x5a, Buffer.from('I'))],
  ['a password in the middle of a session', frame(0x70, cstring('secret'))],
  ['a Query without a NUL', frame(0x51, Buffer.from('select 1'))],
  ['an empty Query', frame(0x51)],
  ['a Query with a NUL inside', frame(0x51, Buffer.from('select 1\0; drop table public.orders\0'))],
  ['a Parse whose text does not end', frame(0x50, Buffer.from('\0select 1'))],
  ['a Bind whose names do not end', frame(0x42, Buffer.from('portal'))],
  ['an Execute that is too short', frame(0x45, Buffer.from('\0\0'))],
  ['a Close without an end', frame(0x43, Buffer.from('Sname'))],
  ['a FunctionCall that is too short', frame(0x46, Buffer.from([0, 0]))],
  ['a length of 3', Buffer.from([0x51, 0, 0, 0, 3])],
  ['a negative length', Buffer.from([0x51, 0xff, 0xff, 0xff, 0xff])],
  ['a length over a gigabyte', Buffer.from([0x51, 0x40, 0, 0, 4])],
  ['a Sync of 20 kB', Buffer.concat([Buffer.from([0x53, 0, 0, 0x4e, 0x24]), Buffer.alloc(20_000)])],
]

test.each(MALFORMED)(
  'invariant 6: %s ends the session with 08P01, an event, and nothing executed behind it',
  async (_what, bytes) => {
    using client = await session()
    // In one segment with a good statement before and a bad one behind.
    client.send(query('select 1'), bytes, query('drop table public.orders'))
    const told = await client.rest()
    expect(told.at(-1)).toMatch(/^E 08P01 protocol violation: /)
    const ended = await endOf(stage, client.port)
    expect(ended).toMatchObject({
      pgusher: { end_reason: 'protocol', outcome: 'failure' },
      db: { response: { status_code: '08P01' } },
    })
    const statements = await statementsOf(stage, client.port)
    expect(statements.map(({ sql }) => sql)).toEqual(['select 1'])
    const violations = await stage.events(
      (event) => event.event === 'protocol.violation' && (event['client'] as { port: number }).port === client.port,
    )
    expect(violations).toHaveLength(1)
    expect(JSON.stringify(violations)).not.toContain('secret')
  },
)

test('none of it dropped the table, and no role is left', async () => {
  expect(await stage.admin('select count(*)::int as n from public.orders', 'shop')).toEqual([{ n: 3 }])
  await stage.waitForNoRoles()
})
