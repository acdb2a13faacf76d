/** Tickets: short passwords that a job gets for its token, so that it can connect when the token is long over. */
import type { Principal } from '../identity/principal.ts'

/** What a ticket stands for. */
export interface TicketContent {
  /** The ticket's public part: in events and logs, and worth nothing without the rest. */
  id: string
  principal: Principal
  rule: string
  /** Entry of `databases`. */
  database: string
  role: string
  /** The only address that may use it; undefined where any may. */
  address: string | undefined
  /** Milliseconds since the epoch. */
  issuedAt: number
  expiresAt: number
}

export interface Tickets {
  /** @returns the ticket itself, of under 100 characters of letters, digits, `-` and `_`. @throws AccessError `credential_failed`, `upstream_unreachable` */
  issue(content: Omit<TicketContent, 'id'>): Promise<{ ticket: string; id: string }>
  /**
   * @param alias the entry of `databases` that the client asks for
   * @throws AccessError `ticket_invalid` (malformed, cut, unknown, given back), `ticket_expired`, `ticket_scope` (for another
   *   database), `credential_failed`, `upstream_unreachable`
   */
  redeem(ticket: string, alias: string): Promise<TicketContent>
  /** From now on the ticket is unknown. @returns what it stood for. @throws AccessError as `redeem` */
  giveBack(ticket: string): Promise<TicketContent>
  /** Gives back all tickets of a job. @returns how many */
  giveBackJob(jobKey: string): Promise<number>
  close(): Promise<void>
}

/** By this alone a ticket and a token are told apart. */
export const TICKET_PREFIX = 'pgut_'
