/** Exact numbers of bytes from a socket, and word of its end. The message reader stands on it. */
import type { Socket } from 'node:net'

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

export interface ByteSource {
  /**
   * One call at a time.
   * @param length at least 1
   * @param partial whether an end here is in the middle of a message; an end among the bytes always is
   * @throws ConnectionClosedError
   */
  take(length: number, partial: boolean): Promise<Buffer>
  /** Removes the source's listeners and pauses the stream. */
  detach(): void
}

export function createByteSource(stream: Socket): ByteSource {
  let wake: (() => void) | undefined
  let failure: unknown
  let over: 'eof' | 'reset' | undefined = stream.destroyed ? 'reset' : undefined

  // One listener of each kind for the source's life. Adding 'readable' anew for each wait would spin: Node announces what is
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
    if (wake !== undefined) throw new Error('one read at a time')
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

  function detach(): void {
    for (const [event, listener] of Object.entries(listeners)) stream.off(event, listener)
    stream.pause()
  }

  return { take, detach }
}
