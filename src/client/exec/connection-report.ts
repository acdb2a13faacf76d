/** What became of the command's connections, said on stderr once for each reason: a pool tries again and again. */
import { printable } from '../../config/quote.ts'
import type { AccessError } from '../../errors.ts'
import type { OwnIdentity } from '../claims.ts'
import type { Request } from '../local/local-connection.ts'
import type { ServerRefusal } from '../local/server-session.ts'
import { refusalFromFields, refusalText, withoutDenialId } from '../refusal.ts'

/** Reasons that are said; a command that finds more of them has its own words. */
const MAX_SAID = 20

export interface ConnectionReport {
  refused(refusal: ServerRefusal, request: Request): void
  failed(error: AccessError, request: Request): void
  /** The last token is used again since there is no new one. */
  stale(error: AccessError): void
}

/** @param until when it is over the command has ended, and what becomes of its connections is of no interest */
export function createConnectionReport(
  identity: OwnIdentity | undefined,
  say: (text: string) => void,
  until: AbortSignal,
): ConnectionReport {
  const said = new Set<string>()

  function once(reason: string, text: () => string): void {
    if (until.aborted || said.has(reason) || said.size >= MAX_SAID) return
    said.add(reason)
    say(text())
  }

  return {
    refused({ fields }, request) {
      const refusal = refusalFromFields(fields)
      const reason = JSON.stringify([request, refusal.sqlstate, withoutDenialId(refusal.message)])
      once(reason, () => refusalText(refusal, { ...request, identity }))
    },
    failed({ message }, { database }) {
      once(message, () => `pgusher: no connection to database ${printable(database)}: ${printable(message)}\n`)
    },
    stale({ message }) {
      once(message, () => `pgusher: the last token is used once more, as there is no new one: ${printable(message)}\n`)
    },
  }
}
