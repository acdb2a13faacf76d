/** A worker: carries connections, with an audit of its own, and asks the primary for what there is once. It ends with the primary. */
import { openRecorder } from '../audit/open.ts'
import type { Recorder } from '../audit/recorder.ts'
import { messageOf } from '../credentials/failure.ts'
import { AccessError } from '../errors.ts'
import { createApi } from '../http/api-server.ts'
import { type Bars, createBars } from '../session/bars.ts'
import { type LocalFront, openLocalFront } from '../session/front.ts'
import type { Snapshot } from '../session/proxy-context.ts'
import { rebuildSnapshot, type SnapshotSource } from '../session/snapshot.ts'
import { createLog, type Logger } from '../telemetry/log.ts'
import { createMetrics, type Metrics } from '../telemetry/metrics.ts'
import { type Channel, createChannel, type Handlers, type Port } from './channel.ts'
import type { ToPrimary, ToWorker, WorkerSettings } from './protocol.ts'
import { createRemoteState, type RemoteState } from './remote-state.ts'
import { toError } from './sent-error.ts'
import { shareTickets, type TicketKeys } from './tls-tickets.ts'

/** Milliseconds in which sessions end when the primary is gone; their roles cannot be taken back by anybody but the next start. */
const WITHOUT_PRIMARY = 2_000

/** Milliseconds that whoever cancels is kept waiting: below the time in which the primary takes no answer for a wrong key. */
const CANCEL = 2_000

interface Running {
  front: LocalFront
  shared: RemoteState
  recorder: Recorder
  metrics: Metrics
  log: Logger
  replace(source: SnapshotSource): number
  drain(timeout: number): Promise<void>
}

/** @param exit ends the process */
export function runWorker(port: Port, exit: (code: number) => void): void {
  const bars = createBars()
  // Apart from what is running: new ones may come while that is being opened.
  let keys: TicketKeys | undefined
  let running: Running | undefined
  const now = (): Running => {
    if (running === undefined) throw new TypeError('a worker is asked before it is open')
    return running
  }
  const end = async (timeout: number, code: number): Promise<void> => {
    try {
      await running?.drain(timeout)
      exit(code)
    } catch (err) {
      running?.log.error({ err }, 'a worker could not end in order')
      exit(1)
    }
  }
  const handlers: Handlers<ToWorker> = {
    async open(settings) {
      for (const bar of settings.bars) bars.put(bar)
      keys = settings.keys
      try {
        running = await openWorker(settings, { primary, bars, keys: () => keys ?? settings.keys })
        await running.front.listen(settings.address, true)
      } catch (cause) {
        // The operator reads it, who started this.
        throw new AccessError('internal_error', `worker ${settings.worker}: ${messageOf(cause)}`, { cause })
      }
    },
    replace(next) {
      keys = next.keys
      return now().replace(next.source)
    },
    ticketKeys(next) {
      keys = next
    },
    ...sessionHandlers(() => now().front),
    bar: ({ target, why, life }) => bars.bar(target, why, life),
    endWarm({ credential }) {
      if (credential === undefined) return running?.front.endWarm()
      const taken = running?.shared.takenBack(credential)
      if (taken !== undefined) running?.front.endWarm(taken)
    },
    metrics: () => now().metrics.collect(),
    rotateAudit: () => now().recorder.rotate(),
    ping: () => {},
    drain: ({ timeout }) => end(timeout, 0),
  }
  const primary: Channel<ToPrimary> = createChannel<ToPrimary, ToWorker>(port, handlers, (name, err) =>
    running?.log.error({ err, call: name }, 'what the primary asked for failed'),
  )
  port.onClose(() => {
    running?.log.error('the process that started this worker is gone: its sessions end')
    setTimeout(() => exit(1), WITHOUT_PRIMARY)
    void end(0, 1)
  })
}

interface Surroundings {
  primary: Channel<ToPrimary>
  bars: Bars
  keys(): TicketKeys
}

async function openWorker(
  { worker, instance, audit, source }: WorkerSettings,
  { primary, bars, keys }: Surroundings,
): Promise<Running> {
  const log = createLog(source.config.log).child({ worker })
  const say = (level: 'info' | 'warn' | 'error', message: string, details?: object): void =>
    log[level](details ?? {}, message)
  const build = (from: SnapshotSource, previous?: Snapshot): Snapshot => {
    const made = rebuildSnapshot(from, say, previous?.verifier)
    if (made.secureContext !== undefined) shareTickets(made.secureContext, keys)
    return made
  }
  let snapshot = build(source)
  const recorder = await openRecorder(audit, { instance, log: say })
  const metrics = createMetrics(
    { auditAccepting: () => recorder.accepting, auditEvents: () => recorder.recorded },
    String(worker),
  )
  const tellAudit = (): void =>
    primary.tell('audit', { failure: recorder.accepting ? undefined : (recorder.failure ?? 'not writable') })
  recorder.onAcceptingChange((accepting) => {
    if (!accepting) metrics.auditFailure()
    tellAudit()
  })
  tellAudit()
  let draining = false
  const current = (): Snapshot => snapshot
  const shared = createRemoteState(primary, bars, current)
  const parts = { current, draining: () => draining, recorder, metrics, log }
  const front = openLocalFront({ ...parts, shared, place: worker - 1, createApi })
  return {
    ...{ front, shared, recorder, metrics, log },
    replace(from) {
      const previous = snapshot
      snapshot = build(from, previous)
      return front.replaced(previous)
    },
    async drain(timeout) {
      draining = true
      await front.drain(timeout)
      await recorder.close()
    },
  }
}

type SessionCalls = Pick<Handlers<ToWorker>, 'sessions' | 'record' | 'end' | 'ended' | 'cancel'>

function sessionHandlers(front: () => LocalFront): SessionCalls {
  const find = (id: string) =>
    front()
      .registry.all()
      .find((session) => session.id === id)
  return {
    sessions: () =>
      front()
        .registry.all()
        .map(({ id, principal, request, grant, admission, address, startedAt, statements, busy }) => {
          return { id, principal, request, grant, admission, address, startedAt, statements, busy }
        }),
    record: ({ session, event }) => find(session)?.record(event),
    end: ({ session, reason, error }) => find(session)?.end(reason, toError(error)),
    async ended(session) {
      await find(session)?.ended
    },
    cancel: (request) => underWay(front().cancel(request)),
  }
}

/** A wrong key is known at once; a right one may have a PostgreSQL behind it that is slow to take a CancelRequest. */
async function underWay(cancelled: Promise<boolean>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<true>((resolve) => {
    timer = setTimeout(resolve, CANCEL, true)
  })
  try {
    return await Promise.race([cancelled, late])
  } finally {
    clearTimeout(timer)
  }
}
