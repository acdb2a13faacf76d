/** Whether a sink works, what it had to drop, and who waits for it. */
import type { LineSinkOptions } from './line-sink.ts'

/** Backlog under which a sink that failed counts as working again. */
const RECOVERED_BYTES = 256 * 1024

export interface Gap {
  firstSeq: number
  lastSeq: number
  count: number
}

export interface SinkHealth {
  readonly failure: string | undefined
  /** Also rejects everybody who waits, each time. */
  fail(reason: string): void
  /** A step was done; `done` bytes of all are in the sink, `backlog` are not. */
  progressed(done: number, backlog: number): void
  /** True when the line with this seq must be dropped: from the bound on until the sink works again. */
  drops(seq: number, backlog: number): boolean
  /** Resolves when `upTo` bytes of all are in the sink. @throws Error at the next failure. */
  wait(upTo: number): Promise<void>
}

type Waiter = { upTo: number; resolve: () => void; reject: (error: Error) => void }

function flushWaiters(): { add(waiter: Waiter): void; settle(done: number): void; fail(text: string): void } {
  let waiters: Waiter[] = []
  return {
    add(waiter) {
      waiters.push(waiter)
    },
    settle(done) {
      const ready = waiters.filter(({ upTo }) => upTo <= done)
      if (ready.length === 0) return
      waiters = waiters.filter(({ upTo }) => upTo > done)
      for (const { resolve } of ready) resolve()
    },
    fail(text) {
      const all = waiters
      waiters = []
      for (const { reject } of all) reject(new Error(text))
    },
  }
}

export function sinkHealth(options: LineSinkOptions): SinkHealth {
  return new Health(options)
}

class Health implements SinkHealth {
  readonly #options: LineSinkOptions
  readonly #waiters = flushWaiters()
  #failure: string | undefined
  #failedAt = 0
  #dropped: Gap | undefined

  constructor(options: LineSinkOptions) {
    this.#options = options
  }

  get failure(): string | undefined {
    return this.#failure
  }

  fail(reason: string): void {
    const { target, log, onFailure } = this.#options
    const known = this.#failure !== undefined
    this.#failure = `audit ${target.name}: ${reason}`
    this.#waiters.fail(this.#failure)
    if (known) return
    this.#failedAt = performance.now()
    log('error', 'the audit sink fails', { sink: target.name, reason })
    onFailure(this.#failure)
  }

  progressed(done: number, backlog: number): void {
    this.#waiters.settle(done)
    if (this.#failure !== undefined && backlog <= RECOVERED_BYTES) this.#recover()
  }

  drops(seq: number, backlog: number): boolean {
    const bound = this.#options.backlog
    if (this.#failure === undefined && backlog > bound.failing)
      this.fail(`more than ${bound.failing} bytes wait for it`)
    if (this.#dropped === undefined && backlog <= bound.dropping) return false
    this.#dropped ??= { firstSeq: seq, lastSeq: seq, count: 0 }
    this.#dropped.lastSeq = seq
    this.#dropped.count++
    return true
  }

  wait(upTo: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiters.add({ upTo, resolve, reject })
    })
  }

  #recover(): void {
    const { target, log, onFailure, onGap } = this.#options
    const gap = this.#dropped
    const seconds = Math.round(performance.now() - this.#failedAt) / 1_000
    this.#failure = undefined
    this.#dropped = undefined
    log('info', 'the audit sink works again', { sink: target.name, seconds, dropped: gap?.count ?? 0 })
    if (gap !== undefined) onGap(gap)
    onFailure(undefined)
  }
}
