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
  const { target, log, backlog: bound } = options
  const waiters = flushWaiters()
  let failure: string | undefined
  let failedAt = 0
  let dropped: Gap | undefined

  const fail = (reason: string): void => {
    const known = failure !== undefined
    failure = `audit ${target.name}: ${reason}`
    waiters.fail(failure)
    if (known) return
    failedAt = performance.now()
    log('error', 'the audit sink fails', { sink: target.name, reason })
    options.onFailure(failure)
  }

  const recover = (): void => {
    const gap = dropped
    const seconds = Math.round(performance.now() - failedAt) / 1_000
    failure = undefined
    dropped = undefined
    log('info', 'the audit sink works again', { sink: target.name, seconds, dropped: gap?.count ?? 0 })
    if (gap !== undefined) options.onGap(gap)
    options.onFailure(undefined)
  }

  return {
    get failure() {
      return failure
    },
    fail,
    progressed(done, backlog) {
      waiters.settle(done)
      if (failure !== undefined && backlog <= RECOVERED_BYTES) recover()
    },
    drops(seq, backlog) {
      if (failure === undefined && backlog > bound.failing) fail(`more than ${bound.failing} bytes wait for it`)
      if (dropped === undefined && backlog <= bound.dropping) return false
      dropped ??= { firstSeq: seq, lastSeq: seq, count: 0 }
      dropped.lastSeq = seq
      dropped.count++
      return true
    },
    wait: (upTo) =>
      new Promise((resolve, reject) => {
        waiters.add({ upTo, resolve, reject })
      }),
  }
}
