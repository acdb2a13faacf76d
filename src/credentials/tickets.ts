/** Tickets: short passwords that a job gets for its token, so that it can connect when the token is long over. */
import { AccessError } from '../errors.ts'
import { adminFailure } from './failure.ts'
import type { Minter } from './minter.ts'
import type { TicketCarriers } from './ticket-carriers.ts'
import { jobTag, openTicket, runTag, runTags, sealTicket, type TicketContent } from './ticket-seal.ts'
import {
  endOf,
  formatTicket,
  newTicketParts,
  parseTicket,
  TICKET_LENGTH,
  type TicketParts,
  tagOf,
} from './ticket-text.ts'

export type { TicketContent } from './ticket-seal.ts'
export { TICKET_PREFIX } from './ticket-text.ts'

export interface Tickets {
  /**
   * @returns the ticket itself, of under 100 characters of letters, digits, `-` and `_`
   * @throws AccessError `limit_rate` where the job has too many, `ticket_scope` for a database that can carry none,
   *   `credential_failed`, `upstream_unreachable`
   */
  issue(content: Omit<TicketContent, 'id'>): Promise<{ ticket: string; id: string }>
  /**
   * @throws AccessError `ticket_invalid` (malformed, cut, unknown, given back), `ticket_expired`, `credential_failed`,
   *   `upstream_unreachable`
   */
  redeem(ticket: string): Promise<TicketContent>
  /**
   * From now on the ticket is unknown.
   * @returns what it stood for; undefined where it was over or given back already
   * @throws AccessError `ticket_invalid` for what was never a ticket of ours, `credential_failed`, `upstream_unreachable`
   */
  giveBack(ticket: string): Promise<TicketContent | undefined>
  /** Gives back all tickets of a job. @returns how many. @throws AccessError where one database could not be asked; the others are done */
  giveBackJob(jobKey: string): Promise<number>
  /** The same for all jobs of a run, wherever they got their tickets. @param runUrl with or without the attempt, as a person copied it */
  giveBackRun(runUrl: string): Promise<number>
}

export interface TicketsOptions {
  /** Base64, at least one; the first seals, and each opens. */
  keys(): readonly string[]
  /** Entries of `databases`. */
  aliases(): Iterable<string>
  /** @throws AccessError for an alias that is not configured */
  minterFor(alias: string): Pick<Minter, 'carriers'>
  /** Milliseconds since the epoch. */
  now?: () => number
}

/** A job of a hundred steps may ask in each; one that asks in a loop must not fill the catalog. */
const MOST_OF_JOB = 100

