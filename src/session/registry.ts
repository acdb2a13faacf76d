/** The sessions that run now: who they are, so that a reload, a drain or an operator can end them. */
import type { AuditEvent } from '../audit/recorder.ts'
import type { AccessError } from '../errors.ts'
import type { Principal } from '../identity/principal.ts'
import type { AccessRequest, Grant } from '../policy/types.ts'
import type { AdmissionRecord } from './identify.ts'
import type { EndReason } from './session-ending.ts'

export interface LiveSession {
  readonly id: string
  readonly principal: Principal
  readonly request: AccessRequest
  readonly grant: Grant
  readonly admission: AdmissionRecord
  /** The client's. */
  readonly address: string
  /** Milliseconds since the epoch. */
  readonly startedAt: number
  /** Executions that have ended. */
  readonly statements: number
  /** A statement runs or a transaction is open. */
  readonly busy: boolean
  /** Resolves when the session is over and its event is recorded. */
  readonly ended: Promise<unknown>
  /** An event of this session. */
  record(event: AuditEvent): void
  end(reason: EndReason, error: AccessError): void
  /** Passes a CancelRequest on. Never rejects. */
  cancel(): Promise<void>
}

export interface Registry {
  add(session: LiveSession): () => void
  all(): readonly LiveSession[]
  readonly size: number
}

export function createRegistry(): Registry {
  const sessions = new Set<LiveSession>()
  return {
    add(session) {
      sessions.add(session)
      return () => void sessions.delete(session)
    },
    all: () => [...sessions],
    get size() {
      return sessions.size
    },
  }
}
