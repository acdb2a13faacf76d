/** Connections: the listener and the sessions behind it, in this process or in others. */
import { createServer, type Server, type Socket } from 'node:net'
import type { Recorder } from '../audit/recorder.ts'
import type { ListenAddress } from '../config/scalars.ts'
import type { MintedCredential } from '../credentials/minter.ts'
import type { Logger } from '../telemetry/log.ts'
import type { MetricFamily, Metrics } from '../telemetry/metrics.ts'
import type { BarReason, BarTarget } from './bars.ts'
import { type CancelKey, createKeyTable } from './cancel-keys.ts'
import { drainSessions, endDisallowed } from './drain.ts'
import { handleConnection } from './handle-connection.ts'
import { bindListener } from './listener.ts'
import type { ProxyContext, ServeHttp, SharedState, Snapshot } from './proxy-context.ts'
import { createRegistry, type LiveSession, type Registry } from './registry.ts'
import type { OwnState } from './shared-state.ts'
import type { Built } from './snapshot.ts'
import { createWarmUpstreams } from './warm-upstreams.ts'

/** Milliseconds that connections have which are not sessions yet, once the sessions are over. */
const HANG_UP = 1_000

/** Whoever carries the connections: this process, or others that it watches over. */
export interface Front {
  /** @throws the system's error; the address has the port that was taken where 0 was asked for */
  listen(address: ListenAddress): Promise<ListenAddress>
  /** Sessions now. */
  readonly size: number
  sessions(): readonly LiveSession[] | Promise<readonly LiveSession[]>
  /** Cancels the session whose key this is; false where none has it. */
  cancel(request: CancelKey): Promise<boolean>
  /** `current` is another snapshot now. @returns how many sessions were ended, which it would not let in */
  replaced(previous: Snapshot, next: Built): number | Promise<number>
  /** Nobody is to come in behind the bar once this is done. */
  barred(target: BarTarget, why: BarReason, life: number): void | Promise<void>
  /** Ends the upstream connections that no session has: of a credential that is being taken back, or all. */
  endWarm(credential?: MintedCredential): void
  /** What keeps it from serving; empty where nothing does. */
  unready(): string[]
  /** Of other processes than this. */
  metrics(): Promise<MetricFamily[][]>
  /** Begins new audit files in other processes than this. */
  rotateAudit(): Promise<void>
  /** No new connections; sessions end as `drainSessions` says. Resolves when no connection is left. @param timeout milliseconds */
  drain(timeout: number): Promise<void>
}

export interface FrontParts {
  first: Built
  current(): Snapshot
  draining(): boolean
  shared: OwnState
  recorder: Recorder
  metrics: Metrics
  log: Logger
}

/** Connections in this process. */
export interface LocalFront extends Pick<Front, 'size' | 'cancel' | 'endWarm'> {
  readonly registry: Registry
  /** @param reusePort other processes listen there too, and the system shares connections out */
  listen(address: ListenAddress, reusePort?: boolean): Promise<ListenAddress>
  replaced(previous: Snapshot): number
  drain(timeout: number): Promise<void>
}

export interface LocalFrontOptions extends Pick<ProxyContext, 'current' | 'draining' | 'recorder' | 'metrics' | 'log'> {
  shared: SharedState
  /** Of this process among those that share the port. */
  place?: number
  createApi(context: ProxyContext): ServeHttp
}

export function openLocalFront({ shared, place, createApi, ...rest }: LocalFrontOptions): LocalFront {
  const { metrics, log, current } = rest
  const registry = createRegistry()
  const warm = createWarmUpstreams(metrics.warmUpstream)
  const cancelKeys = createKeyTable<LiveSession>(place)
  const context = contextOf(shared, {
    ...rest,
    registry,
    warm,
    cancelKeys,
    http: (stream, whose) => api(stream, whose),
  })
  const api = createApi(context)
  const connections = new Map<Socket, Promise<void>>()
  const listener = createListener(context, connections)
  metrics.watch({ sessions: () => registry.size, warm: () => warm.size, issuerKeys: () => issuerKeys(current()) })
  void current().verifier.prime()
  return {
    registry,
    get size() {
      return registry.size
    },
    async listen(address, reusePort = false) {
      const bound = await bindListener(listener, address, { reusePort })
      // EMFILE and its like concern one accept; the listener goes on.
      listener.on('error', (err) => log.error({ err }, 'a connection could not be accepted'))
      return bound
    },
    async cancel(request) {
      const session = cancelKeys.find(request)
      await session?.cancel()
      return session !== undefined
    },
    replaced(previous) {
      warm.clear()
      // Verifications under way began with the old one; they end with their connections' deadline.
      setTimeout(() => previous.verifier.close(), previous.config.listen.handshake_timeout).unref()
      return endDisallowed(registry.all(), current().policy, Date.now())
    },
    endWarm: (credential) => (credential === undefined ? warm.clear() : warm.drop(credential)),
    async drain(timeout) {
      warm.close()
      listener.close()
      await drainSessions(registry, timeout)
      const hangingUp = setTimeout(() => {
        for (const socket of connections.keys()) socket.destroy()
      }, HANG_UP)
      await Promise.all(connections.values())
      clearTimeout(hangingUp)
    },
  }
}

function contextOf(shared: SharedState, own: Omit<ProxyContext, keyof SharedState>): ProxyContext {
  const { admission, leases, windows, bars, cancel } = shared
  return {
    ...{ ...own, admission, leases, windows, bars, cancel },
    // A reload may bring them, or take them away.
    get tickets() {
      return shared.tickets
    },
  }
}

/** All in this process. */
export function openFront(parts: FrontParts, createApi: LocalFrontOptions['createApi']): Front {
  const local = openLocalFront({ ...parts, createApi })
  return {
    ...{ listen: local.listen, cancel: local.cancel, replaced: local.replaced },
    ...{ endWarm: local.endWarm, drain: local.drain },
    get size() {
      return local.size
    },
    sessions: () => local.registry.all(),
    // They are in the same memory, and asked for each connection.
    barred: () => {},
    unready: () => [],
    metrics: async () => [],
    rotateAudit: async () => {},
  }
}

function issuerKeys({ verifier }: Snapshot): Record<string, boolean> {
  return Object.fromEntries(Object.entries(verifier.status()).map(([issuer, { usable }]) => [issuer, usable]))
}

function createListener(context: ProxyContext, connections: Map<Socket, Promise<void>>): Server {
  // Half-open, because a job may have sent its last byte and still wait for the answer.
  return createServer({ allowHalfOpen: true, keepAlive: true, keepAliveInitialDelay: 60_000 }, (socket) => {
    context.metrics.connection()
    const handled = handleConnection(socket, context)
      .catch((err: unknown) => context.log.error({ err }, 'a connection failed in an unexpected way'))
      .finally(() => connections.delete(socket))
    connections.set(socket, handled)
  })
}
