/** Lines on their way to a sink, gathered into slabs: one write for some fifty statements instead of one each. */

const SLAB_BYTES = 256 * 1024
/** UTF-8 needs at most three bytes for a UTF-16 unit. */
const BYTES_PER_UNIT = 3
const SPARE_SLABS = 4

/** A line with its newline that is written straight into the slab; `write` returns the position behind it. */
export interface WrittenLine {
  /** It has at most so many bytes. */
  readonly room: number
  write(into: Uint8Array, at: number): number
}

/** With its newline. Not kept: it may be another one after the call. */
export type Line = string | WrittenLine

/** Whole lines; `written` bytes of them are in the sink. */
export interface Chunk {
  bytes: Buffer
  length: number
  written: number
  firstSeq: number
  lastSeq: number
  lines: number
}

export interface ChunkQueue {
  /** True when a slab became full, which is the moment to write. */
  append(line: Line, seq: number): boolean
  /** What is in the slab that is being filled is to be written too; later lines go into another one. */
  seal(): void
  /** The oldest chunk that is full or sealed. */
  head(): Chunk | undefined
  /** The head is in the sink. */
  shift(): void
  /** Bytes that are not in the sink yet. */
  readonly bytes: number
  /** Bytes ever appended. */
  readonly appended: number
  /** `count` bytes of the head went into the sink; negative when they must go again. */
  advance(chunk: Chunk, count: number): void
}

export function chunkQueue(): ChunkQueue {
  return new Slabs()
}

/** A class, since a literal with getters is a dictionary to V8, and every event is appended here. */
class Slabs implements ChunkQueue {
  readonly #full: Chunk[] = []
  readonly #spare: Buffer[] = []
  #slab = this.#emptySlab()
  #appended = 0
  #taken = 0

  get bytes(): number {
    return this.#appended - this.#taken
  }

  get appended(): number {
    return this.#appended
  }

  append(line: Line, seq: number): boolean {
    const room = roomOf(line)
    let sealed = false
    if (room > SLAB_BYTES - this.#slab.length && this.#slab.length > 0) {
      this.seal()
      sealed = true
    }
    if (room > SLAB_BYTES) {
      const bytes = bytesOf(line)
      this.#appended += bytes.length
      this.#full.push({ bytes, length: bytes.length, written: 0, firstSeq: seq, lastSeq: seq, lines: 1 })
      return true
    }
    const slab = this.#slab
    const end = writeLine(line, slab.bytes, slab.length)
    this.#appended += end - slab.length
    slab.length = end
    if (slab.lines++ === 0) slab.firstSeq = seq
    slab.lastSeq = seq
    return sealed
  }

  seal(): void {
    if (this.#slab.length === 0) return
    this.#full.push(this.#slab)
    this.#slab = this.#emptySlab()
  }

  head(): Chunk | undefined {
    return this.#full[0]
  }

  shift(): void {
    const done = this.#full.shift()
    if (done?.bytes.length === SLAB_BYTES && this.#spare.length < SPARE_SLABS) this.#spare.push(done.bytes)
  }

  advance(chunk: Chunk, count: number): void {
    chunk.written += count
    this.#taken += count
  }

  #emptySlab(): Chunk {
    const bytes = this.#spare.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES)
    return { bytes, length: 0, written: 0, firstSeq: 0, lastSeq: 0, lines: 0 }
  }
}

/** At most so many bytes. */
function roomOf(line: Line): number {
  return typeof line === 'string' ? line.length * BYTES_PER_UNIT : line.room
}

/** @returns the position behind it */
function writeLine(line: Line, into: Buffer, at: number): number {
  return typeof line === 'string' ? at + into.write(line, at) : line.write(into, at)
}

function bytesOf(line: Line): Buffer {
  if (typeof line === 'string') return Buffer.from(line)
  const bytes = Buffer.allocUnsafeSlow(line.room)
  return bytes.subarray(0, line.write(bytes, 0))
}
