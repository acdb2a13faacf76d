/** Runs a sink's steps one after the other while there is something to do, and tries again what failed. */
import type { Chunk, ChunkQueue } from './chunk-queue.ts'
import type { SinkHealth } from './sink-health.ts'
import type { SinkTarget } from './sink-target.ts'

const RETRY_MS = { first: 20, most: 500, fullPipe: 10 }
/** These pass while the descriptor stays good; after any other error the name is looked up again. */
const KEEPS_DESCRIPTOR = new Set(['ENOSPC', 'EDQUOT', 'EFBIG', 'EAGAIN'])

export interface SinkWork {
  target: SinkTarget
  queue: ChunkQueue
  health: SinkHealth
  /** Milliseconds without progress after which the sink counts as failing. */
  deadline: number
  next(): Chunk | undefined
  /** Something else than writing is to be done. */
  otherWork(): boolean
  /** `next` would give a chunk. */
  writable(): boolean
  step(chunk: Chunk | undefined): Promise<void>
}

export interface SinkLoop {
  /** Does nothing while it runs. */
  start(): void
  /** Ends the pause before the next attempt. */
  wake(): void
  /** Ends after the present step and resolves then; a write that hangs is waited for. */
  stop(): Promise<void>
}

/** A pause that can be cut short. */
function pauses(): { pause(ms: number): Promise<void>; wake(): void } {
  let wake: () => void = () => {}
  return {
    pause: (ms) =>
      new Promise((resolve) => {
        const timer = setTimeout(resolve, ms)
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      }),
    wake: () => wake(),
  }
}

/** Calls `late` when `alive` was not called for `ms`. */
function watchdog(ms: number, late: () => void): { alive(): void; stop(): void } {
  let steps = 0
  const overdue = (): void => {
    const before = steps
    // After a round of the event loop that took long itself, the completed write may still wait for its turn in it.
    setImmediate(() => {
      if (steps === before) late()
    })
  }
  const timer = setTimeout(overdue, ms)
  return {
    alive() {
      steps++
      timer.refresh()
    },
    stop() {
      steps++
      clearTimeout(timer)
    },
  }
}

export function sinkLoop(work: SinkWork): SinkLoop {
  const { target, queue, health } = work
  const { pause, wake } = pauses()
  let running: Promise<void> | undefined
  let stopped = false
  let retry = RETRY_MS.first

  const attempt = async (chunk: Chunk | undefined, alive: () => void): Promise<void> => {
    const before = queue.bytes
    try {
      await work.step(chunk)
      if (chunk === undefined || queue.bytes < before) {
        retry = RETRY_MS.first
        alive()
      }
      health.progressed(queue.appended - queue.bytes, queue.bytes)
    } catch (error) {
      if (stopped) return
      const { code = '', message } = error as NodeJS.ErrnoException
      // A pipe that is full for a moment is not a failure; the deadline decides.
      if (code !== 'EAGAIN') health.fail(message)
      if (!KEEPS_DESCRIPTOR.has(code)) await target.close().catch(() => {})
      await pause(code === 'EAGAIN' ? RETRY_MS.fullPipe : retry)
      retry = Math.min(retry * 2, RETRY_MS.most)
    }
  }

  const run = async (): Promise<void> => {
    const { alive, stop } = watchdog(work.deadline, () => health.fail(`no write completed within ${work.deadline} ms`))
    for (let chunk = work.next(); chunk !== undefined || work.otherWork(); chunk = work.next()) {
      await attempt(chunk, alive)
      if (stopped) break
    }
    stop()
  }

  const start = (): void => {
    if (stopped) return
    running ??= run().finally(() => {
      running = undefined
      // What came in between the loop's last look and here.
      if (work.writable() || work.otherWork()) start()
    })
  }

  return {
    start,
    wake,
    async stop() {
      stopped = true
      wake()
      await running
    },
  }
}
