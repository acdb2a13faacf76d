/** The composition root: opens what the configuration names, joins it, and takes it down again in the opposite order. */
import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { openRecorder } from './audit/open.ts'
import type { Diagnostic } from './config/diagnostics.ts'
import type { ListenAddress } from './config/scalars.ts'
import { createApi } from './http/api-server.ts'
import { type ControlServer, startControl } from './http/control.ts'
import { startHttp } from './http/server.ts'
import { type Front, type FrontParts, openFront } from './session/front.ts'
import { type KillContext, kill } from './session/kill.ts'
import { overview } from './session/operator.ts'
import type { Snapshot } from './session/proxy-context.ts'
import { createReload } from './session/reload.ts'
import { policyLoaded } from './session/reload-report.ts'
import { openSharedState } from './session/shared-state.ts'
import { buildSnapshot, type SnapshotResult } from './session/snapshot.ts'
import { type Opened, opening, startFaultIn } from './session/start-fault.ts'
import { createLog, type Logger } from './telemetry/log.ts'
import { createMetrics } from './telemetry/metrics.ts'

export interface ProxyOptions {
  configFile: string
  /** For `${VAR}` in the configuration. */
  env: NodeJS.ProcessEnv
  /** stderr at the configured level without it. */
  log?: Logger
  /** Who carries the connections; this process without it. */
  carrier?: Carrier
  /** Milliseconds that an event waits for its text's class, where others than a job wait for it; 250 without it. */
  classifyWithin?: number
}

export interface Carrier {
  /** Label of this process's metrics, where there are others. */
  process: string
  /** @param instance this pgusher's name */
  open(parts: FrontParts, instance: string): Front
}

export interface Proxy {
  /** With the port that was taken where 0 was asked for. */
  readonly address: ListenAddress
  readonly httpAddress: ListenAddress
  /** Reads configuration, policy and certificates again. False: something in them is wrong, and nothing has changed. */
  reload(): Promise<boolean>
  /** Begins a new audit file; where that fails, the log says so. */
  rotateAudit(): Promise<void>
  /** Stops listening, lets statements finish, takes the credentials back. False where something could not be taken back. */
  shutdown(): Promise<boolean>
}

export type StartResult = { ok: true; proxy: Proxy } | { ok: false; diagnostics: Diagnostic[] }

/** What is wrong with the file, or with what it names, comes as diagnostics. @throws what is wrong with pgusher itself */
export async function startProxy(options: ProxyOptions): Promise<StartResult> {
  try {
    return await open(options)
  } catch (thrown) {
    const fault = startFaultIn(thrown)
    if (fault === undefined) throw thrown
    return { ok: false, diagnostics: [fault.diagnostic] }
  }
}

