/**
 * Our own cancel keys. The upstream's key never reaches a job: who holds it could cancel past pgusher, and a key that is reused
 * by a pooled connection cancels somebody else's statement.
 */
import { randomBytes, randomInt, timingSafeEqual } from 'node:crypto'

/** 4 bytes up to protocol 3.0; PostgreSQL 18 sends 32 in 3.2, and so do we. */
const KEY_BYTES = { 0: 4, 2: 32 } as const
/** Wrong keys that one address may send in a window before its requests are ignored. */
const MAX_FAILURES = 20
const WINDOW = 60_000
const MAX_ADDRESSES = 10_000

export interface CancelKey {
  processId: number
  key: Buffer
}

export interface CancelKeys<T> {
  /** A key for a session. `forget` must be called before its upstream connection is let go. */
  issue(session: T, minor: number): CancelKey & { forget(): void }
  /** The session whose key this is. Takes the same time for a wrong key as for a right one of the same process id. */
  find(address: string, request: CancelKey): { session: T } | { refused: 'unknown' | 'too_many' }
}

export function createCancelKeys<T>(now: () => number = Date.now): CancelKeys<T> {
  const issued = new Map<number, { key: Buffer; session: T }>()
  const failures = new Map<string, { count: number; until: number }>()

  function freeProcessId(): number {
    for (;;) {
      const processId = randomInt(1, 0x7fffffff)
      if (!issued.has(processId)) return processId
    }
  }

  function failed(address: string): 'unknown' {
    const known = failures.get(address)
    if (known !== undefined && known.until > now()) known.count++
    else {
      if (failures.size >= MAX_ADDRESSES) failures.delete(failures.keys().next().value!)
      failures.set(address, { count: 1, until: now() + WINDOW })
    }
    return 'unknown'
  }

  return {
    issue(session, minor) {
      const processId = freeProcessId()
      const key = randomBytes(minor >= 2 ? KEY_BYTES[2] : KEY_BYTES[0])
      issued.set(processId, { key, session })
      return { processId, key, forget: () => void issued.delete(processId) }
    },
    find(address, request) {
      const known = failures.get(address)
      if (known !== undefined && known.until > now() && known.count >= MAX_FAILURES) return { refused: 'too_many' }
      const candidate = issued.get(request.processId)
      if (candidate === undefined || candidate.key.length !== request.key.length) return { refused: failed(address) }
      if (!timingSafeEqual(candidate.key, request.key)) return { refused: failed(address) }
      return { session: candidate.session }
    },
  }
}
