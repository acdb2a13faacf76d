/** `POST /v1/whoami`: who the job is here, and whether a database would let it in. Nothing is changed by asking. */
import type { TicketContent } from '../credentials/tickets.ts'
import { asAccessError } from '../errors.ts'
import { isOver } from '../identity/check-claims.ts'
import type { Principal } from '../identity/principal.ts'
import { evaluate } from '../policy/evaluate.ts'
import type { AccessRequest, Grant } from '../policy/types.ts'
import { ANY_ROLE } from '../policy/verdict.ts'
import { beforeDeadline } from '../session/deadline.ts'
import { denialEvent, newDenialId } from '../session/denial.ts'
import { admitTicket, checkAddress, checkDatabase, type Identified, identify } from '../session/identify.ts'
import type { Snapshot } from '../session/proxy-context.ts'
import { refuseNewSessions } from '../session/refusal.ts'
import { type Answer, refusalOf } from './answer.ts'
import { type WhoamiAnswer, whoamiRequest } from './api.ts'
import type { Call } from './endpoint.ts'
import { bearerOf, parseBody } from './read-request.ts'

export async function whoami(call: Call): Promise<Answer> {
  const { request, proxy, identity, signal } = call
  const { database, user } = parseBody(await call.body(), whoamiRequest)
  if (database !== undefined) identity.db = { alias: database, role: user ?? ANY_ROLE }
  const secret = bearerOf(request, 'the OIDC token of the job or its ticket')
  // Whoever tries out a stolen token is to be on record.
  refuseNewSessions(proxy)
  const snapshot = proxy.current()
  const { verifier } = snapshot
  const identified = await beforeDeadline(identify(secret, undefined, { proxy, verifier, identity }), signal, () => {})
  const { principal, ticket } = identified
  if (ticket !== undefined) refuseCopy(ticket, snapshot, identity.client.address)
  const wanted = requestOf(database, user, ticket)
  const decision = wanted && (await decide(identified, wanted, snapshot, call))
  proxy.recorder.event({ event: 'job.identified', outcome: 'success' }, identity)
  const body: WhoamiAnswer = { identity: identityOf(principal, ticket), ...(decision && { decision }) }
  return { status: 200, body }
}

/** A ticket tells nothing where it may not be used. */
function refuseCopy(ticket: TicketContent, { policy }: Snapshot, address: string): void {
  const own = evaluate(policy, ticket.principal, { database: ticket.database, user: ticket.role }, Date.now())
  checkAddress(ticket, address, own.allowed && own.grant.anyAddress)
}

function requestOf(
  database: string | undefined,
  user: string | undefined,
  ticket: TicketContent | undefined,
): AccessRequest | undefined {
  if (database !== undefined) return { database, user: user ?? ANY_ROLE }
  return ticket && { database: ticket.database, user: ticket.role }
}

/** As a connection would be decided now. */
async function decide(
  identified: Identified,
  wanted: AccessRequest,
  snapshot: Snapshot,
  call: Call,
): Promise<NonNullable<WhoamiAnswer['decision']>> {
  try {
    const { rule, database, role } = await granted(identified, wanted, snapshot, call)
    return { allowed: true, rule, database, role }
  } catch (thrown) {
    const error = asAccessError(thrown)
    const id = newDenialId()
    const { proxy, identity } = call
    const event = denialEvent(error, 'whoami', id, snapshot.config.audit.max_event)
    // Nobody was kept out: it is on record so that the operator finds the trace under the id that the job was told.
    proxy.recorder.event({ ...event, outcome: 'would_deny' }, identity)
    return { allowed: false, error: refusalOf(error, id) }
  }
}

async function granted(
  { principal, ticket }: Identified,
  wanted: AccessRequest,
  snapshot: Snapshot,
  call: Call,
): Promise<Grant> {
  const { policy, config } = snapshot
  const address = call.identity.client.address
  if (ticket !== undefined) checkDatabase(ticket, wanted.database)
  const decision = evaluate(policy, principal, wanted, Date.now())
  if (!decision.allowed) throw decision.error
  const { grant } = decision
  const issuer = config.issuers[principal.issuerName]!
  if (ticket !== undefined) admitTicket(ticket, { grant, address, issuer })
  else {
    const now = Date.now()
    const over = isOver({ exp: principal.expiresAt, iat: principal.issuedAt }, issuer, now)
    await call.proxy.windows.check({ principal, grant, address, over }, now)
  }
  return grant
}

function identityOf(principal: Principal, ticket: TicketContent | undefined): WhoamiAnswer['identity'] {
  const { provider, iss, subject, claims, job, expiresAt } = principal
  const own = [...claims].map(([name, value]) => [name, typeof value === 'string' ? value : [...value]] as const)
  return {
    ...{ provider, issuer: iss, subject },
    claims: Object.fromEntries(own),
    job: Object.fromEntries(Object.entries(job).map(([name, value]) => [snakeCase(name), value])),
    expires_at: new Date(ticket?.expiresAt ?? expiresAt).toISOString(),
  }
}

const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
