/** Keeps one classification worker running: replaced on demand, and when it dies by itself. */
import { Worker } from 'node:worker_threads'
import type { Classification } from './classification.ts'
import type { AuditLog } from './line-sink.ts'
import type { ClassifyRequest, WorkerMessage } from './sql-worker.ts'

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

export function workerSlot(options: WorkerSlotOptions): WorkerSlot {
  let worker: Worker | undefined
  let ready = false
  let closed = false
  let bornAt = 0
  let rebirth: NodeJS.Timeout | undefined
  let requestId = 0
  let firstReady: () => void = () => {}
  const started = new Promise<void>((resolve) => {
    firstReady = resolve
    setTimeout(resolve, START_MS).unref()
  })

  const spawn = (): void => {
    if (closed) return
    bornAt = performance.now()
    const born = new Worker(WORKER_URL, { resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB }, stderr: true })
    worker = born
    born.unref()
    born.on('message', (message: WorkerMessage) => {
      if (worker === born) receive(message)
    })
    born.on('error', (error) => died(born, error.name))
    born.on('exit', () => died(born, 'exit'))
  }

  const receive = (message: WorkerMessage): void => {
    if (message.type === 'ready') {
      ready = true
      firstReady()
      options.onReady()
    } else if (message.type === 'crashed') {
      options.log('warn', 'a statement crashed the SQL parser; the worker is replaced', { reason: message.reason })
      options.onCrash()
    } else if (message.id === requestId) {
      options.onClassified(message.classification)
    }
  }

  const died = (which: Worker, reason: string): void => {
    if (worker !== which || closed) return
    options.log('warn', "the SQL parser's worker ended; it is replaced", { reason })
    options.onCrash()
  }

  const replace = (): void => {
    const old = worker
    worker = undefined
    ready = false
    void old?.terminate()
    clearTimeout(rebirth)
    rebirth = setTimeout(spawn, Math.max(0, MIN_LIFE_MS - (performance.now() - bornAt)))
    rebirth.unref()
  }

  spawn()
  return {
    get ready() {
      return ready
    },
    started,
    send(sql) {
      requestId++
      worker?.postMessage({ id: requestId, sql } satisfies ClassifyRequest)
    },
    replace,
    async close() {
      closed = true
      clearTimeout(rebirth)
      const last = worker
      worker = undefined
      await last?.terminate()
    },
  }
}
