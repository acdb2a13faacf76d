/** What a worker's connections share with those of the others: the same interfaces, kept by the primary. */
import type { MintedCredential } from '../credentials/minter.ts'
import type { Tickets } from '../credentials/tickets.ts'
import { AccessError } from '../errors.ts'
import type { Bars } from '../session/bars.ts'
import { createJobWindows } from '../session/job-windows.ts'
import type { SharedState, Snapshot } from '../session/proxy-context.ts'
import type { Channel } from './channel.ts'
import type { ToPrimary } from './protocol.ts'

export interface RemoteState extends SharedState {
  /** @returns the credential of that number, which the primary is taking back; undefined where none was used here */
  takenBack(credential: number): MintedCredential | undefined
}

export function createRemoteState(primary: Channel<ToPrimary>, bars: Bars, current: () => Snapshot): RemoteState {
  const credentials = new Map<number, MintedCredential>()
  const ask = askerOf(primary, () => current().config.listen.handshake_timeout)
  const tickets = remoteTickets(primary)
  return {
    admission: remoteAdmission(primary, ask, () => current().config.listen.max_unauthenticated),
    leases: remoteLeases(primary, credentials),
    windows: remoteWindows(ask),
    bars: {
      refuse(principal) {
        try {
          bars.refuse(principal)
        } catch (error) {
          primary.tell('refused', principal)
          throw error
        }
      },
    },
    get tickets() {
      return current().config.tickets && tickets
    },
    cancel: (address, { processId, key }) => ask('cancel', { address, request: { processId, key } }),
    takenBack(id) {
      const credential = credentials.get(id)
      credentials.delete(id)
      return credential
    },
  }
}

type Ask = Channel<ToPrimary>['call']

/**
 * No longer than a connection has: a primary that hangs would otherwise keep every connection that comes meanwhile, and all of them at
 * once when it goes on. Credentials and tickets take their time; who waits for one has a deadline of his own.
 */
function askerOf(primary: Channel<ToPrimary>, within: () => number): Ask {
  return (name, argument) => primary.call(name, argument, within())
}

/** @param most what the primary lets wait of all workers: who comes beyond that need not be asked for */
function remoteAdmission(primary: Channel<ToPrimary>, ask: Ask, most: () => number): SharedState['admission'] {
  let lastId = 0
  let waiting = 0
  return {
    async enter(address) {
      if (waiting >= most()) throw tooManyWait()
      const id = ++lastId
      waiting++
      const leave = once(() => {
        waiting--
        primary.tell('leave', id)
      })
      // It may have let it in behind our back; what it refused it does not know.
      await ask('enter', { id, address }).catch((error: unknown) => {
        leave()
        throw error
      })
      return leave
    },
    // Counted where the lease is, which saves a message.
    startSession: () => () => {},
  }
}

function remoteLeases(primary: Channel<ToPrimary>, credentials: Map<number, MintedCredential>): SharedState['leases'] {
  let lastId = 0
  return {
    async acquire(principal, grant) {
      const id = ++lastId
      const offer = await primary.call('acquire', { id, principal, grant })
      // One object for all sessions of a credential: warm connections are told apart by it.
      const credential = credentials.get(offer.id) ?? offer.credential
      if (credential === undefined) throw new TypeError('a credential was offered that the worker was never told')
      credentials.set(offer.id, credential)
      return {
        credential,
        release: once(() => primary.tell('release', id)),
        discard: () => primary.tell('discard', id),
        serve: ({ processId, secret }) => primary.tell('serve', { id, processId, secret }),
      }
    },
  }
}

function remoteWindows(ask: Ask): SharedState['windows'] {
  /** Without `job_window` there is nothing to keep, and the answer is the same everywhere. */
  const none = createJobWindows()
  return {
    knows: (tokenSha256) => ask('knows', tokenSha256),
    check: (request, now) =>
      request.grant.jobWindow === undefined ? none.check(request, now) : ask('check', { request, now }),
    admit: (request, now) =>
      request.grant.jobWindow === undefined ? none.admit(request, now) : ask('admit', { request, now }),
  }
}

function remoteTickets(primary: Channel<ToPrimary>): Tickets {
  return {
    issue: (content) => primary.call('issueTicket', content),
    redeem: (ticket) => primary.call('redeemTicket', ticket),
    giveBack: (ticket) => primary.call('giveBackTicket', ticket),
    giveBackJob: (jobKey) => primary.call('giveBackJob', jobKey),
    giveBackRun: (runUrl) => primary.call('giveBackRun', runUrl),
  }
}

function tooManyWait(): AccessError {
  return new AccessError('limit_sessions', 'too many connections are waiting for authentication', {
    hint: 'Try again in a moment; the limits are in the configuration under "listen".',
  })
}

function once(work: () => void): () => void {
  let done = false
  return () => {
    if (done) return
    done = true
    work()
  }
}
