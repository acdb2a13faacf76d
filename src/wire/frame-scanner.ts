/**
 * Walks message headers (type byte and length, "Message Formats" in the PostgreSQL documentation) across chunk boundaries
 * and leaves the bytes where they are. Whoever handles a message sees as much of its body as it asked for; everything else is
 * forwarded unread. Decoding and encoding again was measured at three to four times the CPU on small transactions and 16 to 24
 * times on row streams.
 *
 * A header is never released before its handler has seen it whole: up to four bytes of a split header are held back and put
 * before the next chunk. A body is released as it arrives, so a message that its handler refuses late has been sent in part
 * and can only end with the connection.
 */

/** Answers of `onHeader`: a number of body bytes to show, with DROP added to take the message out of the stream, or STOP. */
export const DROP = 0x40000000
export const STOP = -1

export interface FrameHandler {
  /**
   * At a whole header, before anything of the message is released. `length` is the body's, in bytes, already checked.
   * @returns how many bytes of the body `onBody` shall see (0 for none; at most `length` is shown), plus DROP to take the message
   *   out of the stream, or STOP to release nothing from this message on.
   */
  onHeader(type: number, length: number): number
  /**
   * The asked-for prefix of the body, in `buffer[start, end)`, once; only valid during the call. `length` is the whole body's.
   * @returns false to stop: nothing from this chunk's part of the message on is released.
   */
  onBody(type: number, buffer: Buffer, start: number, end: number, length: number): boolean
  /** Parts of a body behind the shown prefix, in order, for those who hash or check what they don't keep. */
  onRest?(type: number, buffer: Buffer, start: number, end: number, last: boolean): boolean
  /**
   * Messages of one of these types, at most two, that follow each other and lie whole in a chunk are told in one call of `onRun` instead of one of
   * `onHeader` each: a result of small rows has two thousand of them in 64 KiB.
   */
  readonly runs?: readonly number[]
  /** `count` messages with `bytes` in all, headers included. @returns false where they are to be taken one by one. */
  onRun?(type: number, count: number, bytes: number): boolean
  /** A dropped message has come whole; what is released now stands in its place. */
  onDropped(type: number): void
}

export interface FrameScanner {
  /**
   * Takes the next chunk and gives what may be released to `release`, as one view of the chunk unless something was dropped.
   * @param apart what ends a message of an earlier chunk is released by itself, so that `release` finds `atBoundary` true
   * @returns false when stopped, by the handler or by a length that cannot be (then `violation` says why); later calls do nothing.
   */
  scan(chunk: Buffer, release: (bytes: Buffer) => void, apart?: boolean): boolean
  /**
   * True when the released bytes end at the end of a message. False for good once it was stopped in the middle of one: whatever
   * were written then would be read as the rest of it.
   */
  readonly atBoundary: boolean
  /** At a boundary, and no part of a next header is held back either: nothing is lost where another reader goes on. */
  readonly between: boolean
  readonly violation: string | undefined
}

const HEADER = 5

export function createFrameScanner(handler: FrameHandler, maxLength: (type: number) => number): FrameScanner {
  return new Scanner(handler, maxLength)
}

/** A class, since a literal with getters has a hidden class of its own each time, and this is read for every chunk of every session. */
class Scanner implements FrameScanner {
  readonly #handler: FrameHandler
  readonly #maxLength: (type: number) => number
  readonly #runType: number | undefined
  readonly #otherRunType: number | undefined
  readonly #maxRunLength: number
  #held: Buffer | undefined
  /** Bytes of the current message that are still to come and wanted by nobody. */
  #skip = 0
  #dropping = false
  #wantsRest = false
  #type = 0
  #length = 0
  #prefix = 0
  #collecting: Buffer | undefined
  #collected = 0
  #stopped = false
  /** Stopped in a message of which a part is released. */
  #torn = false
  #violation: string | undefined

