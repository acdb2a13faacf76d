/** Begins a new audit file by size or on demand, and keeps count of what each file holds. */
import type { Chunk } from './chunk-queue.ts'
import type { AuditLog, LineSinkOptions } from './line-sink.ts'
import { pruneRotated, setAside } from './rotated-files.ts'
import type { SinkTarget } from './sink-target.ts'

/** After a failed rename the next one by size is not tried with every chunk. */
const RETRY_MS = 10_000

export interface Rotation {
  /** Asked for and not done. */
  due(): boolean
  /** Resolves when the file was set aside; there is nothing to do for an empty file, a pipe or a device. */
  request(): Promise<void>
  /** Sets the file aside when that is due and leaves the target closed then. Called between lines only; never throws. */
  run(next: Chunk | undefined): Promise<void>
  wrote(chunk: Chunk): void
  /** The open file is finished: under its new name, or wherever somebody else put it. */
  finished(file: string | undefined): void
}

/** Closes the target and returns the finished file's new path; undefined where somebody else moved it before. @throws the system's error. */
async function moveAway(
  target: SinkTarget,
  { path, keep }: { path: string; keep: number },
  firstSeq: number,
  log: AuditLog,
): Promise<string | undefined> {
  // The name may have come to stand for another file by now, which is not ours to move.
  const file = (await target.displaced()) ? undefined : await setAside(path, Date.now(), firstSeq)
  await target.close()
  await pruneRotated(path, keep).catch((error: Error) => {
    log('warn', 'old audit files could not be removed', { sink: target.name, reason: error.message })
  })
  return file
}

type Request = { resolve: () => void; reject: (error: Error) => void }

export function rotation({ target, rotate, log, onRotated }: LineSinkOptions): Rotation {
  let firstSeq = 0
  let lastSeq = 0
  let count = 0
  let requests: Request[] = []
  let notBefore = 0

  const finished = (file: string | undefined): void => {
    const rotated = { file, firstSeq, lastSeq, count }
    firstSeq = 0
    lastSeq = 0
    count = 0
    onRotated(rotated)
  }

  return {
    due: () => requests.length > 0,
    request: () =>
      new Promise((resolve, reject) => {
        requests.push({ resolve, reject })
      }),
    async run(next) {
      const asked = requests
      const { size } = target
      const full =
        rotate !== undefined && (size ?? 0) + (next?.length ?? 0) > rotate.size && performance.now() >= notBefore
      if (asked.length === 0 && !full) return
      requests = []
      try {
        if (rotate !== undefined && size !== undefined && size > 0)
          finished(await moveAway(target, rotate, firstSeq, log))
        for (const request of asked) request.resolve()
      } catch (error) {
        const { message } = error as Error
        notBefore = performance.now() + RETRY_MS
        log('error', 'the audit file could not be rotated; it is written on', { sink: target.name, reason: message })
        for (const request of asked) request.reject(new Error(`audit ${target.name}: ${message}`))
      }
    },
    wrote(chunk) {
      if (count === 0) firstSeq = chunk.firstSeq
      lastSeq = chunk.lastSeq
      count += chunk.lines
    },
    finished,
  }
}
