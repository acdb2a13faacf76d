/**
 * Reads whole messages from a socket before the relay takes over. It takes no byte more than it was asked for: what follows a
 * message stays in the socket, so a client that sends ahead fills its own TCP window and not our memory, and TLS or the relay
 * can go on where it stopped.
 */
import type { Socket } from 'node:net'
import { AccessError } from '../errors.ts'

/** The client went away; there is nobody to send an ErrorResponse to. */
export class ConnectionClosedError extends Error {
  /** `eof`: closed in order. `reset`: by a socket error or our own destroy. */
  readonly reason: 'eof' | 'reset'
  /** True in the middle of a message, where PostgreSQL would log "incomplete startup packet". */
  readonly partial: boolean

  constructor(reason: 'eof' | 'reset', partial: boolean, cause?: unknown) {
    const text = reason === 'eof' ? 'the client closed the connection' : 'the connection to the client broke'
    super(partial ? `${text} in the middle of a message` : text, cause === undefined ? undefined : { cause })
    this.name = 'ConnectionClosedError'
    this.reason = reason
    this.partial = partial
  }
}

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
  let wake: (() => void) | undefined
  let failure: unknown
  let over: 'eof' | 'reset' | undefined = stream.destroyed ? 'reset' : undefined

  // One listener of each kind for the reader's life. Adding 'readable' anew for each wait would spin: Node announces what is
  // already buffered to every new listener, also when it is too little.
  const onReadable = () => wake?.()
  const onEnd = () => finish('eof')
  const onClose = () => finish('reset')
  const onError = (error: Error) => {
    failure = error
    finish('reset')
  }
  const listeners = { readable: onReadable, end: onEnd, close: onClose, error: onError } as const
  for (const [event, listener] of Object.entries(listeners)) stream.on(event, listener)

  function finish(reason: 'eof' | 'reset'): void {
    over ??= reason
    wake?.()
  }

  async function take(length: number, partial: boolean): Promise<Buffer> {
    if (length === 0) return Buffer.alloc(0)
    if (wake !== undefined) throw new Error('a message reader reads one message at a time')
    for (;;) {
      // Null while fewer bytes are there, without consuming them; after the end whatever is left.
      const chunk: Buffer | null = stream.destroyed ? null : stream.read(length)
      if (chunk?.length === length) return chunk
      if (chunk !== null) throw new ConnectionClosedError('eof', true)
      if (over !== undefined || stream.destroyed) throw new ConnectionClosedError(over ?? 'reset', partial, failure)
      const { promise, resolve } = Promise.withResolvers<void>()
      wake = resolve
      await promise
      wake = undefined
    }
  }

  async function peek(): Promise<number> {
    const byte = await take(1, false)
    stream.unshift(byte)
    return byte[0] ?? 0
  }

  async function readStartup(maxLength: number): Promise<Buffer> {
    const header = await take(4, false)
    const length = header.readInt32BE() - 4
    if (length < 4 || length > maxLength) throw badStartupLength(header)
    return take(length, true)
  }

  async function readMessage(
    allowedTypes: readonly number[],
    maxLength: number,
    tooLong?: () => AccessError,
  ): Promise<Message> {
    const header = await take(5, false)
    const type = header.readUInt8()
    const length = header.readInt32BE(1) - 4
    if (!allowedTypes.includes(type)) {
      throw new AccessError('protocol_violation', `message type ${typeName(type)} is not allowed here`)
    }
    if (length > maxLength && tooLong !== undefined) throw tooLong()
    if (length < 0 || length > maxLength) {
      throw new AccessError(
        'protocol_violation',
        `message ${typeName(type)} says it is ${length} bytes long; 0 to ${maxLength} are allowed here`,
      )
    }
    return { type, body: await take(length, true) }
  }

  function detach(): Buffer {
    for (const [event, listener] of Object.entries(listeners)) stream.off(event, listener)
    const rest: Buffer | null = stream.destroyed ? null : stream.read()
    stream.pause()
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

function typeName(type: number): string {
  return type > 0x20 && type < 0x7f ? `'${String.fromCharCode(type)}'` : `0x${type.toString(16).padStart(2, '0')}`
}
