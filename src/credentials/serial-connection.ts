/** One connection for many users, one at a time. */
import type pg from 'pg'
import { AccessError } from '../errors.ts'
import { isConnectionFailure } from './failure.ts'

/** Made when it is first needed and again after it broke. */
export interface SerialConnection {
  run<T>(work: (client: pg.Client) => Promise<T>): Promise<T>
  close(): Promise<void>
}

/**
 * @param keep true: a broken connection is made again at once, and then every few seconds until it works; for the connection
 *   that shows the others that we live.
 */
export function serialConnection(connect: () => Promise<pg.Client>, keep: boolean): SerialConnection {
  let current: Promise<pg.Client> | undefined
  let turn: Promise<unknown> = Promise.resolve()
  let retry: NodeJS.Timeout | undefined
  let closed = false
  let wait = 1_000

  const lost = (which: Promise<pg.Client>): void => {
    if (current !== which) return
    current = undefined
    if (!keep || closed) return
    retry = setTimeout(() => void client().catch(() => {}), wait).unref()
    // A wrong password is not tried every second; below the 20 s after which a process without a connection counts as dead.
    wait = Math.min(wait * 2, 10_000)
  }
  const client = (): Promise<pg.Client> => {
    if (current !== undefined) return current
    clearTimeout(retry)
    const made = connect()
    current = made
    made.then(
      (established) => {
        wait = 1_000
        established.once('end', () => {
          lost(made)
          if (keep && !closed) void client().catch(() => {})
        })
      },
      () => lost(made),
    )
    return made
  }
  return {
    run(work) {
      const result = turn.then(async () => {
        if (closed) throw new AccessError('draining', 'pgusher is shutting down')
        const established = await client()
        return work(established).catch((error: unknown) => {
          // Not an answer of PostgreSQL: a query that timed out would leave its late answer to the next one.
          if (isConnectionFailure(error)) void established.end().catch(() => {})
          throw error
        })
      })
      turn = result.catch(() => {})
      return result
    },
    async close() {
      await turn
      closed = true
      clearTimeout(retry)
      const established = await current?.catch(() => undefined)
      await established?.end().catch(() => {})
    },
  }
}
