/**
 * Carries lines to one target: one asynchronous write at a time, and nothing lost while the target is full, slow or away.
 * A write that failed goes on at the exact byte where it stopped, so that no line is torn or written twice.
 *
 * What was handed to the kernel survives a crash of the process; there is no fsync, so a power cut can cost the last seconds.
 */
import { type Chunk, chunkQueue } from './chunk-queue.ts'
import { rotation } from './rotation.ts'
import type { SinkTarget } from './sink-target.ts'

/** How long a line may wait in memory while its slab is not full. */
const FLUSH_MS = 50
/** Backlog under which a sink that failed counts as working again. */
const RECOVERED_BYTES = 256 * 1024
const RETRY_MS = { first: 20, most: 500, fullPipe: 10 }
/** A sink that makes progress is given so long to take the rest when it closes. */
const CLOSE_MS = 10_000
/** How often the name of the file is compared with the open file. */
const DISPLACED_CHECK_MS = 500

/** These pass while the descriptor stays good; after any other error the name is looked up again. */
const KEEPS_DESCRIPTOR = new Set(['ENOSPC', 'EDQUOT', 'EFBIG', 'EAGAIN'])

export type AuditLog = (level: 'info' | 'warn' | 'error', message: string, details?: object) => void

export interface Rotated {
  /** New path of the finished file; undefined when it was moved or removed by somebody else. */
  file: string | undefined
  firstSeq: number
  lastSeq: number
  count: number
}

export interface Gap {
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
  append(line: string, seq: number): void
  readonly failure: string | undefined
  /** @throws Error when the sink fails, or failed before everything appended so far was in it. */
  flush(): Promise<void>
  /** @throws Error when the finished file could not be moved away; lines then go on into it. */
  rotate(): Promise<void>
  /** Waits for the deadline at most. @throws Error when lines were left over. */
  close(): Promise<void>
}

type Waiter = { upTo: number; resolve: () => void; reject: (error: Error) => void }

/** Rejects when `left` did not change for `deadline` milliseconds, or after `CLOSE_MS`. */
function giveUp(left: () => number, deadline: number): { up: Promise<never>; stop: () => void } {
  const begun = performance.now()
  let before = left()
  let timer: NodeJS.Timeout | undefined
  const up = new Promise<never>((_, reject) => {
    timer = setInterval(() => {
      const now = left()
      const late = performance.now() - begun > CLOSE_MS
      if (now === before || late) reject(new Error(late ? 'it is too slow' : `no progress within ${deadline} ms`))
      before = now
    }, deadline)
  })
  return { up, stop: () => clearInterval(timer) }
}

