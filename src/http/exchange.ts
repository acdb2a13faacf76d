/** `POST /v1/token`: a ticket for a token. `DELETE /v1/token`: gives it back. */
import type { Socket } from 'node:net'
import type { AuditEvent, JobIdentity } from '../audit/recorder.ts'
import { TICKET_PREFIX, type TicketContent, type Tickets } from '../credentials/tickets.ts'
import { AccessError } from '../errors.ts'
import { isOver } from '../identity/check-claims.ts'
import { evaluate } from '../policy/evaluate.ts'
import type { Grant } from '../policy/types.ts'
import { beforeDeadline } from '../session/deadline.ts'
import { admit, identify, ticketsAreOff } from '../session/identify.ts'
import { refuseNewSessions } from '../session/refusal.ts'
import type { Answer } from './answer.ts'
import { type TokenAnswer, tokenRequest } from './api.ts'
import type { Call } from './endpoint.ts'
import { bearerOf, parseBody } from './read-request.ts'
import { type PublicAddress, parseHost, ticketUrls } from './ticket-urls.ts'

export async function exchange(call: Call): Promise<Answer> {
  const { request, proxy, identity, signal } = call
  const wanted = parseBody(await call.body(), tokenRequest)
  identity.db = { alias: wanted.database, role: wanted.user }
  const secret = bearerOf(request, 'the OIDC token of the job')
  refuseNewSessions(proxy)
  const { tickets } = proxy
  if (tickets === undefined) throw ticketsAreOff()
  if (secret.startsWith(TICKET_PREFIX)) throw ticketForTicket()
  const { config, policy, verifier } = proxy.current()
  const { principal } = await beforeDeadline(
    identify(secret, wanted.database, { proxy, verifier, identity }),
    signal,
    () => {},
  )
  const decision = evaluate(policy, principal, wanted, Date.now())
  if (!decision.allowed) throw decision.error
  const { grant } = decision
  identity.db = { alias: grant.database, role: grant.role }
  identity.rule = { name: grant.rule, ruleset: grant.ruleset, version: grant.policyVersion }
  if (grant.ticketLife === undefined) throw noTickets(grant)
  const issuer = config.issuers[principal.issuerName]!
  // A window forgives a connection its token's age; a ticket would carry that beyond the window's end.
  if (isOver({ exp: principal.expiresAt, iat: principal.issuedAt }, issuer, Date.now())) throw tokenIsOver()
  const address = identity.client.address
  await admit({ principal, ticket: undefined, grant, address, issuer }, proxy)
  const now = Date.now()
  const content = {
    ...{ principal, rule: grant.rule, database: grant.database, role: grant.role },
    address: grant.anyAddress ? undefined : address,
    ...{ issuedAt: now, expiresAt: now + grant.ticketLife },
  }
  signal.throwIfAborted()
  const { ticket, id } = await issue(tickets, content, call)
  const made: TicketContent = { ...content, id }
  proxy.metrics.ticket('issued')
  proxy.recorder.event(ticketEvent('ticket.issued', made), identity)
  return {
    status: 200,
    body: answerOf(ticket, made, addressOf(call)),
    undelivered: () => giveBackUnseen(tickets, ticket, id, call),
  }
}

/** Waits for it also where the client does not: nothing may be left behind that nobody has. */
async function issue(
  tickets: Tickets,
  content: Omit<TicketContent, 'id'>,
  { proxy, signal }: Call,
): Promise<{ ticket: string; id: string }> {
  const issued = await tickets.issue(content)
  try {
    signal.throwIfAborted()
    refuseNewSessions(proxy)
    // A kill in the meantime has looked for the job's tickets and not found this one.
    proxy.bars.refuse(content.principal)
    return issued
  } catch (error) {
    await tickets.giveBack(issued.ticket).catch(logNotGivenBack(proxy, issued.id))
    throw error
  }
}

function answerOf(ticket: string, content: TicketContent, address: PublicAddress): TokenAnswer {
  const { database, role: user, rule, expiresAt } = content
  const urls = ticketUrls({ ...address, database, user, ticket })
  return { ticket, expires_at: new Date(expiresAt).toISOString(), database, user, rule, urls }
}

function addressOf({ request }: Call): PublicAddress {
  const socket: Socket = request.socket
  const own = { host: socket.localAddress ?? 'localhost', port: socket.localPort ?? 5432 }
  return parseHost(request.headers.host) ?? own
}

/** Nobody has it, and its role would stay in the catalog until its end. */
async function giveBackUnseen(tickets: Tickets, ticket: string, id: string, { proxy, identity }: Call): Promise<void> {
  const content = await tickets.giveBack(ticket).catch(logNotGivenBack(proxy, id))
  if (content === undefined) return
  proxy.metrics.ticket('returned')
  proxy.recorder.event(ticketEvent('ticket.returned', content, 'undelivered'), identity)
}

function logNotGivenBack({ log }: Call['proxy'], ticket: string): (err: unknown) => undefined {
  return (err) => {
    log.warn({ err, ticket }, 'a ticket that nobody got could not be given back; it stays until its end')
    return undefined
  }
}

/** From anywhere: who finds a ticket that was stolen may end it. */
export async function giveBack({ request, proxy, identity }: Call): Promise<Answer> {
  request.resume()
  const secret = bearerOf(request, 'the ticket')
  const { tickets } = proxy
  if (tickets === undefined) throw ticketsAreOff()
  const content = await tickets.giveBack(secret)
  // One that was over or given back already: what was asked for holds, and an answer that was lost may be asked for again.
  if (content === undefined) return { status: 204 }
  const whose: JobIdentity = {
    ...identity,
    principal: content.principal,
    db: { alias: content.database, role: content.role },
  }
  proxy.metrics.ticket('returned')
  proxy.recorder.event(ticketEvent('ticket.returned', content, 'returned'), whose)
  return { status: 204 }
}

function ticketEvent(event: string, content: TicketContent, reason?: 'returned' | 'undelivered'): AuditEvent {
  const { id, rule, database, expiresAt } = content
  const ticket = { id, rule, database, expires_at: new Date(expiresAt).toISOString(), reason }
  return { event, outcome: 'success', fields: { pgusher: { ticket } } }
}

function ticketForTicket(): AccessError {
  return new AccessError('token_malformed', 'a ticket is not exchanged for another one', {
    hint: 'Send the OIDC token of the job.',
  })
}

function tokenIsOver(): AccessError {
  return new AccessError('token_expired', 'the token has expired, and a ticket is given for a valid one only', {
    hint: 'Ask for the ticket at the start of the job, or get a fresh token for it.',
  })
}

function noTickets({ rule }: Grant): AccessError {
  return new AccessError('ticket_scope', `rule "${rule}" gives no tickets`, {
    hint: 'Use the OIDC token of the job as the password, or pgusher exec; or ask the operator for ticket_life in the rule.',
  })
}
