/** Caps on connections that have not proved who they are, in total and by address, and on sessions. */
import { AccessError } from '../errors.ts'

export interface AdmissionLimits {
  maxUnauthenticated: number
  maxUnauthenticatedPerAddress: number
  maxSessions: number
}

/** What a connection needs of it; the counts may be kept by another process. */
export interface AdmissionDoor {
  /**
   * Counts a connection that has just come.
   * @returns its release, to be called once it is authenticated or gone; a second call does nothing
   * @throws AccessError `limit_sessions`
   */
  enter(address: string): (() => void) | Promise<() => void>
  /** @returns the release of one session. @throws AccessError `limit_sessions` */
  startSession(): () => void
}

export interface Admission extends AdmissionDoor {
  enter(address: string): () => void
  readonly sessions: number
  readonly unauthenticated: number
}

export function createAdmission(limits: () => AdmissionLimits): Admission {
  const byAddress = new Map<string, number>()
  let unauthenticated = 0
  let sessions = 0

  function leave(address: string): void {
    unauthenticated--
    const left = (byAddress.get(address) ?? 1) - 1
    if (left === 0) byAddress.delete(address)
    else byAddress.set(address, left)
  }

  return {
    enter(address) {
      const { maxUnauthenticated, maxUnauthenticatedPerAddress } = limits()
      const here = byAddress.get(address) ?? 0
      if (unauthenticated >= maxUnauthenticated) throw full('too many connections are waiting for authentication')
      if (here >= maxUnauthenticatedPerAddress) {
        throw full(`too many connections from ${address} are waiting for authentication`)
      }
      unauthenticated++
      byAddress.set(address, here + 1)
      return once(() => leave(address))
    },
    startSession() {
      const { maxSessions } = limits()
      if (sessions >= maxSessions) throw full(`pgusher serves ${maxSessions} sessions already, its limit`)
      sessions++
      return once(() => {
        sessions--
      })
    },
    get sessions() {
      return sessions
    },
    get unauthenticated() {
      return unauthenticated
    },
  }
}

function full(message: string): AccessError {
  return new AccessError('limit_sessions', message, {
    hint: 'Try again in a moment; the limits are in the configuration under "listen".',
  })
}

function once(release: () => void): () => void {
  let done = false
  return () => {
    if (done) return
    done = true
    release()
  }
}
