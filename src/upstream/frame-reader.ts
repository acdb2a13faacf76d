/**
 * Cuts backend messages off a socket, one at a time and on demand: between two calls the socket is paused, so an upstream
 * that floods us waits in the kernel. Lengths are checked before anything is kept, and nothing is allocated from a header.
 */
import type { Socket } from 'node:net'
import { UpstreamUnusable } from './failure.ts'

export interface Frame {
  /** The message's first byte. */
  type: string
  /** The whole message with type and length. */
  bytes: Buffer
}

export interface FrameReader {
  /** @throws UpstreamUnusable for a bad length, a socket that ended, or more bytes than a login has; or the socket's error. */
  next(): Promise<Frame>
  /** Takes our listeners off the paused socket and returns the bytes behind the last message. */
  release(): Buffer
}

const HEADER = 5
const NOTHING = Buffer.alloc(0)

/** Of everything before ReadyForQuery. PostgreSQL itself sends about 500 bytes. */
const MAX_TOTAL = 1024 * 1024

/** Length without the type byte. Errors and notices may carry a long context; an authentication request is short. */
const MAX_LENGTH: Readonly<Record<string, number>> = { R: 4096, S: 16_384, E: 32_768, N: 32_768, K: 264, Z: 5 }

function frameLength(pending: Buffer): number | undefined {
  const type = pending.toString('latin1', 0, 1)
  const cap = MAX_LENGTH[type]
  if (pending.length > 0 && cap === undefined) {
    throw new UpstreamUnusable('it sent a message that has no place in a login')
  }
  if (pending.length < HEADER) return undefined
  const length = pending.readInt32BE(1)
  if (length < 4 || length > (cap ?? 0)) throw new UpstreamUnusable('it sent a message of impossible length')
  return length + 1
}

export function createFrameReader(socket: Socket): FrameReader {
  let pending: Buffer = NOTHING
  let total = 0
  let failure: Error | undefined
  let wake: (() => void) | undefined

  const onData = (chunk: Buffer): void => {
    socket.pause()
    total += chunk.length
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
    wake?.()
  }
  const fail = (error: Error): void => {
    failure ??= error
    wake?.()
  }
  const onEnd = (): void => fail(new UpstreamUnusable('it closed the connection during the login'))
  socket.pause()
  socket.on('data', onData).on('error', fail).on('end', onEnd).on('close', onEnd)
  if (socket.destroyed || socket.readableEnded) onEnd()

  const cut = (): Frame | undefined => {
    const length = frameLength(pending)
    if (length === undefined || pending.length < length) return undefined
    const bytes = pending.subarray(0, length)
    pending = pending.subarray(length)
    return { type: bytes.toString('latin1', 0, 1), bytes }
  }

  return {
    async next() {
      for (;;) {
        const frame = cut()
        if (frame !== undefined) return frame
        if (failure !== undefined) throw failure
        if (total > MAX_TOTAL) throw new UpstreamUnusable('it sends without end before the login is done')
        await new Promise<void>((resolve) => {
          wake = resolve
          socket.resume()
        })
        wake = undefined
      }
    },
    release() {
      socket.pause()
      socket.off('data', onData).off('error', fail).off('end', onEnd).off('close', onEnd)
      // An empty view keeps what it is one of, for as long as the connection is kept.
      return pending.length === 0 ? NOTHING : pending
    },
  }
}
