/**
 * Carries lines to one target: one asynchronous write at a time, and nothing lost while the target is full, slow or away.
 * A write that failed goes on at the exact byte where it stopped, so that no line is torn or written twice.
 *
 * What was handed to the kernel survives a crash of the process; there is no fsync, so a power cut can cost the last seconds.
 */
import { chunkQueue, type Line } from './chunk-queue.ts'
import { rotation } from './rotation.ts'
import { type Gap, sinkHealth } from './sink-health.ts'
import { sinkLoop } from './sink-loop.ts'
import { sinkStep } from './sink-step.ts'
import type { SinkTarget } from './sink-target.ts'

/** How long a line may wait in memory while its slab is not full. */
const FLUSH_MS = 50
/** How often the name of the file is compared with the open file. */
const NAME_CHECK_MS = 500
/** When it closes, a sink that makes progress is given so long to take the rest, and one that makes none at least so long. */
const CLOSE_MS = { progress: 10_000, stalled: 1_000 }

export type AuditLog = (level: 'info' | 'warn' | 'error', message: string, details?: object) => void

export interface Rotated {
  /** New path of the finished file; undefined when it was moved or removed by somebody else. */
  file: string | undefined
  firstSeq: number
  lastSeq: number
  count: number
}

export interface LineSinkOptions {
  target: SinkTarget
  /** Milliseconds without progress after which the sink counts as failing. */
  deadline: number
  /** Bytes in memory beyond which the sink counts as failing, and beyond which lines are dropped and counted. */
  backlog: { failing: number; dropping: number }
  /** Files only; bytes and number of finished files. */
  rotate?: { path: string; size: number; keep: number }
  log: AuditLog
  onFailure(failure: string | undefined): void
  onRotated(rotated: Rotated): void
  onGap(gap: Gap): void
}

export interface LineSink {
  append(line: Line, seq: number): void
  readonly failure: string | undefined
  /** @throws Error when the sink fails, or failed before everything appended so far was in it. */
  flush(): Promise<void>
  /** @throws Error when the finished file could not be moved away; lines then go on into it. */
  rotate(): Promise<void>
  /** Waits while there is progress, for ten seconds at most. @throws Error when lines were left over. */
  close(): Promise<void>
}

/** Rejects when `left` did not change for `deadline` milliseconds (and a second), or after `CLOSE_MS.progress`. */
function giveUp(left: () => number, deadline: number): { up: Promise<never>; stop: () => void } {
  const begun = performance.now()
  const patience = Math.max(deadline, CLOSE_MS.stalled)
  let before = left()
  let timer: NodeJS.Timeout | undefined
  const up = new Promise<never>((_, reject) => {
    timer = setInterval(() => {
      const now = left()
      const late = performance.now() - begun > CLOSE_MS.progress
      if (now === before || late) reject(new Error(late ? 'it is too slow' : `no progress within ${patience} ms`))
      before = now
    }, patience)
  })
  return { up, stop: () => clearInterval(timer) }
}

interface Core {
  append(line: Line, seq: number): void
  /** Begins to write the slab that is not full yet. */
  push(): void
  flush(): Promise<void>
  stop(): Promise<void>
}

function sinkCore(options: LineSinkOptions) {
  const queue = chunkQueue()
  const health = sinkHealth(options)
  const rotating = rotation(options)
  const step = sinkStep(options, queue, rotating)
  let flushTimer: NodeJS.Timeout | undefined
  let stopped = false
  const loop = sinkLoop({
    target: options.target,
    queue,
    health,
    deadline: options.deadline,
    next: () => queue.head(),
    otherWork: () => step.checkDue || rotating.due(),
    writable: () => queue.head() !== undefined,
    step: step.run,
  })
  const push = (): void => {
    queue.seal()
    loop.start()
  }
  const core: Core = {
    append(line, seq) {
      if (stopped || health.drops(seq, queue.bytes)) return
      if (queue.append(line, seq)) loop.start()
      flushTimer ??= setTimeout(() => {
        flushTimer = undefined
        push()
      }, FLUSH_MS)
    },
    push,
    flush() {
      if (queue.bytes === 0) {
        return health.failure === undefined ? Promise.resolve() : Promise.reject(new Error(health.failure))
      }
      const done = health.wait(queue.appended)
      loop.wake()
      push()
      return done
    },
    stop() {
      stopped = true
      clearTimeout(flushTimer)
      return loop.stop()
    },
  }
  return { core, queue, health, rotating, step, loop }
}

export function lineSink(options: LineSinkOptions): LineSink {
  return new CheckedSink(options)
}

/** A class, since a literal with a getter is a dictionary to V8, and every event is appended here. */
class CheckedSink implements LineSink {
  readonly append: LineSink['append']
  readonly flush: LineSink['flush']
  readonly #options: LineSinkOptions
  readonly #parts: ReturnType<typeof sinkCore>
  readonly #nameCheck: NodeJS.Timeout | undefined

  constructor(options: LineSinkOptions) {
    this.#options = options
    this.#parts = sinkCore(options)
    const { core, step, loop } = this.#parts
    this.append = core.append
    this.flush = core.flush
    if (options.rotate === undefined) return
    this.#nameCheck = setInterval(() => {
      step.checkName()
      loop.start()
    }, NAME_CHECK_MS)
    this.#nameCheck.unref()
  }

  get failure(): string | undefined {
    return this.#parts.health.failure
  }

  async rotate(): Promise<void> {
    const { core, loop, rotating } = this.#parts
    // What was recorded before belongs into the old file, as far as that can be written.
    await core.flush().catch(() => {})
    const done = rotating.request()
    loop.wake()
    core.push()
    await done
  }

  async close(): Promise<void> {
    const { target, deadline } = this.#options
    const { core, queue } = this.#parts
    clearInterval(this.#nameCheck)
    const give = giveUp(() => queue.bytes, deadline)
    try {
      await Promise.race([core.flush(), give.up])
    } catch (error) {
      const { message } = error as Error
      throw new Error(`audit ${target.name}: closed with ${queue.bytes} bytes not written: ${message}`)
    } finally {
      give.stop()
      // A write that hangs keeps its descriptor until it returns: closing it now could hand the number to another file.
      const closed = core.stop().then(() => target.close())
      const { up, stop } = giveUp(() => 0, deadline)
      await Promise.race([closed, up]).catch(() => {})
      stop()
    }
  }
}