export function createTickets({ keys, aliases, minterFor, now = Date.now }: TicketsOptions): Tickets {
  const decoded = (): [Buffer, ...Buffer[]] => {
    const [first, ...others] = keys().map((key) => Buffer.from(key, 'base64'))
    if (first === undefined) throw new TypeError('tickets need a key')
    return [first, ...others]
  }

  /** Tags of several entries may be equal; what is sealed tells which it is. */
  async function find(parts: TicketParts): Promise<{ content: TicketContent; carriers: TicketCarriers } | undefined> {
    const id = parts.id.toString('hex')
    for (const alias of aliases()) {
      const { carriers } = minterFor(alias)
      if (!tagOf(alias).equals(parts.tag) || carriers === undefined) continue
      const comment = await carriers.read(id).catch(failed(alias, 'a ticket could not be looked up'))
      if (comment?.sealed === undefined) continue
      const content = openTicket(comment.sealed, parts, decoded())
      if (content?.database === alias) return { content, carriers }
    }
    return undefined
  }

  async function giveBackTagged(tags: readonly string[]): Promise<number> {
    const work = [...aliases()].map(async (alias) => {
      const { carriers } = minterFor(alias)
      if (carriers === undefined) return 0
      // Once more: a lock that stood in the way, or a connection that was broken, is no reason to leave a ticket to whoever has it.
      const removed = await carriers
        .removeTagged(tags)
        .catch(() => carriers.removeTagged(tags))
        .catch(failed(alias, 'tickets could not be given back'))
      return removed.length
    })
    const results = await Promise.allSettled(work)
    for (const result of results) if (result.status === 'rejected') throw result.reason
    return results.reduce((sum, result) => sum + (result.status === 'fulfilled' ? result.value : 0), 0)
  }

  return {
    async issue(content) {
      const { database: alias, principal, expiresAt } = content
      const [key, ...others] = decoded()
      const { carriers } = minterFor(alias)
      if (carriers === undefined) throw noCarriers(alias)
      const parts = newTicketParts(alias, expiresAt)
      const id = parts.id.toString('hex')
      const tags = [key, ...others].map((one) => jobTag(principal.jobKey, one))
      const whose = { job: jobTag(principal.jobKey, key), runs: runTags(principal.job, key) }
      const comment = { expiresAt, ...whose, sealed: sealTicket(content, parts, key) }
      const made = await carriers.create(id, comment, tags, MOST_OF_JOB).catch(failed(alias, 'no ticket could be made'))
      if (!made) throw tooMany()
      return { ticket: formatTicket(parts, key), id }
    },
    async redeem(ticket) {
      const parts = parse(ticket, decoded())
      const end = endOf(parts)
      const id = parts.id.toString('hex')
      if (end <= now()) throw expired(id, end)
      const found = await find(parts)
      if (found === undefined) throw unknown(id)
      if (found.content.expiresAt <= now()) throw expired(id, found.content.expiresAt)
      return found.content
    },
    async giveBack(ticket) {
      const found = await find(parse(ticket, decoded()))
      if (found === undefined) return undefined
      const { content, carriers } = found
      const gone = await carriers.remove(content.id).catch(failed(content.database, 'a ticket could not be given back'))
      return gone ? content : undefined
    },
    giveBackJob: (jobKey) => giveBackTagged(decoded().map((key) => jobTag(jobKey, key))),
    giveBackRun: (runUrl) => giveBackTagged(decoded().map((key) => runTag(runUrl, key))),
  }
}

function parse(ticket: string, keys: readonly Buffer[]): TicketParts {
  const parts = parseTicket(ticket, keys)
  if (parts !== undefined) return parts
  const { length } = ticket
  const message =
    length === TICKET_LENGTH
      ? 'this is no ticket of this pgusher: a character was changed, or another one gave it'
      : `this is no whole ticket: it has ${length} characters in place of ${TICKET_LENGTH}`
  throw new AccessError('ticket_invalid', message, { hint: 'Use the ticket as POST /v1/token has answered it.' })
}

function failed(alias: string, what: string): (error: unknown) => never {
  return (error) => {
    throw adminFailure(alias, what, error)
  }
}

/** With the id, by which the audit tells whose it was: somebody may have kept a copy. */
function unknown(id: string): AccessError {
  return new AccessError(
    'ticket_invalid',
    `this ticket is not known any more: it was given back, or its job was ended by the operator (ticket ${id})`,
    { hint: 'Ask for another one with a fresh token of the job.' },
  )
}

function expired(id: string, at: number): AccessError {
  return new AccessError('ticket_expired', `the ticket expired at ${new Date(at).toISOString()} (ticket ${id})`, {
    hint: "Ask for another one with a fresh token of the job; how long a ticket lives is the rule's ticket_life.",
  })
}

function noCarriers(alias: string): AccessError {
  return new AccessError('ticket_scope', `database "${alias}" gives no tickets: its logins are certificates`, {
    hint: 'Use the OIDC token of the job, or pgusher exec, which fetches one for each connection.',
  })
}

function tooMany(): AccessError {
  return new AccessError('limit_rate', `this job has ${MOST_OF_JOB} tickets already, as many as a job may have`, {
    hint: 'Use one ticket for all steps of the job, or give those back that are not used any more: DELETE /v1/token.',
  })
}