async function open({ configFile, env, log: givenLog, carrier, classifyWithin }: ProxyOptions): Promise<StartResult> {
  const bootLog = givenLog ?? createLog({ level: 'info' })
  const build = (previous?: Snapshot): Promise<SnapshotResult> =>
    buildSnapshot(configFile, env, (level, message, details) => bootLog[level](details, message), previous?.verifier)
  const first = await build()
  if (!first.ok) return first
  let snapshot = first.snapshot
  const { config } = snapshot
  const log = givenLog ?? createLog({ level: config.log.level })
  for (const warning of first.warnings) log.warn({ file: warning.file, line: warning.line }, warning.message)

  const instance = config.instance ?? hostname()
  await using stack = new AsyncDisposableStack()
  const opened = <T>(path: readonly string[], what: Opened, work: () => Promise<T>): Promise<T> =>
    opening(path.join('.'), first.locate(path), what, work)
  const auditFile: Opened = { kind: 'file', path: config.audit.file?.path ?? 'standard output' }
  const recorder = await opened(['audit', 'file', 'path'], auditFile, () =>
    openRecorder(config.audit, {
      ...{ instance, classifyWithin },
      log: (level, message, details) => log[level](details ?? {}, message),
    }),
  )
  stack.defer(() => recorder.close())

  let draining = false
  const gauges = { auditAccepting: () => recorder.accepting, auditEvents: () => recorder.recorded }
  const metrics = createMetrics(gauges, carrier?.process)
  const parts = { current: () => snapshot, draining: () => draining, recorder, metrics, log }
  const shared = openSharedState({
    ...parts,
    instance: { name: instance, boot: randomUUID() },
    onTakeBack: (credential) => front.endWarm(credential),
    cancel: (request) => front.cancel(request),
  })
  stack.defer(() => shared.credentials.close())
  stack.defer(() => snapshot.verifier.close())
  const frontParts = { ...parts, first, shared }
  const front: Front = carrier?.open(frontParts, instance) ?? openFront(frontParts, createApi)
  recorder.onAcceptingChange((accepting) => {
    if (!accepting) metrics.auditFailure()
  })
  metrics.policyVersion(snapshot.policy.version)
  recorder.event(policyLoaded(snapshot.policy, undefined))

  const http = await opened(['http', 'address'], config.http.address, () =>
    startHttp(config.http.address, {
      ready: () => readiness(parts, front),
      metrics: async () => metrics.render(await front.metrics()),
      contentType: metrics.contentType,
    }),
  )
  stack.defer(() => http.close())
  const controlSocket: Opened = { kind: 'unix', path: config.control?.socket ?? '' }
  const control = await opened(['control', 'socket'], controlSocket, () =>
    openControl(config.control?.socket, { ...parts, shared, front, instance }),
  )
  stack.defer(() => control?.close())
  const address = await opened(['listen', 'address'], config.listen.address, () => front.listen(config.listen.address))
  const kept = stack.move()
  log.info({ address, http: http.address, instance, policy: snapshot.policy.version }, 'pgusher is ready')

  const reload = createReload({
    ...{ ...parts, build, windows: shared.windows },
    replace(next) {
      const previous = snapshot
      snapshot = next.snapshot
      return front.replaced(previous, next)
    },
  })

  async function shutdown(): Promise<boolean> {
    draining = true
    log.info({ sessions: front.size }, 'shutting down')
    await front.drain(snapshot.config.drain_timeout)
    const clean = await shared.credentials.revokeAll()
    await kept.disposeAsync()
    return clean
  }

  const rotateAudit = (): Promise<void> => rotate(parts, front)
  return { ok: true, proxy: { address, httpAddress: http.address, reload, rotateAudit, shutdown } }
}

/** What a signal asks for may fail, and costs no session. */
async function rotate({ recorder, log }: Pick<FrontParts, 'recorder' | 'log'>, front: Front): Promise<void> {
  const results = await Promise.allSettled([recorder.rotate(), front.rotateAudit()])
  for (const result of results)
    if (result.status === 'rejected') log.error({ err: result.reason }, 'the audit file was not rotated')
}

interface Operated extends Pick<FrontParts, 'current' | 'recorder' | 'log' | 'shared'> {
  front: Front
  instance: string
}

/** Undefined where the configuration has none. */
async function openControl(socket: string | undefined, operated: Operated): Promise<ControlServer | undefined> {
  if (socket === undefined) return undefined
  const { current, recorder, log, shared, front, instance } = operated
  const { windows, bars } = shared
  const registry = { all: () => front.sessions() }
  return startControl(socket, {
    overview: () => overview({ registry, windows, bars }, instance, Date.now()),
    kill: (order) => {
      front.endWarm()
      const { tickets } = shared
      return kill(order, { registry, windows, bars: barsOf(operated), tickets, current, recorder, log }, Date.now())
    },
    onFailure: (err) => log.error({ err }, 'a request on the control socket failed in an unexpected way'),
  })
}

/** A bar holds wherever a connection may come. */
function barsOf({ shared: { bars }, front }: Operated): KillContext['bars'] {
  return {
    get size() {
      return bars.size
    },
    bar(target, why, life) {
      bars.bar(target, why, life)
      return front.barred(target, why, life)
    },
  }
}

function readiness({ draining, recorder }: Pick<FrontParts, 'draining' | 'recorder'>, front: Front) {
  const reasons: string[] = []
  if (draining()) reasons.push('shutting down')
  if (!recorder.accepting) reasons.push(`audit: ${recorder.failure ?? 'not writable'}`)
  reasons.push(...front.unready())
  return { ok: reasons.length === 0, reasons }
}
