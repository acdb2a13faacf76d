/**
 * What a connection shows to pgusher: a fresh token where the CI gives one each time; else the job's one token, and a ticket in
 * its place where pgusher gave one for it, since that one still holds when the token is over.
 */
import { AccessError } from '../../errors.ts'
import { firstTicket } from '../first-ticket.ts'
import type { Request } from '../local/local-connection.ts'
import type { ServerApi, Ticket } from '../server-api.ts'
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
  /** Of `token`: why there is no ticket, where pgusher said it. */
  readonly why: string | undefined
  /** Gives the tickets back. @throws AccessError where pgusher did not take one */
  close(): Promise<void>
}

export interface ChooseOptions {
  source: TokenSource
  tokens: FreshTokens
  api: ServerApi
  /** Not that of `api`: when that one is interrupted, tickets are still to be given back. */
  giveBack: ServerApi['giveBack']
  wanted: Request
}

/** @throws AccessError where pgusher cannot be reached */
export async function choosePasswords(options: ChooseOptions): Promise<ServerPasswords> {
  const { source, tokens, api, wanted } = options
  if (source.refetchable) return tokensOnly('fresh', tokens, undefined)
  const { text } = await tokens.current()
  try {
    const first = await firstTicket(api, source.preset, text, wanted)
    if (first.ticket !== undefined) return withTicket(first.ticket, options)
    return tokensOnly('token', tokens, first.why)
  } catch (thrown) {
    // Whoever is refused may connect all the same: then the command gets the refusal itself, and it is shown with the claims.
    if (!(thrown instanceof AccessError) || thrown.code === 'upstream_unreachable') throw thrown
    return tokensOnly('token', tokens, undefined)
  }
}

function tokensOnly(kind: 'fresh' | 'token', tokens: FreshTokens, why: string | undefined): ServerPasswords {
  return { kind, for: async () => (await tokens.current()).text, expiresAt: undefined, why, close: async () => {} }
}

function withTicket(first: Ticket, { tokens, api, giveBack, wanted }: ChooseOptions): ServerPasswords {
  const held = [first]
  let latest = first
  let flight: Promise<Ticket> | undefined

  async function exchange(): Promise<Ticket> {
    const { text } = await tokens.current()
    latest = await api.exchange(text, wanted)
    held.push(latest)
    return latest
  }

  async function current(): Promise<Ticket> {
    const last = latest
    const { expiresAt = 0 } = await tokens.current()
    if (Date.now() < last.expiresAt - RENEW_BEFORE || expiresAt <= Date.now()) return last
    flight ??= exchange().finally(() => {
      flight = undefined
    })
    // The ticket that there is may hold for this connection yet; if not, pgusher says so.
    return await flight.catch(() => last)
  }

  return {
    kind: 'ticket',
    why: undefined,
    async for(request) {
      // A ticket is for one database and one role; for others the token itself may still do.
      const users = [wanted.user, latest.user]
      if (request.database !== wanted.database || !users.includes(request.user)) return (await tokens.current()).text
      return (await current()).text
    },
    get expiresAt() {
      return latest.expiresAt
    },
    async close() {
      const results = await Promise.allSettled(held.map((ticket) => giveBack(ticket.text)))
      const failed = results.find((result) => result.status === 'rejected')
      if (failed !== undefined) throw failed.reason as AccessError
    },
  }
}
