/**
 * What a connection shows to pgusher: a fresh token where the CI gives one each time; else the job's one token, and a ticket in
 * its place where pgusher gave one for it, since that one still holds when the token is over.
 */
import { printable } from '../../config/quote.ts'
import { AccessError } from '../../errors.ts'
import type { Request } from '../local/local-connection.ts'
import { noTicketsBecause, type ServerApi, type Ticket } from '../server-api.ts'
import type { TokenSource } from '../token-source.ts'
import type { FreshTokens } from './fresh-tokens.ts'

/** A ticket that ends within this time, in milliseconds, is exchanged for another while the token lasts. */
const RENEW_BEFORE = 60_000

export interface ServerPasswords {
  /** `fresh`: a token of its own for each connection. `ticket`, `token`: one for all. */
  readonly kind: 'fresh' | 'ticket' | 'token'
  for(request: Request): Promise<string>
  /** Of the ticket, milliseconds since the epoch; undefined without one. */
  readonly expiresAt: number | undefined
  /** Gives the tickets back. @throws AccessError where pgusher did not take one */
  close(): Promise<void>
}

export interface ChooseOptions {
  source: TokenSource
  tokens: FreshTokens
  api: ServerApi
  wanted: Request
  say(text: string): void
}

/** @throws AccessError where pgusher cannot be reached */
export async function choosePasswords({ source, tokens, api, wanted, say }: ChooseOptions): Promise<ServerPasswords> {
  if (source.refetchable) return tokensOnly('fresh', tokens)
  try {
    return await withTicket(tokens, api, wanted)
  } catch (thrown) {
    if (thrown instanceof AccessError && thrown.code === 'upstream_unreachable') throw thrown
    const why = noTicketsBecause(thrown)
    // Whoever is refused may connect all the same: then the command gets the refusal itself, and it is shown with the claims.
    if (why !== undefined)
      say(`pgusher: no ticket, so connections can be made while the token lives: ${printable(why)}\n`)
    return tokensOnly('token', tokens)
  }
}

function tokensOnly(kind: 'fresh' | 'token', tokens: FreshTokens): ServerPasswords {
  return { kind, for: async () => (await tokens.current()).text, expiresAt: undefined, close: async () => {} }
}

async function withTicket(
  tokens: FreshTokens,
  api: ServerApi,
  wanted: Request,
  now: () => number = Date.now,
): Promise<ServerPasswords> {
  const held: Ticket[] = []
  let flight: Promise<Ticket> | undefined

  async function exchange(): Promise<Ticket> {
    const { text } = await tokens.current()
    const ticket = await api.exchange(text, wanted)
    held.push(ticket)
    return ticket
  }

  async function current(last: Ticket): Promise<Ticket> {
    const { expiresAt } = await tokens.current()
    if (now() < last.expiresAt - RENEW_BEFORE || (expiresAt ?? 0) <= now()) return last
    flight ??= exchange().finally(() => {
      flight = undefined
    })
    // The ticket that there is may hold for this connection yet; if not, pgusher says so.
    return await flight.catch(() => last)
  }

  await exchange()
  const latest = (): Ticket => held[held.length - 1]!
  return {
    kind: 'ticket',
    async for(request) {
      // A ticket is for one database and one role; for others the token itself may still do.
      const users = [wanted.user, latest().user]
      if (request.database !== wanted.database || !users.includes(request.user)) return (await tokens.current()).text
      return (await current(latest())).text
    },
    get expiresAt() {
      return latest().expiresAt
    },
    async close() {
      const results = await Promise.allSettled(held.map((ticket) => api.giveBack(ticket.text)))
      const failed = results.find((result) => result.status === 'rejected')
      if (failed !== undefined) throw failed.reason as AccessError
    },
  }
}
