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

/**
 * Milliseconds that a connection stays unused: one of several, and the last one of a lane. That is longer than the sweeper's interval, which would
 * make its connection anew each time.
 */
const IDLE = { further: 5_000, last: 30_000 }
/** Milliseconds; a wrong password is not tried every second. Below the 20 s after which a process without a connection counts as dead. */
const RETRY = { first: 1_000, last: 10_000 }

/**
 * Milliseconds for which one waits before there is one connection more. A new one costs about 10 ms, and another 10 ms of the server's CPU; a mint
 * takes under 1 ms. On two busy cores 16 mints at once took 13 ms by one connection, and 67 where each opened one.
 */
const PATIENCE = 10

interface Waiting {
  /** By the monotonic clock, as `notBefore`. */
  since: number
  begin(client: pg.Client): void
  fail(error: unknown): void
}

interface Lane extends AdminLane {
  /** Established and being made. */
  readonly size: number
  /** Gives up an unused connection. @returns false where there is none to spare */
  evict(): boolean
  /** Gives up a connection, or the next one that comes back. @returns once it is gone; undefined where there is none to spare */
  giveUp(): Promise<unknown> | undefined
  /** A place is free. */
  pump(): void
  close(): Promise<void>
}

interface LaneOptions {
  connect(): Promise<pg.Client>
  /** One more connection fits. */
  mayGrow(): boolean
  /** Of the other lane, where the server has none for this one. */
  takeOver: Lane['giveUp']
  /** A place is free for the other lane. */
  onFree(): void
  keep: boolean
}

/** @param most connections of both lanes, 2 at least */
export function openAdminPool(connect: () => Promise<pg.Client>, most: number): AdminPool {
  const laneOf = (keep: boolean, other: () => Lane): Lane => {
    const mayGrow = (): boolean => lane.size < most - 1 && (lane.size + other().size < most || other().evict())
    const lane = openLane({ connect, mayGrow, takeOver: () => other().giveUp(), onFree: () => other().pump(), keep })
    return lane
  }
  const minting: Lane = laneOf(true, () => cleaning)
  const cleaning: Lane = laneOf(false, () => minting)
  const close = async (): Promise<void> => void (await Promise.all([minting.close(), cleaning.close()]))
  return { minting, cleaning, close }
}

function openLane({ connect, mayGrow, takeOver, onFree, keep }: LaneOptions): Lane {
  const waiting: Waiting[] = []
  /** The one that was used last is used next, so that those beyond need end by their time. */
  const idle: { client: pg.Client; timer: NodeJS.Timeout }[] = []
  const members = new Set<pg.Client>()
  const running = new Set<Promise<unknown>>()
  /** Connections being made, and being given up. */
  const pending = new Set<Promise<unknown>>()
  let opening = 0
  let wait = RETRY.first
  /** No further connection before that, after one could not be made. */
  let notBefore = 0
  let again: NodeJS.Timeout | undefined
  let growth: NodeJS.Timeout | undefined
  let closing = false
  /** The other lane waits for one of ours. */
  let owed: PromiseWithResolvers<unknown> | undefined

  const pump = (): void => {
    while (waiting.length > 0) {
      const free = idle.pop()
      if (free === undefined) break
      clearTimeout(free.timer)
      waiting.shift()?.begin(free.client)
    }
    clearTimeout(growth)
    const [first] = waiting
    if (first === undefined || opening > 0) return
    const delay = members.size === 0 ? 0 : Math.max(first.since + PATIENCE, notBefore) - performance.now()
    if (delay > 0) growth = setTimeout(pump, delay).unref()
    else if (mayGrow()) open()
  }
  const open = (): void => {
    clearTimeout(again)
    opening++
    hold(connect().then(opened, notOpened))
  }
  const hold = (what: Promise<unknown>): void => {
    const held: Promise<unknown> = what.finally(() => pending.delete(held))
    pending.add(held)
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
    settle(undefined)
    const room = members.size + opening === 0 && waiting.length > 0 ? takeOver() : undefined
    if (room !== undefined) return void room.then(pump)
    if (members.size + opening === 0) {
      for (const one of waiting.splice(0)) one.fail(error)
      reopenLater()
    }
    pump()
    onFree()
  }
  const reopenLater = (): void => {
    if (!keep || closing) return
    clearTimeout(again)
    again = setTimeout(() => members.size + opening === 0 && open(), wait).unref()
    wait = Math.min(wait * 2, RETRY.last)
  }
  /** @returns once it is gone; undefined where it was given up before */
  const end = (client: pg.Client): Promise<unknown> | undefined => {
    if (!members.delete(client)) return undefined
    const at = idle.findIndex((one) => one.client === client)
    if (at >= 0) clearTimeout(idle.splice(at, 1)[0]?.timer)
    const gone = client.end().catch(() => {})
    hold(gone)
    settle(gone)
    return gone
  }
  const settle = (gone: Promise<unknown> | undefined): void => {
    owed?.resolve(gone)
    owed = undefined
  }
  /** It is nobody's any more; those who wait may have a new one. */
  const lost = (client: pg.Client): void => {
    if (end(client) === undefined) return
    pump()
    if (keep && !closing && members.size + opening === 0) open()
    onFree()
  }
  const giveBack = (client: pg.Client): void => {
    if (!members.has(client)) return
    if (owed !== undefined && members.size > 1) {
      lost(client)
      return
    }
    const since = performance.now()
    const expire = (): void => {
      const stays = members.size === 1 && (keep || performance.now() - since < IDLE.last)
      if (stays) timer.refresh()
      else lost(client)
    }
    const timer = setTimeout(expire, IDLE.further).unref()
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
      waiting.push({ since: performance.now(), begin: resolve, fail: reject })
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
      return unused !== undefined && end(unused.client) !== undefined
    },
    giveUp() {
      if (members.size + opening < 2) return undefined
      notBefore = performance.now() + RETRY.first
      const unused = members.size < 2 ? undefined : idle[0]
      if (unused !== undefined) return end(unused.client)
      owed ??= Promise.withResolvers()
      return owed.promise
    },
    pump,
    async close() {
      closing = true
      clearTimeout(again)
      // Those that wait are served first.
      await Promise.all(running)
      await Promise.all(pending)
      const ends = [...members].map((client) => client.end().catch(() => {}))
      for (const { timer } of idle.splice(0)) clearTimeout(timer)
      await Promise.all(ends)
    },
  }
}
