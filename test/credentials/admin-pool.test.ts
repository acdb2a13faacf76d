/** Who gets which of the admin's connections, with connections that do nothing and a clock that is moved by hand; PostgreSQL's are in test/integration. */
import { EventEmitter } from 'node:events'
import type pg from 'pg'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type AdminLane, type AdminPool, openAdminPool } from '../../src/credentials/admin-pool.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

interface Server {
  pool: AdminPool
  open: Set<pg.Client>
  /** Connections that were ever made. */
  made: number
  /** How many it accepts. */
  limit: number
}

function serverOf(most = 4): Server {
  const connect = async (): Promise<pg.Client> => {
    if (server.open.size >= server.limit)
      throw Object.assign(new Error('too many connections'), { code: 'ECONNREFUSED' })
    const events = new EventEmitter()
    const client = Object.assign(events, {
      async end() {
        if (server.open.delete(client)) events.emit('end')
      },
    }) as unknown as pg.Client
    server.open.add(client)
    server.made++
    return client
  }
  const server: Server = { pool: openAdminPool(connect, most), open: new Set(), made: 0, limit: 100 }
  return server
}

/** Work that lasts until it is told to end. */
function begin(lane: AdminLane): { end(): void; over: Promise<pg.Client>; client(): pg.Client | undefined } {
  const { promise, resolve } = Promise.withResolvers<void>()
  let used: pg.Client | undefined
  const over = lane.run(async (client) => {
    used = client
    await promise
    return client
  })
  over.catch(() => {})
  return { end: resolve, over, client: () => used }
}

const tick = (milliseconds = 0): Promise<unknown> => vi.advanceTimersByTimeAsync(milliseconds)

test('one connection serves many that are quick, and a further one is made for who waits', async () => {
  const { pool, open } = serverOf()
  await Promise.all(Array.from({ length: 50 }, () => pool.minting.run(async () => {})))
  expect(open.size).toBe(1)
  const jobs = Array.from({ length: 9 }, () => begin(pool.minting))
  await tick(9)
  expect(open.size).toBe(1)
  await tick(100)
  // The last of the four is for the other lane.
  expect(open.size).toBe(3)
  const cleaning = begin(pool.cleaning)
  await tick()
  expect([open.size, cleaning.client() !== undefined]).toEqual([4, true])
  for (const job of [...jobs, cleaning]) job.end()
  await Promise.all([...jobs, cleaning].map(({ over }) => over))
})

test('removals that hang leave one for minting, and the first mint need not wait for it', async () => {
  const { pool, open } = serverOf(2)
  const hanging = Array.from({ length: 5 }, () => begin(pool.cleaning))
  await tick(1_000)
  expect(open.size).toBe(1)
  expect(await pool.minting.run(async () => 'minted')).toBe('minted')
  for (const job of hanging) job.end()
})

test('what is not needed any more goes after 5 s, the last for removals after 30 s, and the last for minting stays', async () => {
  const { pool, open } = serverOf()
  const jobs = [...Array.from({ length: 3 }, () => begin(pool.minting)), begin(pool.cleaning)]
  await tick(100)
  expect(open.size).toBe(4)
  for (const job of jobs) job.end()
  await tick(5_100)
  expect(open.size).toBe(2)
  await tick(30_000)
  expect(open.size).toBe(1)
  await tick(3_600_000)
  expect(open.size).toBe(1)
})

test('the one that shows that we live is made again when it breaks', async () => {
  const server = serverOf()
  const { pool, open } = server
  await pool.minting.run(async () => {})
  server.limit = 0
  for (const client of open) await client.end()
  await tick(5_000)
  server.limit = 1
  await tick(10_000)
  expect(open.size).toBe(1)
})

test('a connection that broke is not given to the next one', async () => {
  const { pool } = serverOf()
  let broken: pg.Client | undefined
  const first = pool.cleaning.run((client) => {
    broken = client
    return Promise.reject(new Error('Query read timeout'))
  })
  await expect(first).rejects.toThrow('Query read timeout')
  const next = await pool.cleaning.run(async (client) => client)
  expect(next).not.toBe(broken)
  const again = await pool.cleaning.run(() => Promise.reject(new Error('no such role'))).catch(() => 'told')
  expect([again, await pool.cleaning.run(async (client) => client)]).toEqual(['told', next])
})

test('where the server has fewer, the lane without any takes over one of the other, and who cannot have one is told', async () => {
  const server = serverOf()
  const { pool, open } = server
  server.limit = 2
  const [mint, other] = [begin(pool.minting), begin(pool.minting)]
  await tick(100)
  expect(open.size).toBe(2)
  const removal = begin(pool.cleaning)
  await tick(100)
  expect(removal.client()).toBeUndefined()
  other.end()
  await tick(100)
  expect([removal.client() !== undefined, open.size]).toEqual([true, 2])
  removal.end()
  await removal.over
  mint.end()
  server.limit = 0
  for (const client of open) await client.end()
  await expect(pool.cleaning.run(async () => {})).rejects.toThrow('too many connections')
})

test('closed, it serves those that wait, and nobody after them', async () => {
  const { pool, open } = serverOf()
  const jobs = Array.from({ length: 6 }, () => begin(pool.cleaning))
  await tick(100)
  let closed = false
  const closing = pool.close().then(() => {
    closed = true
  })
  await expect(pool.minting.run(async () => {})).rejects.toMatchObject({ code: 'draining' })
  await tick(100)
  expect(closed).toBe(false)
  for (const job of jobs) job.end()
  await closing
  await Promise.all(jobs.map(({ over }) => over))
  await tick(60_000)
  expect(open.size).toBe(0)
})
