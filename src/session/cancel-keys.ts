/**
 * Our own cancel keys. The upstream's key never reaches a job: who holds it could cancel past pgusher, and a key that is reused
 * by a pooled connection cancels somebody else's statement.
 */
import { randomFillSync, randomInt, timingSafeEqual } from 'node:crypto'
import { ownBytes } from '../wire/own-bytes.ts'

/** 4 bytes up to protocol 3.0; PostgreSQL 18 sends 32 in 3.2, and so do we. */
const KEY_BYTES = { 0: 4, 2: 32 } as const
/** Wrong keys that one address may send in a window before its requests are ignored. */
const MAX_FAILURES = 20
const WINDOW = 60_000
const MAX_ADDRESSES = 10_000
/** Processes that may share a port; the process id of a key says which of them issued it. */
export const PLACES = 64

export interface CancelKey {
  processId: number
  key: Buffer
}

export type CancelOutcome = 'cancelled' | 'unknown' | 'too_many'

/** The keys that this process has issued. */
export interface KeyTable<T> {
  /** A key for a session. `forget` must be called before its upstream connection is let go. */
  issue(session: T, minor: number): CancelKey & { forget(): void }
  /** The session whose key this is. Takes the same time for a wrong key as for a right one of the same process id. */
  find(request: CancelKey): T | undefined
}

/** Random bytes drawn in stock: a draw costs 5 µs whatever its length, as much as a new session's record. Each is given out once. */
const stock = Buffer.alloc(4_096)
let given = stock.length

function randomKey(length: number): Buffer {
  if (given + length > stock.length) {
    randomFillSync(stock)
    given = 0
  }
  const key = ownBytes(stock.subarray(given, given + length))
  stock.fill(0, given, given + length)
  given += length
  return key
}

/** @param place of this process among those that share the port, below `PLACES` */
export function createKeyTable<T>(place = 0): KeyTable<T> {
  const issued = new Map<number, { key: Buffer; session: T }>()

  function freeProcessId(): number {
    for (;;) {
      const processId = randomInt(1, 0x80000000 / PLACES) * PLACES + place
      if (!issued.has(processId)) return processId
    }
  }

  return {
    issue(session, minor) {
      const processId = freeProcessId()
      const key = randomKey(minor >= 2 ? KEY_BYTES[2] : KEY_BYTES[0])
      issued.set(processId, { key, session })
      return { processId, key, forget: () => void issued.delete(processId) }
    },
    find(request) {
      const candidate = issued.get(request.processId)
      if (candidate === undefined || candidate.key.length !== request.key.length) return undefined
      return timingSafeEqual(candidate.key, request.key) ? candidate.session : undefined
    },
  }
}

/** Which process has issued a key of this process id. */
export const placeOf = (processId: number): number => (processId >>> 0) % PLACES

/**
 * Passes requests on, as long as an address has not been wrong too often. How many it has under way at once is bounded by the
 * listener's cap on its connections.
 * @param cancel resolves with false where no session has the key
 * @param now milliseconds since the epoch
 */
export function createCancelDesk(
  cancel: (request: CancelKey) => Promise<boolean>,
  now: () => number = Date.now,
): (address: string, request: CancelKey) => Promise<CancelOutcome> {
  const failures = new Map<string, { count: number; until: number }>()

  function failed(address: string): void {
    const known = failures.get(address)
    if (known !== undefined && known.until > now()) known.count++
    else {
      if (failures.size >= MAX_ADDRESSES) failures.delete(failures.keys().next().value!)
      failures.set(address, { count: 1, until: now() + WINDOW })
    }
  }

  return async (address, request) => {
    const known = failures.get(address)
    if (known !== undefined && known.until > now() && known.count >= MAX_FAILURES) return 'too_many'
    if (await cancel(request)) return 'cancelled'
    failed(address)
    return 'unknown'
  }
}
