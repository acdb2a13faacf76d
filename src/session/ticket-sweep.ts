/** Clears away what is left of tickets whose time is over; whose they were does not matter. */
import { messageOf } from '../credentials/failure.ts'
import type { Minter } from '../credentials/minter.ts'
import type { Logger } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'

export interface TicketSweepOptions {
  aliases(): Iterable<string>
  minterFor(alias: string): Minter
  metrics: Pick<Metrics, 'ticket'>
  log: Logger
}

/** Never rejects. */
export function createTicketSweep({ aliases, minterFor, metrics, log }: TicketSweepOptions): () => Promise<void> {
  /** Said once. */
  const stuck = new Set<string>()
  return async () => {
    for (const alias of aliases()) {
      try {
        const swept = await minterFor(alias).carriers?.removeExpired(Date.now())
        if (swept === undefined) continue
        if (swept.removed.length > 0) metrics.ticket('expired', swept.removed.length)
        for (const { id, reason } of swept.failed) {
          if (stuck.has(id)) continue
          stuck.add(id)
          log.warn({ ticket: id, database: alias, reason }, 'a ticket is over, and its role cannot be dropped')
        }
      } catch (error) {
        log.warn({ database: alias, reason: messageOf(error) }, 'expired tickets: not looked for')
      }
    }
  }
}
