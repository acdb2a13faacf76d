/** The ways in: a token, a token whose job has a window open, or a ticket. */
import { hash } from 'node:crypto'
import type { SessionIdentity } from '../audit/recorder.ts'
import type { IssuerConfig } from '../config/schema.ts'
import { TICKET_PREFIX, type TicketContent } from '../credentials/tickets.ts'
import { AccessError } from '../errors.ts'
import { checkPresetRules, isOver } from '../identity/check-claims.ts'
import type { Principal } from '../identity/principal.ts'
import { hasTokenShape } from '../identity/token.ts'
import type { Verifier } from '../identity/verifier.ts'
import type { Grant } from '../policy/types.ts'
import type { ProxyContext } from './proxy-context.ts'
import { policyChanged, stillGranted } from './still-allowed.ts'

export interface Identified {
  principal: Principal
  /** Undefined for a token. */
  ticket: TicketContent | undefined
}

export interface IdentifyContext {
  proxy: Pick<ProxyContext, 'tickets' | 'windows' | 'bars'>
  verifier: Verifier
  /** Learns whose token it is, also where it is refused. */
  identity: Pick<SessionIdentity, 'principal' | 'unverifiedTokenSha256'>
}

/**
 * @param secret the password as the job sent it
 * @param alias the entry of `databases` that it asks for; undefined where it asks for none
 * @throws AccessError as `Verifier.verify` and `Tickets.redeem`; `ticket_scope`, `job_barred`
 */
export async function identify(
  secret: string,
  alias: string | undefined,
  context: IdentifyContext,
): Promise<Identified> {
  const identified = await verify(secret, context)
  context.identity.principal = identified.principal
  context.proxy.bars.refuse(identified.principal)
  if (identified.ticket !== undefined && alias !== undefined) checkDatabase(identified.ticket, alias)
  return identified
}

async function verify(secret: string, { proxy, verifier, identity }: IdentifyContext): Promise<Identified> {
  if (secret.startsWith(TICKET_PREFIX)) {
    if (proxy.tickets === undefined) throw ticketsAreOff()
    const ticket = await proxy.tickets.redeem(secret)
    return { principal: ticket.principal, ticket }
  }
  // A database password that somebody put there could be guessed from its hash.
  if (hasTokenShape(secret)) identity.unverifiedTokenSha256 = hash('sha256', secret, 'hex')
  const principal = await verifier.verify(secret, {
    onRefused: (signed) => {
      identity.principal = signed
    },
    mayOutlive: ({ tokenSha256 }) => proxy.windows.knows(tokenSha256),
  })
  return { principal, ticket: undefined }
}

/** How a session was let in, for its `session.started`; times as RFC 3339. */
export type AdmissionRecord =
  /** `window`: by a token that had expired; `token`: by a valid one, with the window that it opened or found open. */
  | { kind: 'token' | 'window'; window?: { opened_at: string; closes_at: string; connections: number } }
  | { kind: 'ticket'; id: string; issued_at: string; expires_at: string }

export interface Admitting extends Identified {
  grant: Grant
  /** The client's. */
  address: string
  issuer: IssuerConfig
}

/**
 * What the rule says of the way in, once it is known which rule that is.
 * @throws AccessError `token_expired`, `limit_rate`, `address_mismatch`, `ticket_scope`
 */
export async function admit(
  { principal, ticket, grant, address, issuer }: Admitting,
  proxy: Pick<ProxyContext, 'windows' | 'current'>,
): Promise<AdmissionRecord> {
  const now = Date.now()
  if (ticket !== undefined) return admitTicket(ticket, { grant, address, issuer })
  const over = isOver({ exp: principal.expiresAt, iat: principal.issuedAt }, issuer, now)
  const window = await proxy.windows.admit(
    { principal, grant: inForce(proxy, principal, grant, now), address, over },
    now,
  )
  if (window === undefined) return { kind: 'token' }
  const { openedAt, closesAt, connections } = window
  return {
    kind: over ? 'window' : 'token',
    window: { opened_at: iso(openedAt), closes_at: iso(closesAt), connections },
  }
}

/** A reload since the decision has closed the windows that it found; none may be opened by the old policy behind it. */
export function inForce(proxy: Pick<ProxyContext, 'current'>, principal: Principal, grant: Grant, now: number): Grant {
  const { policy } = proxy.current()
  const found = policy.version === grant.policyVersion ? grant : stillGranted(policy, principal, grant, now)
  if (found === undefined) throw policyChanged()
  return found
}

/** @throws AccessError `ticket_scope` */
export function checkDatabase(ticket: TicketContent, alias: string): void {
  if (ticket.database === alias) return
  const { database, role } = ticket
  throw new AccessError('ticket_scope', `this ticket is for database "${database}" and role "${role}"`, {
    hint: 'Ask for a ticket for each database that the job uses.',
  })
}

/**
 * A ticket is for what it was asked for, whatever else the job may have; and its job must still be one that may connect.
 * @param grant what the policy of now gives
 * @throws AccessError `ticket_scope`, `ticket_expired`, `address_mismatch`, and as `checkPresetRules`
 */
export function admitTicket(
  ticket: TicketContent,
  { grant, address, issuer }: Pick<Admitting, 'grant' | 'address' | 'issuer'>,
): AdmissionRecord {
  checkPresetRules(ticket.principal, issuer)
  if (grant.role !== ticket.role) {
    throw new AccessError('ticket_scope', `this ticket is for role "${ticket.role}" by rule "${ticket.rule}"`, {
      hint: 'Put that role into DATABASE_URL as the user name, or ask for another ticket.',
    })
  }
  if (grant.rule !== ticket.rule) {
    throw new AccessError(
      'ticket_scope',
      `this ticket was given by rule "${ticket.rule}", and the policy of now lets the job in by rule "${grant.rule}"`,
      { hint: 'Ask for another ticket with a fresh token of the job.' },
    )
  }
  checkLife(ticket, grant)
  checkAddress(ticket, address, grant.anyAddress)
  return { kind: 'ticket', id: ticket.id, issued_at: iso(ticket.issuedAt), expires_at: iso(ticket.expiresAt) }
}

/** What a reload has shortened is short for tickets that were given before it. @throws AccessError `ticket_scope`, `ticket_expired` */
function checkLife({ id, issuedAt }: TicketContent, { rule, ticketLife }: Grant): void {
  if (ticketLife === undefined) {
    throw new AccessError('ticket_scope', `rule "${rule}" takes no tickets any more`, {
      hint: 'Use the OIDC token of the job.',
    })
  }
  const end = issuedAt + ticketLife
  if (Date.now() < end) return
  throw new AccessError(
    'ticket_expired',
    `the ticket expired at ${iso(end)}: ticket_life is shorter than it was (ticket ${id})`,
    {
      hint: 'Ask for another one with a fresh token of the job.',
    },
  )
}

/** @throws AccessError `address_mismatch` */
export function checkAddress(ticket: TicketContent, address: string, any: boolean): void {
  if (any || ticket.address === undefined || ticket.address === address) return
  throw new AccessError('address_mismatch', 'this ticket was given to another address than this client has', {
    hint: 'Ask for the ticket where it is used. The operator can allow any address: any_address: true in the rule.',
  })
}

const iso = (time: number): string => new Date(time).toISOString()

export function ticketsAreOff(): AccessError {
  return new AccessError('ticket_invalid', 'this pgusher gives and takes no tickets: use the OIDC token of the job', {
    hint: 'The operator switches tickets on by tickets.key in the configuration and ticket_life in a rule.',
  })
}
