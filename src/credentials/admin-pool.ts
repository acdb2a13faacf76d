/**
 * A few connections of the admin in two lanes, minting and cleaning, each with one at least that the other never takes: a session
 * that takes its time to end delays no mint, and mints in plenty delay no clean-up for good.
 */
import type pg from 'pg'
import { AccessError } from '../errors.ts'
import { isConnectionFailure } from './failure.ts'

export interface AdminLane {
  /**
   * On a connection that nobody else has meanwhile.
   * @throws what `work` throws; the error of connecting where the lane has no connection; AccessError `draining` after `close`
   */
  run<T>(work: (client: pg.Client) => Promise<T>): Promise<T>
}

export interface AdminPool {
  /** Keeps one connection for good, which shows the others that we live: a broken one is made again at once, then every few seconds. */
  minting: AdminLane
  cleaning: AdminLane
  /** When what runs is over. */
  close(): Promise<void>
}

/** Milliseconds that a connection stays unused. Longer than the sweeper's interval, which would make its connection anew each time. */
const IDLE = 30_000
/** Milliseconds; a wrong password is not tried every second. Below the 20 s after which a process without a connection counts as dead. */
const RETRY = { first: 1_000, last: 10_000 }

interface Waiting {
  begin(client: pg.Client): void
  fail(error: unknown): void
}

interface Lane extends AdminLane {
  /** Established and being made. */
  readonly size: number
  /** Gives up a connection that nobody uses. */
  evict(): boolean
  /** A place is free. */
  pump(): void
  close(): Promise<void>
}

interface LaneOptions {
  connect(): Promise<pg.Client>
  /** One more connection fits. */
  mayGrow(): boolean
  /** A place is free for the other lane. */
  onFree(): void
  keep: boolean
}

/** @param most connections of both lanes, 2 at least */
export function openAdminPool(connect: () => Promise<pg.Client>, most: number): AdminPool {
  const laneOf = (keep: boolean, other: () => Lane): Lane => {
    const mayGrow = (): boolean => lane.size < most - 1 && (lane.size + other().size < most || other().evict())
    const lane = openLane({ connect, mayGrow, onFree: () => other().pump(), keep })
    return lane
  }
  const minting: Lane = laneOf(true, () => cleaning)
  const cleaning: Lane = laneOf(false, () => minting)
  const close = async (): Promise<void> => void (await Promise.all([minting.close(), cleaning.close()]))
  return { minting, cleaning, close }
}

function openLane({ connect, mayGrow, onFree, keep }: LaneOptions): Lane {
  const waiting: Waiting[] = []
  /** The one that was used last is used next, so that those beyond need end by their time. */
  const idle: { client: pg.Client; timer: NodeJS.Timeout }[] = []
  const members = new Set<pg.Client>()
  const running = new Set<Promise<unknown>>()
  const making = new Set<Promise<unknown>>()
  let opening = 0
  let wait = RETRY.first
  /** By the monotonic clock: no further connection before that, after one could not be made. */
  let notBefore = 0
  let again: NodeJS.Timeout | undefined
  let closing = false

  const pump = (): void => {
    while (waiting.length > 0) {
      const free = idle.pop()
      if (free === undefined) break
      clearTimeout(free.timer)
      waiting.shift()?.begin(free.client)
    }
    while (waiting.length > opening && (members.size + opening === 0 || performance.now() >= notBefore) && mayGrow())
      open()
  }
  const open = (): void => {
    clearTimeout(again)
    opening++
    const made: Promise<unknown> = connect()
      .then(opened, notOpened)
      .finally(() => making.delete(made))
    making.add(made)
  }
  const opened = (client: pg.Client): void => {
    opening--
    wait = RETRY.first
    members.add(client)
    client.once('end', () => lost(client))
    giveBack(client)
  }
  const notOpened = (error: unknown): void => {
    opening--
    notBefore = performance.now() + RETRY.first
    if (members.size + opening === 0) {
      for (const one of waiting.splice(0)) one.fail(error)
      reopenLater()
    }
    onFree()
  }
  const reopenLater = (): void => {
    if (!keep || closing) return
    clearTimeout(again)
    again = setTimeout(() => members.size + opening === 0 && open(), wait).unref()
    wait = Math.min(wait * 2, RETRY.last)
  }
  const end = (client: pg.Client): boolean => {
    if (!members.delete(client)) return false
    const at = idle.findIndex((one) => one.client === client)
    if (at >= 0) clearTimeout(idle.splice(at, 1)[0]?.timer)
    void client.end().catch(() => {})
    return true
  }
  /** It is nobody's any more; those who wait may have a new one. */
  const lost = (client: pg.Client): void => {
    if (!end(client) || closing) return
    pump()
    if (keep && members.size + opening === 0) open()
    onFree()
  }
  const giveBack = (client: pg.Client): void => {
    if (!members.has(client)) return
    const expire = (): void => {
      if (keep && members.size === 1) timer.refresh()
      else lost(client)
    }
    const timer = setTimeout(expire, IDLE).unref()
    idle.push({ client, timer })
    pump()
    if (waiting.length === 0) onFree()
  }
  const use = async <T>(client: pg.Client, work: (client: pg.Client) => Promise<T>): Promise<T> => {
    try {
      return await work(client)
    } catch (error) {
      // Not an answer of PostgreSQL: a query that timed out would leave its late answer to the next one.
      if (isConnectionFailure(error)) lost(client)
      throw error
    } finally {
      giveBack(client)
    }
  }
  return {
    run(work) {
      if (closing) return Promise.reject(new AccessError('draining', 'pgusher is shutting down'))
      const { promise, resolve, reject } = Promise.withResolvers<pg.Client>()
      waiting.push({ begin: resolve, fail: reject })
      const result = promise.then((client) => use(client, work))
      const over: Promise<unknown> = result.catch(() => {}).finally(() => running.delete(over))
      running.add(over)
      pump()
      return result
    },
    get size() {
      return members.size + opening
    },
    evict() {
      const unused = keep && members.size === 1 ? undefined : idle[0]
      return unused !== undefined && end(unused.client)
    },
    pump,
    async close() {
      closing = true
      clearTimeout(again)
      // Those that wait are served first; what is still being made then has come or failed.
      await Promise.all(running)
      await Promise.all(making)
      const ends = [...members].map((client) => client.end().catch(() => {}))
      for (const { timer } of idle.splice(0)) clearTimeout(timer)
      await Promise.all(ends)
    },
  }
}
