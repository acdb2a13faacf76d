/** The primary's side of one worker: answers what it asks, and gives back what it held when it is gone. */
import type { MintedCredential } from '../credentials/minter.ts'
import { AccessError } from '../errors.ts'
import type { FrontParts } from '../session/front.ts'
import { inForce, ticketsAreOff } from '../session/identify.ts'
import { cancelUpstream } from '../upstream/cancel.ts'
import type { Handlers } from './channel.ts'
import type { CredentialOffer, ToPrimary, WindowArgument } from './protocol.ts'

export interface Desk {
  handlers: Handlers<ToPrimary>
  /** Sessions that have a credential, or wait for one. */
  readonly size: number
  /** Why the worker's audit cannot be written; undefined where it can. */
  readonly auditFailure: string | undefined
  /** The worker has been told this credential. */
  told(credential: MintedCredential): boolean
  /** The worker is gone. */
  clear(): void
}

/** Numbers of credentials, the same for all workers. */
export interface CredentialNumbers {
  of(credential: MintedCredential): number
}

export function createCredentialNumbers(): CredentialNumbers {
  const numbers = new WeakMap<MintedCredential, number>()
  let last = 0
  return {
    of(credential) {
      const known = numbers.get(credential) ?? ++last
      numbers.set(credential, known)
      return known
    },
  }
}

export function createDesk(parts: FrontParts, numbers: CredentialNumbers): Desk {
  const { shared, current } = parts
  const waiting = createHoldings()
  const leases = createLeaseBook(parts, numbers)
  let auditFailure: string | undefined
  let gone = false
  const windowOf = ({ request, now }: WindowArgument) => {
    const grant = inForce({ current }, request.principal, request.grant, now)
    return [{ ...request, grant }, now] as const
  }
  return {
    handlers: {
      enter({ id, address }) {
        // The last messages of a worker can come behind the news of its end: what they take nobody would give back.
        if (gone) throw workerGone()
        waiting.add(id, shared.admission.enter(address))
      },
      leave: waiting.end,
      acquire: leases.acquire,
      release: leases.release,
      discard: leases.discard,
      serve: leases.serve,
      knows: (tokenSha256) => shared.windows.knows(tokenSha256),
      check: (argument) => shared.windows.check(...windowOf(argument)),
      admit: (argument) => shared.windows.admit(...windowOf(argument)),
      refused(principal) {
        try {
          shared.bars.refuse(principal)
        } catch {
          // It is barred here too, and is for longer now.
        }
      },
      ...ticketHandlers(parts),
      cancel: ({ address, request }) => shared.cancel(address, request),
      audit({ failure }) {
        auditFailure = failure
      },
    },
    get size() {
      return leases.size
    },
    get auditFailure() {
      return auditFailure
    },
    told: leases.told,
    clear() {
      gone = true
      waiting.clear()
      leases.clear()
    },
  }
}

type TicketCalls = Pick<
  Handlers<ToPrimary>,
  'issueTicket' | 'redeemTicket' | 'giveBackTicket' | 'giveBackJob' | 'giveBackRun'
>

function ticketHandlers({ shared }: FrontParts): TicketCalls {
  // A reload may have switched them off since the worker asked.
  const tickets = () => {
    if (shared.tickets === undefined) throw ticketsAreOff()
    return shared.tickets
  }
  return {
    issueTicket: (content) => tickets().issue(content),
    redeemTicket: (ticket) => tickets().redeem(ticket),
    giveBackTicket: (ticket) => tickets().giveBack(ticket),
    giveBackJob: (jobKey) => tickets().giveBackJob(jobKey),
    giveBackRun: (runUrl) => tickets().giveBackRun(runUrl),
  }
}

interface Held {
  release(): void
  discard(): void
  /** Entry of `databases`. */
  alias: string
  backend?: { processId: number; secret: Buffer }
}

interface LeaseBook {
  acquire: Handlers<ToPrimary>['acquire']
  release(id: number): void
  discard(id: number): void
  serve: Handlers<ToPrimary>['serve']
  told(credential: MintedCredential): boolean
  clear(): void
  readonly size: number
}

function createLeaseBook(parts: FrontParts, numbers: CredentialNumbers): LeaseBook {
  const { shared, recorder } = parts
  const held = new Map<number, Held>()
  /** What the worker has been told. */
  const told = new WeakSet<MintedCredential>()
  let underWay = 0
  let gone = false

  async function acquire(argument: Parameters<LeaseBook['acquire']>[0]): Promise<CredentialOffer> {
    const { id, principal, grant } = argument
    if (gone) throw workerGone()
    // A worker that hangs may not have heard of the bar yet.
    shared.bars.refuse(principal)
    // Its making and its end are to be on record as well.
    if (!recorder.accepting) throw auditUnavailable()
    const endSession = shared.admission.startSession()
    underWay++
    try {
      const lease = await shared.leases.acquire(principal, grant)
      const release = (): void => {
        lease.release()
        endSession()
      }
      if (gone) {
        release()
        throw workerGone()
      }
      held.set(id, { release, discard: () => lease.discard(), alias: grant.database })
      const { credential } = lease
      const known = told.has(credential)
      told.add(credential)
      return { id: numbers.of(credential), credential: known ? undefined : credential }
    } catch (error) {
      endSession()
      throw error
    } finally {
      underWay--
    }
  }
  return {
    acquire,
    release(id) {
      held.get(id)?.release()
      held.delete(id)
    },
    discard: (id) => held.get(id)?.discard(),
    serve({ id, ...backend }) {
      const one = held.get(id)
      if (one !== undefined) one.backend = backend
    },
    told: (credential) => told.has(credential),
    clear() {
      gone = true
      for (const one of held.values()) {
        void stopStatement(parts, one)
        one.release()
      }
      held.clear()
    },
    get size() {
      return held.size + underWay
    },
  }
}

/**
 * PostgreSQL hears of a dead worker when its statement is over. Until then a job that has other sessions, and so keeps its role, would have
 * a statement more than its limit, on no record.
 */
async function stopStatement({ current, log }: FrontParts, { alias, backend }: Held): Promise<void> {
  if (backend === undefined) return
  const target = current().targets.get(alias)
  if (target === undefined) return
  await cancelUpstream(target, backend, target.config.connect_timeout).catch((err: unknown) => {
    log.warn({ err, database: alias }, 'a statement of a worker that has ended could not be cancelled')
  })
}

/** Releases by number, each called once. */
function createHoldings(): { add(id: number, release: () => void): void; end(id: number): void; clear(): void } {
  const held = new Map<number, () => void>()
  return {
    add: (id, release) => void held.set(id, release),
    end(id) {
      held.get(id)?.()
      held.delete(id)
    },
    clear() {
      for (const release of held.values()) release()
      held.clear()
    },
  }
}

function auditUnavailable(): AccessError {
  return new AccessError('audit_unavailable', 'no session can start: the audit log cannot be written', {
    hint: 'The operator finds the reason in the log of pgusher and at /readyz.',
  })
}

function workerGone(): AccessError {
  return new AccessError('draining', 'the process that served this connection has ended')
}
