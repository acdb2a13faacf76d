/** Keeps one classification worker running: replaced on demand, and when it dies by itself. */
import { Worker } from 'node:worker_threads'
import type { Classification } from './classification.ts'
import type { AuditLog } from './line-sink.ts'
import type { WorkerMessage } from './sql-worker.ts'

/** How long the first worker may take to come up before pgusher goes on without it. */
const START_MS = 10_000
/** Replacing costs some 50 ms of CPU, and anybody with a session can force it: not more often than this. */
const MIN_LIFE_MS = 200
/** A text of 64 KiB takes a few MB; a runaway parse must not take the process's memory. */
const MAX_HEAP_MB = 128

export interface WorkerSlot {
  /** Idle or busy, but able to take a text. */
  readonly ready: boolean
  /** Resolves when the first worker is ready, or when it is not worth waiting longer. */
  readonly started: Promise<void>
  /** One text at a time. */
  send(sql: string): void
  /** What the present worker still says is ignored. */
  replace(): void
  close(): Promise<void>
}

export interface WorkerSlotOptions {
  log: AuditLog
  onReady(): void
  onClassified(classification: Classification): void
  /** The worker failed on its text or died; it is not ready until `onReady`. */
  onCrash(): void
}

/** tsc rewrites imports to `.js` and leaves URLs alone, so the worker's extension is this module's own. */
const WORKER_URL = new URL(`./sql-worker${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)

interface Handlers {
  ready(): void
  classified(classification: Classification): void
  crashed(what: string, reason: string): void
}

/** What a worker says after it was replaced is not heard: `isCurrent` is false for it then. */
function spawnWorker(handlers: Handlers, isCurrent: (worker: Worker) => boolean): Worker {
  const worker = new Worker(WORKER_URL, { resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB }, stderr: true })
  // A process that has nothing else to do may end.
  worker.unref()
  worker.on('message', (message: WorkerMessage) => {
    if (!isCurrent(worker)) return
    if (message.type === 'ready') handlers.ready()
    else if (message.type === 'classified') handlers.classified(message.classification)
    else handlers.crashed('a statement crashed the SQL parser; its worker is replaced', message.reason)
  })
  const ended = (reason: string): void => {
    if (isCurrent(worker)) handlers.crashed("the SQL parser's worker ended; it is replaced", reason)
  }
  worker.on('error', (error) => ended(error.name))
  worker.on('exit', () => ended('exit'))
  return worker
}

export function workerSlot(options: WorkerSlotOptions): WorkerSlot {
  const { promise: started, resolve: firstReady } = Promise.withResolvers<void>()
  let worker: Worker | undefined
  let ready = false
  let closed = false
  let bornAt = 0
  let rebirth: NodeJS.Timeout | undefined

  const handlers: Handlers = {
    ready() {
      ready = true
      firstReady()
      options.onReady()
    },
    classified: options.onClassified,
    crashed(what, reason) {
      options.log('warn', what, { reason })
      options.onCrash()
    },
  }
  const retire = (): Promise<unknown> => {
    const old = worker
    worker = undefined
    ready = false
    clearTimeout(rebirth)
    return old?.terminate() ?? Promise.resolve()
  }

  const spawn = (): void => {
    bornAt = performance.now()
    worker = spawnWorker(handlers, (which) => which === worker)
  }
  spawn()
  // Who waits for the first worker may have nothing else that keeps the process alive, and would never hear that it cannot start.
  const enough = setTimeout(firstReady, START_MS)
  void started.then(() => clearTimeout(enough))

  return {
    get ready() {
      return ready
    },
    started,
    send(sql) {
      worker?.postMessage(sql)
    },
    replace() {
      void retire()
      if (closed) return
      rebirth = setTimeout(spawn, Math.max(0, MIN_LIFE_MS - (performance.now() - bornAt)))
      rebirth.unref()
    },
    async close() {
      closed = true
      firstReady()
      await retire()
    },
  }
}
