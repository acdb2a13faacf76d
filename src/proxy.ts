/** The composition root: opens what the configuration names, joins it, and takes it down again in the opposite order. */
import { randomUUID } from 'node:crypto'
import { createServer, type Server, type Socket } from 'node:net'
import { hostname } from 'node:os'
import { openRecorder } from './audit/open.ts'
import type { Diagnostic } from './config/diagnostics.ts'
import type { ListenAddress } from './config/scalars.ts'
import { createApi } from './http/api-server.ts'
import { type ControlServer, startControl } from './http/control.ts'
import { startHttp } from './http/server.ts'
import { createAdmission } from './session/admission.ts'
import { createBars } from './session/bars.ts'
import { createCancelDesk, createKeyTable } from './session/cancel-keys.ts'
import { createCredentials } from './session/credentials.ts'
import { closeDisallowedWindows, drainSessions, endDisallowed } from './session/drain.ts'
import { handleConnection } from './session/handle-connection.ts'
import { createJobWindows } from './session/job-windows.ts'
import { kill } from './session/kill.ts'
import { bindListener } from './session/listener.ts'
import { overview } from './session/operator.ts'
import type { ProxyContext, Snapshot } from './session/proxy-context.ts'
import { createRegistry, type LiveSession } from './session/registry.ts'
import { needsRestart, policyLoaded, policyRejected } from './session/reload-report.ts'
import { buildSnapshot, type SnapshotResult } from './session/snapshot.ts'
import { type Opened, opening, startFaultIn } from './session/start-fault.ts'
import { createWarmUpstreams } from './session/warm-upstreams.ts'
import { createLog, type Logger } from './telemetry/log.ts'
import { createMetrics } from './telemetry/metrics.ts'

/** Milliseconds that connections have which are not sessions yet, once the sessions are over. */
const HANG_UP = 1_000

