/**
 * Reads sockets into one buffer of the process, where Node lets us: a `data` handler gets a new 64 KiB allocation for each read, which
 * costs small transactions a tenth of their CPU and the collector's threads their wake-ups; a buffer of each socket's own made a
 * thousand idle sessions 16 MB larger, and 64 KiB more for each that had read a large result.
 *
 * `net.connect({ onread })` is public, but a socket that was accepted, or that has shaken hands first, takes such a buffer only by two
 * of the properties that `onread` sets, and by its handle's `useUserBuffer`. This file alone knows them. Where one is missing it
 * reads by `data` handlers, and nothing else differs.
 */
import type { Socket } from 'node:net'

export interface ChunkReader {
  /** Takes what the socket has read before, and reads from now on. `pause`, `resume` and the event `end` of the socket are as ever. */
  start(): void
  stop(): void
}

export interface ChunkReaderOptions {
  /** `chunk` is valid during the call only, unless `kept` says otherwise. */
  onChunk(chunk: Buffer): void
  /** Asked after each chunk: true where somebody still needs it, such as a write that the kernel did not take whole. */
  kept(): boolean
}

/** What libuv reads at once. */
export const READ_BYTES = 64 * 1024
/** Chunks up to this are mostly as long as others before them: pgbench's have seven lengths. */
const VIEWED_BYTES = 1024
const LOOPED_BYTES = 96

/**
 * All sockets are read into this, one after the other: the handle of each knows its address, so that it can never be lent. What came
 * is in `chunks` before anybody else is read. That copy takes 40 ns of a small message, less than making a view of it does, and
 * 1.4 us of 64 KiB.
 */
const inbox = Buffer.allocUnsafeSlow(READ_BYTES)

/** Where the newest chunk lies, and beyond `used` the next one will. What is kept of an older block keeps that alive, and nothing else does. */
let chunks = Buffer.allocUnsafeSlow(READ_BYTES)
let used = 0
/** Of short chunks at `used`, by length. Filled, since an array with holes this large is a dictionary to V8. */
const views = new Array<Buffer | undefined>(VIEWED_BYTES + 1).fill(undefined)
let viewed = 0
/** Somebody looks at the newest chunk. */
let busy = false

function receive(length: number): Buffer {
  // Node reads nothing from within a chunk's handler. If it did, the chunk at hand would change under its reader.
  if (busy) return Buffer.from(inbox.subarray(0, length))
  if (length > chunks.length - used) {
    chunks = Buffer.allocUnsafeSlow(READ_BYTES)
    used = 0
    forgetViews()
  }
  // For less than about a hundred bytes the loop is faster than the call.
  if (length <= LOOPED_BYTES) for (let at = 0; at < length; at++) chunks[used + at] = inbox[at]!
  else inbox.copy(chunks, used, 0, length)
  if (length > VIEWED_BYTES) return chunks.subarray(used, used + length)
  const known = views[length]
  if (known !== undefined) return known
  const view = chunks.subarray(used, used + length)
  views[length] = view
  viewed++
  return view
}

function forgetViews(): void {
  if (viewed > 0) views.fill(undefined)
  viewed = 0
}

/** The newest chunk is not to be written over. */
function keep(length: number): void {
  used += length
  forgetViews()
}

interface UserBufferHandle {
  useUserBuffer(buffer: Buffer): void
}

/** A socket's own properties for `onread`, which Node's `net` sets to null where it was not asked for. */
interface OnRead {
  buffer: symbol
  callback: symbol
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
  }
}

function readIntoBuffer(
  socket: Socket,
  handle: UserBufferHandle,
  names: OnRead,
  { onChunk, kept }: ChunkReaderOptions,
): ChunkReader {
  let stopped = false

  function onRead(length: number): void {
    if (stopped) return
    const nested = busy
    const chunk = receive(length)
    busy = true
    try {
      onChunk(chunk)
    } finally {
      busy = nested
    }
    if (!nested && kept()) keep(length)
  }

  return {
    start() {
      const properties = socket as unknown as Record<symbol, unknown>
      properties[names.buffer] = inbox
      properties[names.callback] = onRead
      handle.useUserBuffer(inbox)
      for (let before = socket.read() as Buffer | null; before !== null; before = socket.read() as Buffer | null) {
        onChunk(before)
      }
    },
    stop() {
      stopped = true
    },
  }
}

function onReadOf(socket: Socket): OnRead | undefined {
  const own = new Map(Object.getOwnPropertySymbols(socket).map((symbol) => [symbol.description, symbol]))
  const [buffer, callback] = ['kBuffer', 'kBufferCb'].map((name) => own.get(name))
  if (buffer === undefined || callback === undefined) return undefined
  return { buffer, callback }
}

function handleOf(socket: Socket): UserBufferHandle | undefined {
  const { _handle: handle } = socket as unknown as { _handle?: Partial<UserBufferHandle> | null }
  return typeof handle?.useUserBuffer === 'function' ? (handle as UserBufferHandle) : undefined
}
