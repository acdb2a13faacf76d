/** Reading the configuration again. */
import type { Recorder } from '../audit/recorder.ts'
import type { Config } from '../config/schema.ts'
import type { Logger } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import { closeDisallowedWindows } from './drain.ts'
import type { JobWindows } from './job-windows.ts'
import type { Snapshot } from './proxy-context.ts'
import { needsRestart, policyLoaded, policyRejected } from './reload-report.ts'
import type { Built, SnapshotResult } from './snapshot.ts'

export interface ReloadParts {
  current(): Snapshot
  draining(): boolean
  build(previous: Snapshot): Promise<SnapshotResult>
  /** Puts it in force. @returns how many sessions it ended */
  replace(next: Built): number | Promise<number>
  windows: Pick<JobWindows, 'closeDisallowed'>
  recorder: Recorder
  metrics: Metrics
  log: Logger
}

/** @returns false where something in the configuration is wrong, and nothing has changed. Never rejects; one at a time, in order */
export function createReload(parts: ReloadParts): () => Promise<boolean> {
  const { log } = parts
  const { config: started } = parts.current()
  // Two reloads at a time could end with the older file in force.
  return oneAtATime(() =>
    reload(parts, started).catch((err: unknown) => {
      log.error({ err }, 'the configuration was not reloaded')
      return false
    }),
  )
}

async function reload(
  { current, draining, build, replace, windows, ...parts }: ReloadParts,
  started: Config,
): Promise<boolean> {
  const { recorder, metrics, log } = parts
  const previous = current()
  const next = await build(previous)
  if (draining()) {
    if (next.ok) next.snapshot.verifier.close()
    return false
  }
  if (!next.ok) {
    metrics.policyReload('failure')
    recorder.event(policyRejected(previous.policy, next.diagnostics))
    for (const { file, line, column, hint, message } of next.diagnostics)
      log.error({ file, line, column, hint }, message)
    log.error('the configuration was not reloaded; the last good one stays in force')
    return false
  }
  const { policy } = next.snapshot
  const ended = replace(next)
  const windowsClosed = closeDisallowedWindows(windows, policy, Date.now())
  metrics.policyReload('success')
  metrics.policyVersion(policy.version)
  recorder.event(policyLoaded(policy, previous.policy))
  for (const warning of next.warnings) log.warn({ file: warning.file, line: warning.line }, warning.message)
  for (const setting of needsRestart(started, next.snapshot.config))
    log.warn({ setting }, 'this setting is not what pgusher was started with, and needs a restart')
  log.info({ policy: policy.version, sessionsEnded: await ended, windowsClosed }, 'configuration reloaded')
  return true
}

function oneAtATime<T>(work: () => Promise<T>): () => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  return () => {
    const next = last.then(work)
    last = next
    return next
  }
}