export function lineSink(options: LineSinkOptions): LineSink {
  const { target, log } = options
  const queue = chunkQueue()
  const rotating = rotation(options)
  let failure: string | undefined
  let failedAt = 0
  let dropped: Gap | undefined
  let flushTimer: NodeJS.Timeout | undefined
  let flushDue = false
  let checkDue = false
  let running: Promise<void> | undefined
  let wake: (() => void) | undefined
  let stopped = false
  let steps = 0
  let waiters: Waiter[] = []

  const fail = (reason: string): void => {
    const text = `audit ${target.name}: ${reason}`
    const known = failure !== undefined
    failure = text
    const waiting = waiters
    waiters = []
    for (const waiter of waiting) waiter.reject(new Error(text))
    if (known) return
    failedAt = performance.now()
    log('error', 'the audit sink fails', { sink: target.name, reason })
    options.onFailure(text)
  }

  const recovered = (): void => {
    if (failure === undefined || queue.bytes > RECOVERED_BYTES) return
    failure = undefined
    const gap = dropped
    dropped = undefined
    const seconds = Math.round(performance.now() - failedAt) / 1_000
    log('info', 'the audit sink works again', { sink: target.name, seconds, dropped: gap?.count ?? 0 })
    if (gap !== undefined) options.onGap(gap)
    options.onFailure(undefined)
  }

  const settleWaiters = (): void => {
    const done = queue.appended - queue.bytes
    const ready = waiters.filter((waiter) => waiter.upTo <= done)
    if (ready.length === 0) return
    waiters = waiters.filter((waiter) => waiter.upTo > done)
    for (const waiter of ready) waiter.resolve()
  }

  const reopen = async (chunk: Chunk | undefined): Promise<void> => {
    const { same, torn } = await target.open()
    if (same) return
    // Another file, or another reader of the FIFO: it gets the line from its beginning.
    if (chunk !== undefined && chunk.written > 0) {
      const lineStart = chunk.bytes.lastIndexOf(0x0a, chunk.written - 1) + 1
      queue.advance(chunk, lineStart - chunk.written)
    }
    if (!torn) return
    log('warn', 'the audit file ends in the middle of a line; it stays, and ours begin on a new one', {
      sink: target.name,
    })
    await target.write(Buffer.from('\n'), 0, 1)
  }

  /** One unit of work. @throws the system's error. */
  const step = async (chunk: Chunk | undefined): Promise<void> => {
    if (checkDue) {
      checkDue = false
      if (await target.displaced()) {
        log('warn', 'the audit file was moved or removed; a new one is begun', { sink: target.name })
        await target.close()
        rotating.finished(undefined)
      }
    }
    await reopen(chunk)
    if (chunk === undefined || chunk.written === 0) {
      await rotating.run(chunk)
      await reopen(chunk)
    }
    if (chunk === undefined) return
    queue.advance(chunk, await target.write(chunk.bytes, chunk.written, chunk.length - chunk.written))
    if (chunk.written < chunk.length) return
    rotating.wrote(chunk)
    queue.shift()
  }

  const next = (): Chunk | undefined => {
    const chunk = queue.head(flushDue)
    if (chunk === undefined) flushDue = false
    return chunk
  }

  const pause = (ms: number): Promise<void> =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      wake = () => {
        clearTimeout(timer)
        resolve()
      }
    })

  /** After a late timer the completed write may still be waiting for its turn in the same round of the event loop. */
  const overdue = (): void => {
    const before = steps
    setImmediate(() => {
      if (running !== undefined && steps === before) fail(`no write completed within ${options.deadline} ms`)
    })
  }

  const work = async (): Promise<void> => {
    const deadline = setTimeout(overdue, options.deadline)
    let retry = RETRY_MS.first
    for (let chunk = next(); chunk !== undefined || checkDue || rotating.due(); chunk = next()) {
      const bytesBefore = queue.bytes
      try {
        await step(chunk)
        steps++
        if (chunk === undefined || queue.bytes < bytesBefore) {
          retry = RETRY_MS.first
          deadline.refresh()
        }
        settleWaiters()
        recovered()
      } catch (error) {
        if (stopped) break
        const { code = '', message } = error as NodeJS.ErrnoException
        // A pipe that is full for a moment is not a failure; the deadline decides.
        if (code !== 'EAGAIN') fail(message)
        if (!KEEPS_DESCRIPTOR.has(code)) await target.close().catch(() => {})
        await pause(code === 'EAGAIN' ? RETRY_MS.fullPipe : retry)
        retry = Math.min(retry * 2, RETRY_MS.most)
      }
      if (stopped) break
    }
    clearTimeout(deadline)
  }

  const start = (): void => {
    running ??= work().finally(() => {
      running = undefined
      // What came in between the loop's last look and here.
      if (!stopped && (queue.head(false) !== undefined || flushDue || checkDue || rotating.due())) start()
    })
  }

  const displacedCheck = setInterval(() => {
    checkDue = true
    start()
  }, DISPLACED_CHECK_MS)
  displacedCheck.unref()
  if (options.rotate === undefined) clearInterval(displacedCheck)

  const drop = (seq: number): void => {
    dropped ??= { firstSeq: seq, lastSeq: seq, count: 0 }
    dropped.lastSeq = seq
    dropped.count++
    if (failure === undefined) fail(`more than ${options.backlog.dropping} bytes wait for it`)
  }

  const flush = (): Promise<void> =>
    new Promise((resolve, reject) => {
      if (queue.bytes === 0) {
        if (failure === undefined) resolve()
        else reject(new Error(failure))
        return
      }
      waiters.push({ upTo: queue.appended, resolve, reject })
      flushDue = true
      wake?.()
      start()
    })

  return {
    append(line, seq) {
      if (stopped) return
      if (dropped !== undefined || queue.bytes > options.backlog.dropping) {
        drop(seq)
        return
      }
      if (queue.append(line, seq)) {
        if (failure === undefined && queue.bytes > options.backlog.failing) {
          fail(`more than ${options.backlog.failing} bytes wait for it`)
        }
        start()
      }
      flushTimer ??= setTimeout(() => {
        flushTimer = undefined
        flushDue = true
        start()
      }, FLUSH_MS)
    },
    get failure() {
      return failure
    },
    flush,
    async rotate() {
      // What was recorded before belongs into the old file, as far as that can be written.
      await flush().catch(() => {})
      const done = rotating.request()
      flushDue = true
      wake?.()
      start()
      await done
    },
    async close() {
      clearInterval(displacedCheck)
      clearTimeout(flushTimer)
      const give = giveUp(() => queue.bytes, options.deadline)
      try {
        await Promise.race([flush(), give.up])
      } catch (error) {
        const left = queue.bytes
        throw new Error(`audit ${target.name}: closed with ${left} bytes not written: ${(error as Error).message}`)
      } finally {
        give.stop()
        stopped = true
        wake?.()
        // A write that hangs keeps its descriptor until it returns: closing it now could hand the number to another file.
        const closed = (running ?? Promise.resolve()).then(() => target.close())
        await Promise.race([closed.catch(() => {}), pause(options.deadline)])
        wake?.()
      }
    },
  }
}
