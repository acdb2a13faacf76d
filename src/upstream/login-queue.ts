/**
 * How many logins at one PostgreSQL are under way at once; the others wait in turn. A thousand at once, each a process that PostgreSQL
 * forks, are all slow together: on a busy machine they ran into `connect_timeout`, a quarter of them (measured), where one after the
 * other each takes milliseconds.
 */
import type { UpstreamTarget } from './failure.ts'

export const LOGINS_AT_ONCE = 64

export interface LoginQueue {
  /** @returns what gives the place back. @throws the signal's reason when that is aborted first. */
  enter(signal: AbortSignal | undefined): Promise<() => void>
}

export function createLoginQueue(places = LOGINS_AT_ONCE): LoginQueue {
  /** In their order. */
  const waiting = new Set<() => void>()
  let taken = 0

  function leave(): void {
    taken--
    for (const next of waiting) {
      waiting.delete(next)
      next()
      return
    }
  }

  /** Gives its place back once. */
  function take(): () => void {
    taken++
    let left = false
    return () => {
      if (!left) leave()
      left = true
    }
  }

  return {
    enter(signal) {
      if (signal?.aborted) return Promise.reject(signal.reason)
      if (taken < places) return Promise.resolve(take())
      return new Promise((resolve, reject) => {
        const abort = (): void => {
          waiting.delete(next)
          reject(signal?.reason)
        }
        const next = (): void => {
          signal?.removeEventListener('abort', abort)
          resolve(take())
        }
        waiting.add(next)
        signal?.addEventListener('abort', abort, { once: true })
      })
    },
  }
}

const queues = new WeakMap<UpstreamTarget['config'], LoginQueue>()

/** Of one entry of `databases`. */
export function loginQueueOf({ config }: UpstreamTarget): LoginQueue {
  const known = queues.get(config)
  if (known !== undefined) return known
  const queue = createLoginQueue()
  queues.set(config, queue)
  return queue
}
