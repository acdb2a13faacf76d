/** One unit of a sink's work: look whether the file is still ours, open it, rotate it, write some bytes of one chunk. */
import type { Chunk, ChunkQueue } from './chunk-queue.ts'
import type { LineSinkOptions } from './line-sink.ts'
import type { Rotation } from './rotation.ts'

export interface SinkStep {
  /** With the next step the name of the file is compared with the open file. */
  checkName(): void
  readonly checkDue: boolean
  /** Without a chunk: everything but writing. @throws the system's error; the same step may be tried again. */
  run(chunk: Chunk | undefined): Promise<void>
}

export function sinkStep({ target, log }: LineSinkOptions, queue: ChunkQueue, rotating: Rotation): SinkStep {
  let checkDue = false

  const checkName = async (): Promise<void> => {
    checkDue = false
    if (!(await target.displaced())) return
    log('warn', 'the audit file was moved or removed; a new one is begun', { sink: target.name })
    await target.close()
    rotating.finished(undefined)
  }

  const open = async (chunk: Chunk | undefined): Promise<void> => {
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

  return {
    checkName() {
      checkDue = true
    },
    get checkDue() {
      return checkDue
    },
    async run(chunk) {
      if (checkDue) await checkName()
      await open(chunk)
      if (chunk === undefined || chunk.written === 0) {
        await rotating.run(chunk)
        await open(chunk)
      }
      if (chunk === undefined) return
      queue.advance(chunk, await target.write(chunk.bytes, chunk.written, chunk.length - chunk.written))
      if (chunk.written < chunk.length) return
      rotating.wrote(chunk)
      queue.shift()
    },
  }
}
