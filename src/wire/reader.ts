/** A bounds-checked walk over the body of one message. Nothing is allocated from a length that the peer sent. */
import { AccessError } from '../errors.ts'

export interface BufferReader {
  /** Bytes not yet read. */
  readonly remaining: number
  byte(): number
  int16(): number
  int32(): number
  /** A view, not a copy. */
  bytes(length: number): Buffer
  /** Bytes up to a NUL, which is consumed and not returned. A view, not a copy. */
  cstringBytes(): Buffer
  /** As `cstringBytes`, decoded as UTF-8 without leniency. */
  cstring(): string
}

// ignoreBOM: without it the decoder swallows a leading EF BB BF, and two different names would become one.
const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** @throws AccessError `protocol_violation`, SQLSTATE 22021, where the bytes are not UTF-8. */
export function decodeUtf8(bytes: Buffer, what: string): string {
  try {
    return strictUtf8.decode(bytes)
  } catch (cause) {
    throw new AccessError('protocol_violation', `${what} is not valid UTF-8`, { sqlstate: '22021', cause })
  }
}

/**
 * @param what names the message in errors, e.g. `StartupMessage`
 * @returns a reader whose methods throw AccessError `protocol_violation` past the end of `body`
 */
export function createBufferReader(body: Buffer, what: string): BufferReader {
  let offset = 0

  function take(length: number): number {
    if (length < 0 || length > body.length - offset) {
      throw new AccessError('protocol_violation', `${what} is malformed: it ends in the middle of a field`)
    }
    const start = offset
    offset += length
    return start
  }

  function bytes(length: number): Buffer {
    const start = take(length)
    return body.subarray(start, start + length)
  }

  function cstringBytes(): Buffer {
    const end = body.indexOf(0, offset)
    if (end === -1) {
      throw new AccessError('protocol_violation', `${what} is malformed: a string in it has no terminator`)
    }
    const text = body.subarray(offset, end)
    offset = end + 1
    return text
  }

  return {
    get remaining() {
      return body.length - offset
    },
    byte: () => body.readUInt8(take(1)),
    int16: () => body.readInt16BE(take(2)),
    int32: () => body.readInt32BE(take(4)),
    bytes,
    cstringBytes,
    cstring: () => decodeUtf8(cstringBytes(), `a string in ${what}`),
  }
}