export interface ProxyOptions {
  configFile: string
  /** For `${VAR}` in the configuration. */
  env: NodeJS.ProcessEnv
  /** stderr at the configured level without it. */
  log?: Logger
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

async function open({ configFile, env, log: givenLog }: ProxyOptions): Promise<StartResult> {
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
  const boot = randomUUID()
  await using stack = new AsyncDisposableStack()
  const opened = <T>(path: readonly string[], what: Opened, work: () => Promise<T>): Promise<T> =>
    opening(path.join('.'), first.locate(path), what, work)
  const auditFile: Opened = { kind: 'file', path: config.audit.file?.path ?? 'standard output' }
  const recorder = await opened(['audit', 'file', 'path'], auditFile, () =>
    openRecorder(config.audit, { instance, log: (level, message, details) => log[level](details ?? {}, message) }),
  )
  stack.defer(() => recorder.close())

  let draining = false
  const metrics = createMetrics({
    sessions: () => registry.size,
    unauthenticated: () => admission.unauthenticated,
    credentials: () => credentials.live(),
    warm: () => warm.size,
    auditAccepting: () => recorder.accepting,
    auditEvents: () => recorder.recorded,
    issuerKeys: () => issuerKeys(snapshot),
  })
  const registry = createRegistry()
  const admission = createAdmission(() => ({
    maxUnauthenticated: snapshot.config.listen.max_unauthenticated,
    maxUnauthenticatedPerAddress: snapshot.config.listen.max_unauthenticated_per_address,
    maxSessions: snapshot.config.listen.max_sessions,
  }))
  const warm = createWarmUpstreams(metrics.warmUpstream)
  const credentials = createCredentials({
    targets: () => snapshot.targets,
    ticketKeys: () => snapshot.config.tickets?.key ?? [],
    instance: { name: instance, boot },
    ...{ recorder, metrics, log, onTakeBack: warm.drop },
  })
  stack.defer(() => credentials.close())
  stack.defer(() => snapshot.verifier.close())
  const cancelKeys = createKeyTable<LiveSession>()
  const windows = createJobWindows()
  const bars = createBars()
  const context: ProxyContext = {
    current: () => snapshot,
    draining: () => draining,
    admission,
    registry,
    cancelKeys,
    cancel: createCancelDesk(async (request) => {
      const session = cancelKeys.find(request)
      await session?.cancel()
      return session !== undefined
    }),
    leases: credentials.leases,
    windows,
    bars,
    get tickets() {
      return snapshot.config.tickets && credentials.tickets
    },
    http: (stream, whose) => api(stream, whose),
    ...{ recorder, metrics, log, warm },
  }
  const api = createApi(context)
  recorder.onAcceptingChange((accepting) => {
    if (!accepting) metrics.auditFailure()
  })
  metrics.policyVersion(snapshot.policy.version)
  recorder.event(policyLoaded(snapshot.policy, undefined))
  void snapshot.verifier.prime()

  const connections = new Map<Socket, Promise<void>>()
  const listener = createListener(context, connections)
  const http = await opened(['http', 'address'], config.http.address, () =>
    startHttp(config.http.address, {
      ready: () => readiness(context),
      metrics: () => metrics.render(),
      contentType: metrics.contentType,
    }),
  )
  stack.defer(() => http.close())
  const controlSocket: Opened = { kind: 'unix', path: config.control?.socket ?? '' }
  const control = await opened(['control', 'socket'], controlSocket, () => openControl(context, instance))
  stack.defer(() => control?.close())
  const address = await opened(['listen', 'address'], config.listen.address, () =>
    bindListener(listener, config.listen.address),
  )
  // EMFILE and its like concern one accept; the listener goes on.
  listener.on('error', (err) => log.error({ err }, 'a connection could not be accepted'))
  const kept = stack.move()
  log.info({ address, http: http.address, instance, policy: snapshot.policy.version }, 'pgusher is ready')

  async function reload(): Promise<boolean> {
    const next = await build(snapshot)
    if (draining) {
      if (next.ok) next.snapshot.verifier.close()
      return false
    }
    if (!next.ok) {
      metrics.policyReload('failure')
      recorder.event(policyRejected(snapshot.policy, next.diagnostics))
      for (const { file, line, column, message } of next.diagnostics) log.error({ file, line, column }, message)
      log.error('the configuration was not reloaded; the last good one stays in force')
      return false
    }
    const previous = snapshot
    snapshot = next.snapshot
    warm.clear()
    // Verifications under way began with the old one; they end with their connections' deadline.
    setTimeout(() => previous.verifier.close(), previous.config.listen.handshake_timeout).unref()
    metrics.policyReload('success')
    metrics.policyVersion(snapshot.policy.version)
    recorder.event(policyLoaded(snapshot.policy, previous.policy))
    for (const warning of next.warnings) log.warn({ file: warning.file, line: warning.line }, warning.message)
    for (const setting of needsRestart(previous, snapshot))
      log.warn({ setting }, 'this setting was changed and needs a restart')
    const ended = endDisallowed(registry.all(), snapshot.policy, Date.now())
    const windowsClosed = closeDisallowedWindows(windows, snapshot.policy, Date.now())
    log.info({ policy: snapshot.policy.version, sessionsEnded: ended, windowsClosed }, 'configuration reloaded')
    return true
  }

  async function shutdown(): Promise<boolean> {
    draining = true
    warm.close()
    listener.close()
    log.info({ sessions: registry.size }, 'shutting down')
    await drainSessions(registry, snapshot.config.drain_timeout)
    const hangingUp = setTimeout(() => {
      for (const socket of connections.keys()) socket.destroy()
    }, HANG_UP)
    await Promise.all(connections.values())
    clearTimeout(hangingUp)
    const clean = await credentials.revokeAll()
    await kept.disposeAsync()
    return clean
  }

  // Two reloads at a time could end with the older file in force.
  const reloadInTurn = oneAtATime(() => reload().catch(logged(log, 'the configuration was not reloaded', false)))
  const rotateAudit = () => recorder.rotate().catch(logged(log, 'the audit file was not rotated', undefined))
  return { ok: true, proxy: { address, httpAddress: http.address, reload: reloadInTurn, rotateAudit, shutdown } }
}

/** What a signal asks for may fail, and costs no session. */
function logged<T>(log: Logger, text: string, result: T): (err: unknown) => T {
  return (err) => {
    log.error({ err }, text)
    return result
  }
}

function issuerKeys({ verifier }: Snapshot): Record<string, boolean> {
  return Object.fromEntries(Object.entries(verifier.status()).map(([issuer, { usable }]) => [issuer, usable]))
}

function oneAtATime<T>(work: () => Promise<T>): () => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  return () => {
    const next = last.then(work)
    last = next
    return next
  }
}

function createListener(context: ProxyContext, connections: Map<Socket, Promise<void>>): Server {
  // Half-open, because a job may have sent its last byte and still wait for the answer.
  const server = createServer({ allowHalfOpen: true, keepAlive: true, keepAliveInitialDelay: 60_000 }, (socket) => {
    context.metrics.connection()
    const handled = handleConnection(socket, context)
      .catch((err: unknown) => context.log.error({ err }, 'a connection failed in an unexpected way'))
      .finally(() => connections.delete(socket))
    connections.set(socket, handled)
  })
  return server
}

/** Undefined where the configuration has none. */
async function openControl(context: ProxyContext, instance: string): Promise<ControlServer | undefined> {
  const { control } = context.current().config
  if (control === undefined) return undefined
  return startControl(control.socket, {
    overview: () => overview(context, instance, Date.now()),
    kill: (order) => {
      context.warm.clear()
      return kill(order, context, Date.now())
    },
    onFailure: (err) => context.log.error({ err }, 'a request on the control socket failed in an unexpected way'),
  })
}

function readiness(context: ProxyContext): { ok: boolean; reasons: string[] } {
  const reasons: string[] = []
  if (context.draining()) reasons.push('shutting down')
  if (!context.recorder.accepting) reasons.push(`audit: ${context.recorder.failure ?? 'not writable'}`)
  return { ok: reasons.length === 0, reasons }
}
