/** A ticket for the token that a job has, where pgusher and the job's rule give one. */
import type { PresetName } from '../config/schema.ts'
import { AccessError } from '../errors.ts'
import { ApiUnavailable, type ServerApi, type Ticket } from './server-api.ts'

export type FirstTicket = { ticket: Ticket; why?: undefined } | { ticket: undefined; why: string }

/**
 * Asks first whether there are any at all: an exchange that is refused is a denial in the audit.
 * @throws AccessError where the job is refused, or pgusher cannot be reached
 */
export async function firstTicket(
  api: ServerApi,
  preset: PresetName,
  token: string,
  request: { database: string; user: string },
): Promise<FirstTicket> {
  try {
    const { tickets } = await api.audiences(preset)
    if (!tickets) return { ticket: undefined, why: 'this pgusher gives none' }
    return { ticket: await api.exchange(token, request) }
  } catch (thrown) {
    const why = noTicketsBecause(thrown)
    if (why === undefined) throw thrown
    return { ticket: undefined, why }
  }
}

/** Undefined where the token would be refused as well. */
function noTicketsBecause(thrown: unknown): string | undefined {
  if (thrown instanceof ApiUnavailable) return thrown.message
  // Codes that begin so are about tickets: switched off, not given by this rule.
  return thrown instanceof AccessError && thrown.code.startsWith('ticket_') ? thrown.message : undefined
}
