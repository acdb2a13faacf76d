/**
 * A process that has loaded its program and waits for its first call, so that a worker that dies is soon replaced. On two cores with
 * twenty processes waiting for them another one listened after 0.5 to 0.9 s; where it had to be loaded first, after 4 to 18 s.
 */
import type { ForkWorker, WorkerProcess } from './slot.ts'

export interface Spare {
  /** The one that waits, or a new one. */
  fork: ForkWorker
  /** From now on one waits. */
  keep(): void
  close(): void
}

/** Milliseconds. Loading takes a core for a moment, which belongs to those who have just begun. */
const DELAY = 2_000

export function createSpare(fork: ForkWorker): Spare {
  let waiting: WorkerProcess | undefined
  let timer: NodeJS.Timeout | undefined
  let kept = false

  function later(): void {
    clearTimeout(timer)
    if (kept) timer = setTimeout(begin, DELAY).unref()
  }
  function begin(): void {
    const begun = fork()
    waiting = begun
    void begun.exited.then(() => {
      if (waiting !== begun) return
      waiting = undefined
      later()
    })
  }
  return {
    fork() {
      const taken = waiting ?? fork()
      waiting = undefined
      later()
      return taken
    },
    keep() {
      kept = true
      later()
    },
    close() {
      kept = false
      clearTimeout(timer)
      const last = waiting
      waiting = undefined
      last?.kill()
    },
  }
}
