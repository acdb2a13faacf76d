/**
 * Reads a socket into a buffer of ours that is used again, where Node lets us: a `data` handler gets a new 64 KiB allocation for each
 * read, which costs small transactions a tenth of their CPU and the collector's threads their wake-ups.
 *
 * `net.connect({ onread })` is public, but a socket that was accepted, or that has shaken hands first, takes such a buffer only by the
 * three properties that `onread` sets, and by its handle's `useUserBuffer`. This file alone knows them. Where one is missing it
 * reads by `data` handlers, and nothing else differs.
 */
import type { Socket } from 'node:net'

export interface ChunkReader {
  /** Takes what the socket has read before, and reads from now on. `pause`, `resume` and the event `end` of the socket are as ever. */
  start(): void
  stop(): void
  /** Nobody needs what was kept so far. */
  release(): void
}

export interface ChunkReaderOptions {
  /** `chunk` is valid during the call only, unless `kept` says otherwise. */
  onChunk(chunk: Buffer): void
  /** Asked after each chunk: true where somebody still needs it, such as a write that the kernel did not take whole. */
  kept(): boolean
}

/** Most transactions' messages fit, and 1,000 idle sessions hold 16 MB of them. */
export const SMALL_BUFFER = 8 * 1024
/** What libuv reads at once. */
export const LARGE_BUFFER = 64 * 1024
/** Reads that would have fit into a small buffer, after which a large one is given up. */
const QUIET_READS = 100

/** Of those beyond it the collector takes care. */
const MAX_LENT = 6

interface UserBufferHandle {
  useUserBuffer(buffer: Buffer): void
}

/** A socket's own properties for `onread`, which Node's `net` sets to null where it was not asked for. */
interface OnRead {
  buffer: symbol
  callback: symbol
  generator: symbol
}

export function createChunkReader(socket: Socket, options: ChunkReaderOptions): ChunkReader {
  const names = onReadOf(socket)
  const handle = handleOf(socket)
  return names === undefined || handle === undefined
    ? readEvents(socket, options)
    : readIntoBuffer(socket, handle, names, options)
}

function readEvents(socket: Socket, { onChunk }: ChunkReaderOptions): ChunkReader {
  return {
    start: () => void socket.on('data', onChunk),
    stop: () => void socket.off('data', onChunk),
    release() {},
  }
}

function readIntoBuffer(
  socket: Socket,
  handle: UserBufferHandle,
  names: OnRead,
  { onChunk, kept }: ChunkReaderOptions,
): ChunkReader {
  let buffer: Buffer = Buffer.allocUnsafeSlow(SMALL_BUFFER)
  let size = SMALL_BUFFER
  let quiet = 0
  let stopped = false
  /** Large ones that were kept, to be used again. */
  let lent: Buffer[] = []
  let spare: Buffer[] = []
  /** Of the buffer's beginning, for reads of one length that follow each other, as a driver's messages do. */
  let view: Buffer = buffer.subarray(0, 0)
  let viewed: Buffer = buffer

  function onRead(length: number): void {
    if (stopped) return
    if (view.length !== length || viewed !== buffer) {
      view = buffer.subarray(0, length)
      viewed = buffer
    }
    onChunk(view)
    if (length === buffer.length) [size, quiet] = [LARGE_BUFFER, 0]
    else if (size > SMALL_BUFFER && length <= SMALL_BUFFER && ++quiet > QUIET_READS) size = SMALL_BUFFER
    else if (length > SMALL_BUFFER) quiet = 0
  }

  /** Node asks after each read where the next one goes; undefined is: where the last one went. */
  function next(): Buffer | undefined {
    const lend = kept()
    if (!lend && buffer.length === size) return undefined
    if (lend && buffer.length === LARGE_BUFFER && lent.length < MAX_LENT) lent.push(buffer)
    if (size === SMALL_BUFFER) spare = []
    buffer = (size === LARGE_BUFFER ? spare.pop() : undefined) ?? Buffer.allocUnsafeSlow(size)
    return buffer
  }

  return {
    start() {
      const properties = socket as unknown as Record<symbol, unknown>
      properties[names.buffer] = buffer
      properties[names.callback] = onRead
      properties[names.generator] = next
      handle.useUserBuffer(buffer)
      for (let before = socket.read() as Buffer | null; before !== null; before = socket.read() as Buffer | null) {
        onChunk(before)
      }
    },
    stop() {
      stopped = true
    },
    release() {
      spare = lent
      lent = []
    },
  }
}

function onReadOf(socket: Socket): OnRead | undefined {
  const own = new Map(Object.getOwnPropertySymbols(socket).map((symbol) => [symbol.description, symbol]))
  const [buffer, callback, generator] = ['kBuffer', 'kBufferCb', 'kBufferGen'].map((name) => own.get(name))
  if (buffer === undefined || callback === undefined || generator === undefined) return undefined
  return { buffer, callback, generator }
}

function handleOf(socket: Socket): UserBufferHandle | undefined {
  const { _handle: handle } = socket as unknown as { _handle?: Partial<UserBufferHandle> | null }
  return typeof handle?.useUserBuffer === 'function' ? (handle as UserBufferHandle) : undefined
}