  constructor(handler: FrameHandler, maxLength: (type: number) => number) {
    this.#handler = handler
    this.#maxLength = maxLength
    const runs = handler.runs ?? []
    ;[this.#runType, this.#otherRunType] = runs
    this.#maxRunLength = Math.min(...runs.map((type) => maxLength(type)))
  }

  get atBoundary(): boolean {
    return this.#skip === 0 && this.#collecting === undefined && !this.#torn
  }

  get between(): boolean {
    return this.atBoundary && this.#held === undefined
  }

  get violation(): string | undefined {
    return this.#violation
  }

  scan(input: Buffer, release: (bytes: Buffer) => void, apart = false): boolean {
    if (this.#stopped) return false
    const chunk = this.#held === undefined ? input : Buffer.concat([this.#held, input])
    this.#held = undefined
    let position = 0
    /** Where the bytes begin that are released next. */
    let from = 0
    if (this.#skip > 0 || this.#collecting !== undefined) {
      position = this.#resume(chunk)
      if (position < 0) {
        this.#torn = true
        return this.#stopAt(chunk, 0, 0, release)
      }
      if (this.#dropping) {
        from = position
        if (this.#skip === 0 && this.#collecting === undefined) this.#handler.onDropped(this.#type)
      }
      if (apart && this.atBoundary) {
        release(chunk.subarray(from, position))
        from = position
      }
    }
    while (chunk.length - position >= HEADER) {
      this.#type = chunk[position]!
      if (this.#type === this.#runType || this.#type === this.#otherRunType) {
        const behind = this.#run(chunk, position)
        if (behind > position) {
          position = behind
          continue
        }
      }
      const declared = int32(chunk, position + 1)
      if (declared < 4 || declared - 4 > this.#maxLength(this.#type)) {
        this.#violation = `a message of type ${describeType(this.#type)} with the length ${declared}`
        return this.#stopAt(chunk, from, position, release)
      }
      this.#length = declared - 4
      const end = this.#begin(chunk, position)
      if (end < 0) return this.#stopAt(chunk, from, position, release)
      if (this.#dropping) {
        if (position > from) release(chunk.subarray(from, position))
        from = end
        if (this.#skip === 0 && this.#collecting === undefined) this.#handler.onDropped(this.#type)
      }
      position = end
    }
    if (position < chunk.length) this.#held = Buffer.from(chunk.subarray(position))
    if (position > from) release(from === 0 && position === chunk.length ? chunk : chunk.subarray(from, position))
    return true
  }

  /** The end of those messages like the one at `position` that lie whole in the chunk, once the handler has taken them. */
  #run(chunk: Buffer, position: number): number {
    const type = chunk[position]
    const { length } = chunk
    let at = position
    let count = 0
    while (length - at >= HEADER && chunk[at] === type) {
      const declared = int32(chunk, at + 1)
      if (declared < 4 || declared >= length - at || declared - 4 > this.#maxRunLength) break
      at += 1 + declared
      count++
    }
    return count > 0 && this.#handler.onRun!(this.#type, count, at - position) ? at : position
  }

  /** Takes up a message that began in an earlier chunk. Returns where the next message starts, or -1 when stopped. */
  #resume(chunk: Buffer): number {
    let position = 0
    if (this.#collecting !== undefined) {
      position = Math.min(this.#prefix - this.#collected, chunk.length)
      this.#collecting = grown(this.#collecting, this.#collected, Math.min(this.#prefix, this.#collected + position))
      this.#collected += chunk.copy(this.#collecting, this.#collected, 0, position)
      if (this.#collected < this.#prefix) return position
      const body = this.#collecting
      this.#collecting = undefined
      if (!this.#handler.onBody(this.#type, body, 0, this.#prefix, this.#length)) return -1
    }
    if (this.#skip > 0 && position < chunk.length) {
      const part = Math.min(this.#skip, chunk.length - position)
      this.#skip -= part
      if (this.#wantsRest && !this.#handler.onRest!(this.#type, chunk, position, position + part, this.#skip === 0))
        return -1
      position += part
    }
    return position
  }

  /** Decides about the message whose header is at `position`. Returns the end of its bytes in this chunk, or -1 when stopped. */
  #begin(chunk: Buffer, position: number): number {
    const answer = this.#handler.onHeader(this.#type, this.#length)
    if (answer === STOP) return -1
    this.#dropping = answer >= DROP
    const wanted = this.#dropping ? answer - DROP : answer
    const bodyStart = position + HEADER
    const available = chunk.length - bodyStart
    if (wanted <= 0) {
      this.#wantsRest = false
      this.#skip = Math.max(0, this.#length - available)
      return bodyStart + this.#length - this.#skip
    }
    this.#prefix = Math.min(wanted, this.#length)
    this.#wantsRest = this.#prefix < this.#length && this.#handler.onRest !== undefined
    if (available < this.#prefix) {
      this.#collecting = grown(undefined, 0, available)
      this.#collected = chunk.copy(this.#collecting, 0, bodyStart)
      this.#skip = this.#length - this.#prefix
      return chunk.length
    }
    if (!this.#handler.onBody(this.#type, chunk, bodyStart, bodyStart + this.#prefix, this.#length)) return -1
    const restStart = bodyStart + this.#prefix
    const rest = Math.min(this.#length - this.#prefix, chunk.length - restStart)
    this.#skip = this.#length - this.#prefix - rest
    if (
      this.#wantsRest &&
      rest > 0 &&
      !this.#handler.onRest!(this.#type, chunk, restStart, restStart + rest, this.#skip === 0)
    )
      return -1
    return restStart + rest
  }

  #stopAt(chunk: Buffer, from: number, to: number, release: (bytes: Buffer) => void): false {
    this.#stopped = true
    if (to > from) release(from === 0 && to === chunk.length ? chunk : chunk.subarray(from, to))
    return false
  }
}

/** As `readInt32BE`, whose checks cost more than the reading: the caller knows that the bytes are there. */
function int32(bytes: Buffer, at: number): number {
  return (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!
}

/** Room follows the bytes that came, never the length that a header claims (a header costs its sender five bytes). */
function grown(buffer: Buffer | undefined, used: number, needed: number): Buffer {
  if (buffer !== undefined && buffer.length >= needed) return buffer
  const larger = Buffer.allocUnsafeSlow(Math.max(1024, needed, used * 2))
  buffer?.copy(larger, 0, 0, used)
  return larger
}

function describeType(type: number): string {
  const hex = `0x${type.toString(16).padStart(2, '0')}`
  return type > 0x20 && type < 0x7f ? `${hex} ("${String.fromCharCode(type)}")` : hex
}
