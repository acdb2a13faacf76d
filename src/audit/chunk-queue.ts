/** Lines on their way to a sink, gathered into slabs: one write for some fifty statements instead of one each. */

const SLAB_BYTES = 256 * 1024
/** UTF-8 needs at most three bytes for a UTF-16 unit. */
const BYTES_PER_UNIT = 3
const SPARE_SLABS = 4

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
  append(line: string, seq: number): boolean
  /** The oldest full chunk; with `partial` also the slab that is still being filled, which is then closed. */
  head(partial: boolean): Chunk | undefined
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
  const full: Chunk[] = []
  const spare: Buffer[] = []
  const emptySlab = (): Chunk => ({
    bytes: spare.pop() ?? Buffer.allocUnsafeSlow(SLAB_BYTES),
    length: 0,
    written: 0,
    firstSeq: 0,
    lastSeq: 0,
    lines: 0,
  })
  let slab = emptySlab()
  let appended = 0
  let taken = 0
  const seal = (): void => {
    full.push(slab)
    slab = emptySlab()
  }
  return {
    append(line, seq) {
      const room = line.length * BYTES_PER_UNIT
      let sealed = false
      if (room > SLAB_BYTES - slab.length && slab.length > 0) {
        seal()
        sealed = true
      }
      if (room > SLAB_BYTES) {
        const bytes = Buffer.from(line)
        appended += bytes.length
        full.push({ bytes, length: bytes.length, written: 0, firstSeq: seq, lastSeq: seq, lines: 1 })
        return true
      }
      const written = slab.bytes.write(line, slab.length)
      slab.length += written
      appended += written
      if (slab.lines++ === 0) slab.firstSeq = seq
      slab.lastSeq = seq
      return sealed
    },
    head(partial) {
      if (full.length === 0 && partial && slab.length > 0) seal()
      return full[0]
    },
    shift() {
      const done = full.shift()
      if (done?.bytes.length === SLAB_BYTES && spare.length < SPARE_SLABS) spare.push(done.bytes)
    },
    get bytes() {
      return appended - taken
    },
    get appended() {
      return appended
    },
    advance(chunk, count) {
      chunk.written += count
      taken += count
    },
  }
}
