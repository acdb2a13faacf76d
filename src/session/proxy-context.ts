/** What every connection shares. A reload replaces the snapshot; a connection keeps the one that it began with. */
import type { SecureContext, TLSSocket } from 'node:tls'
import type { Recorder, SessionIdentity } from '../audit/recorder.ts'
import type { Config } from '../config/schema.ts'
import type { Leases } from '../credentials/leases.ts'
import type { Tickets } from '../credentials/tickets.ts'
import type { Verifier } from '../identity/verifier.ts'
import type { Policy } from '../policy/policy.ts'
import type { Challenge } from '../sasl/oauthbearer.ts'
import type { Logger } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { UpstreamTarget } from '../upstream/connect.ts'
import type { AdmissionDoor } from './admission.ts'
import type { Bars } from './bars.ts'
import type { CancelKey, CancelOutcome, KeyTable } from './cancel-keys.ts'
import type { WindowDoor } from './job-windows.ts'
import type { LiveSession, Registry } from './registry.ts'
import type { WarmUpstreams } from './warm-upstreams.ts'

export interface Snapshot {
  config: Config
  policy: Policy
  verifier: Verifier
  /** By entry of `databases`. */
  targets: ReadonlyMap<string, UpstreamTarget & { dbname: string }>
  secureContext: SecureContext | undefined
  /** What a client of OAUTHBEARER is told; undefined with more issuers than one. */
  challenge: Challenge | undefined
}

/**
 * Answers what a connection asks over HTTP, within times of its own. Resolves when the connection is closed and nothing that it
 * asked for is under way. Never rejects.
 */
export type ServeHttp = (stream: TLSSocket, identity: SessionIdentity) => Promise<void>

/** What there is once for all connections, also where several processes carry them. */
export interface SharedState {
  admission: AdmissionDoor
  leases: Pick<Leases, 'acquire'>
  windows: WindowDoor
  /** Jobs that an operator has ended. */
  bars: Pick<Bars, 'refuse'>
  /** Undefined where the configuration has no key for them. */
  readonly tickets: Tickets | undefined
  /** Passes a CancelRequest of that address on to the session whose key it has, wherever that is. */
  cancel(address: string, request: CancelKey): Promise<CancelOutcome>
}

export interface ProxyContext extends SharedState {
  current(): Snapshot
  draining(): boolean
  registry: Registry
  cancelKeys: Pick<KeyTable<LiveSession>, 'issue'>
  warm: WarmUpstreams
  http: ServeHttp
  recorder: Recorder
  metrics: Metrics
  log: Logger
}
