/** What the primary and its workers ask each other. All of it is plain data; secrets in it go from memory to memory. */
import type { AuditEvent } from '../audit/recorder.ts'
import type { ListenAddress } from '../config/scalars.ts'
import type { AuditConfig } from '../config/schema.ts'
import type { MintedCredential } from '../credentials/minter.ts'
import type { TicketContent } from '../credentials/tickets.ts'
import type { Principal } from '../identity/principal.ts'
import type { Grant } from '../policy/types.ts'
import type { Bar, BarReason, BarTarget } from '../session/bars.ts'
import type { CancelKey, CancelOutcome } from '../session/cancel-keys.ts'
import type { JobWindow, WindowRequest } from '../session/job-windows.ts'
import type { LiveSession } from '../session/registry.ts'
import type { EndReason } from '../session/session-ending.ts'
import type { SnapshotSource } from '../session/snapshot.ts'
import type { MetricFamily } from '../telemetry/metrics.ts'
import type { SentError } from './sent-error.ts'
import type { TicketKeys } from './tls-tickets.ts'

/** Numbers are the worker's own: of a connection that waits for authentication, or of a lease. */
export interface ToPrimary {
  /** @throws AccessError `limit_sessions` */
  enter(argument: { id: number; address: string }): void
  leave(id: number): void
  /** Counts a session as well. @throws as `Admission.startSession` and `Leases.acquire` */
  acquire(argument: { id: number; principal: Principal; grant: Grant }): CredentialOffer
  release(id: number): void
  discard(id: number): void
  /** The upstream's cancel key of the session that has the lease. */
  serve(argument: { id: number; processId: number; secret: Buffer }): void
  knows(tokenSha256: string): boolean
  check(argument: WindowArgument): void
  admit(argument: WindowArgument): JobWindow | undefined
  /** The job keeps trying: its bar is renewed. */
  refused(principal: Principal): void
  issueTicket(content: Omit<TicketContent, 'id'>): { ticket: string; id: string }
  redeemTicket(ticket: string): TicketContent
  giveBackTicket(ticket: string): TicketContent | undefined
  giveBackJob(jobKey: string): number
  giveBackRun(runUrl: string): number
  cancel(argument: { address: string; request: CancelKey }): CancelOutcome
  /** @param argument why the worker's audit cannot be written; undefined where it can */
  audit(argument: { failure: string | undefined }): void
}

export interface WindowArgument {
  request: WindowRequest
  /** Milliseconds since the epoch. */
  now: number
}

export interface CredentialOffer {
  /** The same for each session of a credential. */
  id: number
  /** Undefined where the worker was told before. */
  credential: MintedCredential | undefined
}

export interface ToWorker {
  /** The first call. Resolves when it listens. @throws AccessError with what keeps it from that */
  open(settings: WorkerSettings): void
  /** @returns how many sessions were ended, which the policy would not let in */
  replace(argument: { source: SnapshotSource; keys: TicketKeys }): number
  ticketKeys(keys: TicketKeys): void
  sessions(argument: undefined): SessionRecord[]
  record(argument: { session: string; event: AuditEvent }): void
  end(argument: { session: string; reason: EndReason; error: SentError }): void
  /** Resolves when the session is over. */
  ended(session: string): void
  /** False where none of its sessions has the key. */
  cancel(request: CancelKey): boolean
  bar(argument: { target: BarTarget; why: BarReason; life: number }): void
  /** @param credential number of its offer; undefined for all */
  endWarm(argument: { credential: number | undefined }): void
  metrics(argument: undefined): MetricFamily[]
  rotateAudit(argument: undefined): void
  /** Whether it still answers. */
  ping(argument: undefined): void
  /** The last call: the worker exits when its connections are over. @param argument milliseconds */
  drain(argument: { timeout: number }): void
}

export interface WorkerSettings {
  /** From 1. */
  worker: number
  /** Its own name in events. */
  instance: string
  /** With a file of its own. */
  audit: AuditConfig
  address: Extract<ListenAddress, { kind: 'tcp' }>
  source: SnapshotSource
  keys: TicketKeys
  bars: readonly Bar[]
}

/** A session as it is at this moment. */
export type SessionRecord = Pick<
  LiveSession,
  'id' | 'principal' | 'request' | 'grant' | 'admission' | 'address' | 'startedAt' | 'statements' | 'busy'
>
