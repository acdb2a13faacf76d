/** What there is once, however many processes carry connections: credentials, the limits of jobs, their windows and who is barred. */
import type { Recorder } from '../audit/recorder.ts'
import type { MintedCredential } from '../credentials/minter.ts'
import type { Logger } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { type Admission, createAdmission } from './admission.ts'
import { type Bars, createBars } from './bars.ts'
import { type CancelKey, createCancelDesk } from './cancel-keys.ts'
import { type Credentials, createCredentials } from './credentials.ts'
import { createJobWindows, type JobWindows } from './job-windows.ts'
import type { SharedState, Snapshot } from './proxy-context.ts'

/** As it is where it is kept. */
export interface OwnState extends SharedState {
  admission: Admission
  windows: JobWindows
  bars: Bars
  credentials: Credentials
}

export interface OwnStateOptions {
  current(): Snapshot
  instance: { name: string; boot: string }
  /** A credential is about to be taken back: what still uses it must go. */
  onTakeBack(credential: MintedCredential): void
  /** Cancels the session whose key this is; false where none has it. */
  cancel(request: CancelKey): Promise<boolean>
  recorder: Recorder
  metrics: Metrics
  log: Logger
}

/** Sweeps from now on, until `credentials` are closed. */
export function openSharedState({ current, cancel, ...options }: OwnStateOptions): OwnState {
  const listen = () => current().config.listen
  const credentials = createCredentials({
    targets: () => current().targets,
    ticketKeys: () => current().config.tickets?.key ?? [],
    ...options,
  })
  const admission = createAdmission(() => ({
    maxUnauthenticated: listen().max_unauthenticated,
    maxUnauthenticatedPerAddress: listen().max_unauthenticated_per_address,
    maxSessions: listen().max_sessions,
  }))
  options.metrics.watch({ unauthenticated: () => admission.unauthenticated, credentials: () => credentials.live() })
  return {
    admission,
    windows: createJobWindows(),
    bars: createBars(),
    credentials,
    leases: credentials.leases,
    get tickets() {
      return current().config.tickets && credentials.tickets
    },
    cancel: createCancelDesk(cancel),
  }
}
