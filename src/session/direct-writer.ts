/**
 * Writes small messages to a plain socket by its descriptor. `socket.write` makes a request object, a callback and a tick of the event
 * loop for what the kernel takes at once, and a system call needs none of them: 0.7 us of 28 a transaction.
 *
 * Node names no descriptor of a socket in public; this file alone knows where it is. What the kernel does not take, what is large, and
 * everything where Node shows no descriptor goes by `socket.write`.
 */
import { writeSync } from 'node:fs'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'

/**
 * Writes some of the bytes in front of anything that is written later.
 * @returns how many of them the kernel has; the rest is the caller's to write by `socket.write`, which also tells of what is wrong
 */
export type DirectWriter = (bytes: Buffer) => number

/** Where the kernel takes no more `writeSync` throws, which costs ten writes: what is likely to be too much is not tried. */
const SMALL_BYTES = 4 * 1024
/** Of plain connections. A handle of TLS has the descriptor below it, too, and that takes no plain text. */
const PLAIN: ReadonlySet<string> = new Set(['TCP', 'Pipe'])

interface Handle {
  /** Below 0 once it is closed, and asked for each time: another connection may have the number by then. */
  readonly fd: number
}

interface WithHandle {
  readonly _handle?: Handle | null
}

export function directWriter(socket: Socket): DirectWriter {
  const handle = plainHandle(socket)
  if (handle === undefined) return () => 0
  return (bytes) => {
    const { length } = bytes
    // Nothing overtakes what waits. FIN is sent a tick later than `end` at the earliest: until then the kernel would take more.
    if (length > SMALL_BYTES || socket.writableLength > 0 || !socket.writable) return 0
    const fd = (socket as WithHandle)._handle === handle ? handle.fd : -1
    if (!(fd >= 0)) return 0
    try {
      return writeSync(fd, bytes, 0, length)
    } catch {
      return 0
    }
  }
}

function plainHandle(socket: Socket): Handle | undefined {
  const { _handle: handle } = socket as WithHandle
  if (socket instanceof TLSSocket || handle === undefined || handle === null) return undefined
  return PLAIN.has(handle.constructor.name) ? handle : undefined
}
