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
  /** A dropped message has come whole; what is released now stands in its place. */
  onDropped(type: number): void
}

export interface FrameScanner {
  /**
   * Takes the next chunk and gives what may be released to `release`, as one view of the chunk unless something was dropped.
   * @returns false when stopped, by the handler or by a length that cannot be (then `violation` says why); later calls do nothing.
   */
  scan(chunk: Buffer, release: (bytes: Buffer) => void): boolean
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
  let held: Buffer | undefined
  /** Bytes of the current message that are still to come and wanted by nobody. */
  let skip = 0
  let dropping = false
  let wantsRest = false
  let type = 0
  let length = 0
  let prefix = 0
  let collecting: Buffer | undefined
  let collected = 0
  let stopped = false
  /** Stopped in a message of which a part is released. */
  let torn = false
  let violation: string | undefined

  /** Takes up a message that began in an earlier chunk. Returns where the next message starts, or -1 when stopped. */
  function resume(chunk: Buffer): number {
    let position = 0
    if (collecting !== undefined) {
      position = Math.min(prefix - collected, chunk.length)
      collecting = grown(collecting, collected, Math.min(prefix, collected + position))
      collected += chunk.copy(collecting, collected, 0, position)
      if (collected < prefix) return position
      const body = collecting
      collecting = undefined
      if (!handler.onBody(type, body, 0, prefix, length)) return -1
    }
    if (skip > 0 && position < chunk.length) {
      const part = Math.min(skip, chunk.length - position)
      skip -= part
      if (wantsRest && !handler.onRest!(type, chunk, position, position + part, skip === 0)) return -1
      position += part
    }
    return position
  }

  /** Decides about the message whose header is at `position`. Returns the end of its bytes in this chunk, or -1 when stopped. */
  function begin(chunk: Buffer, position: number): number {
    const answer = handler.onHeader(type, length)
    if (answer === STOP) return -1
    dropping = answer >= DROP
    const wanted = dropping ? answer - DROP : answer
    const bodyStart = position + HEADER
    const available = chunk.length - bodyStart
    if (wanted <= 0) {
      wantsRest = false
      skip = Math.max(0, length - available)
      return bodyStart + length - skip
    }
    prefix = Math.min(wanted, length)
    wantsRest = prefix < length && handler.onRest !== undefined
    if (available < prefix) {
      collecting = grown(undefined, 0, available)
      collected = chunk.copy(collecting, 0, bodyStart)
      skip = length - prefix
      return chunk.length
    }
    if (!handler.onBody(type, chunk, bodyStart, bodyStart + prefix, length)) return -1
    const restStart = bodyStart + prefix
    const rest = Math.min(length - prefix, chunk.length - restStart)
    skip = length - prefix - rest
    if (wantsRest && rest > 0 && !handler.onRest!(type, chunk, restStart, restStart + rest, skip === 0)) return -1
    return restStart + rest
  }

  function stopAt(chunk: Buffer, from: number, to: number, release: (bytes: Buffer) => void): false {
    stopped = true
    if (to > from) release(from === 0 && to === chunk.length ? chunk : chunk.subarray(from, to))
    return false
  }

  function scan(input: Buffer, release: (bytes: Buffer) => void): boolean {
    if (stopped) return false
    const chunk = held === undefined ? input : Buffer.concat([held, input])
    held = undefined
    let position = 0
    /** Where the bytes begin that are released next. */
    let from = 0
    if (skip > 0 || collecting !== undefined) {
      position = resume(chunk)
      if (position < 0) {
        torn = true
        return stopAt(chunk, 0, 0, release)
      }
      if (dropping) {
        from = position
        if (skip === 0 && collecting === undefined) handler.onDropped(type)
      }
    }
    while (chunk.length - position >= HEADER) {
      type = chunk[position]!
      const declared = chunk.readInt32BE(position + 1)
      if (declared < 4 || declared - 4 > maxLength(type)) {
        violation = `a message of type ${describeType(type)} with the length ${declared}`
        return stopAt(chunk, from, position, release)
      }
      length = declared - 4
      const end = begin(chunk, position)
      if (end < 0) return stopAt(chunk, from, position, release)
      if (dropping) {
        if (position > from) release(chunk.subarray(from, position))
        from = end
        if (skip === 0 && collecting === undefined) handler.onDropped(type)
      }
      position = end
    }
    if (position < chunk.length) held = Buffer.from(chunk.subarray(position))
    if (position > from) release(from === 0 && position === chunk.length ? chunk : chunk.subarray(from, position))
    return true
  }

  return {
    scan,
    get atBoundary() {
      return skip === 0 && collecting === undefined && !torn
    },
    get between() {
      return skip === 0 && collecting === undefined && !torn && held === undefined
    },
    get violation() {
      return violation
    },
  }
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
