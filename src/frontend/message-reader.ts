/**
 * Reads whole messages from a socket before the relay takes over. It takes no byte more than it was asked for: what follows a
 * message stays in the socket, so a client that sends ahead fills its own TCP window and not our memory, and TLS or the relay
 * can go on where it stopped.
 */
import type { Socket } from 'node:net'
import { AccessError } from '../errors.ts'
import { createByteSource } from './byte-source.ts'

export { ConnectionClosedError } from './byte-source.ts'

export interface Message {
  type: number
  /** Without type and length. */
  body: Buffer
}

/** One read at a time. Each rejects with ConnectionClosedError at the end of the stream or when it breaks. */
export interface MessageReader {
  /** Bytes that have arrived and were not asked for yet. */
  readonly buffered: number
  /** The next byte, which stays unread. */
  peek(): Promise<number>
  /**
   * A packet without a type byte.
   * @param maxLength of its body in bytes
   * @returns the body without its length
   * @throws AccessError `protocol_violation` where the length is below 8 or above the cap
   */
  readStartup(maxLength: number): Promise<Buffer>
  /**
   * @param maxLength of its body in bytes
   * @param tooLong makes the error for a body above the cap, where the message alone tells little
   * @throws AccessError `protocol_violation` for another type, or a length below 4 or above the cap; the body is then unread
   */
  readMessage(allowedTypes: readonly number[], maxLength: number, tooLong?: () => AccessError): Promise<Message>
  /**
   * Ends the reader. The stream is paused and none of the reader's listeners is left on it.
   * @returns the bytes that have arrived and were not asked for
   */
  detach(): Buffer
}

export function createMessageReader(stream: Socket): MessageReader {
  const source = createByteSource(stream)
  const bodyOf = (length: number) => (length === 0 ? Promise.resolve(Buffer.alloc(0)) : source.take(length, true))

  async function peek(): Promise<number> {
    const byte = await source.take(1, false)
    stream.unshift(byte)
    return byte[0] ?? 0
  }

  async function readStartup(maxLength: number): Promise<Buffer> {
    const header = await source.take(4, false)
    const length = header.readInt32BE() - 4
    if (length < 4 || length > maxLength) throw badStartupLength(header)
    return bodyOf(length)
  }

  async function readMessage(
    allowedTypes: readonly number[],
    maxLength: number,
    tooLong?: () => AccessError,
  ): Promise<Message> {
    const header = await source.take(5, false)
    const type = header.readUInt8()
    const length = header.readInt32BE(1) - 4
    if (!allowedTypes.includes(type)) {
      throw new AccessError('protocol_violation', `message type ${typeName(type)} is not allowed here`)
    }
    if (length > maxLength && tooLong !== undefined) throw tooLong()
    if (length < 0 || length > maxLength) throw badLength(type, length, maxLength)
    return { type, body: await bodyOf(length) }
  }

  function detach(): Buffer {
    source.detach()
    const rest: Buffer | null = stream.destroyed ? null : stream.read()
    return rest ?? Buffer.alloc(0)
  }

  return {
    get buffered() {
      return stream.readableLength
    },
    peek,
    readStartup,
    readMessage,
    detach,
  }
}

function badStartupLength(header: Buffer): AccessError {
  // "GET ", "POST", "SSH-": somebody else's protocol, or a health check of a load balancer.
  const text = header.toString('latin1')
  const other = /^[A-Z -]{4}$/.test(text) ? `: ${JSON.stringify(text)} is how another protocol begins` : ''
  return new AccessError('protocol_violation', `invalid length of the startup packet${other}`, {
    hint: 'This port speaks the PostgreSQL protocol.',
  })
}

function badLength(type: number, length: number, maxLength: number): AccessError {
  const text = `message ${typeName(type)} says it is ${length} bytes long; 0 to ${maxLength} are allowed here`
  return new AccessError('protocol_violation', text)
}

function typeName(type: number): string {
  return type > 0x20 && type < 0x7f ? `'${String.fromCharCode(type)}'` : `0x${type.toString(16).padStart(2, '0')}`
}
