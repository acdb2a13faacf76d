/** What a worker's connections share with those of the others: the same interfaces, kept by the primary. */
import type { MintedCredential } from '../credentials/minter.ts'
import type { Tickets } from '../credentials/tickets.ts'
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
  const tickets = remoteTickets(primary)
  return {
    admission: remoteAdmission(primary),
    leases: remoteLeases(primary, credentials),
    windows: remoteWindows(primary),
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
    cancel: (address, { processId, key }) => primary.call('cancel', { address, request: { processId, key } }),
    takenBack(id) {
      const credential = credentials.get(id)
      credentials.delete(id)
      return credential
    },
  }
}

function remoteAdmission(primary: Channel<ToPrimary>): SharedState['admission'] {
  let lastId = 0
  return {
    async enter(address) {
      const id = ++lastId
      await primary.call('enter', { id, address })
      return once(() => primary.tell('leave', id))
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
      }
    },
  }
}

function remoteWindows(primary: Channel<ToPrimary>): SharedState['windows'] {
  /** Without `job_window` there is nothing to keep, and the answer is the same everywhere. */
  const none = createJobWindows()
  return {
    knows: (tokenSha256) => primary.call('knows', tokenSha256),
    check: (request, now) =>
      request.grant.jobWindow === undefined ? none.check(request, now) : primary.call('check', { request, now }),
    admit: (request, now) =>
      request.grant.jobWindow === undefined ? none.admit(request, now) : primary.call('admit', { request, now }),
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

function once(work: () => void): () => void {
  let done = false
  return () => {
    if (done) return
    done = true
    work()
  }
}
