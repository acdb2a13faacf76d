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
import { BLOCK_BYTES, placeChunk } from './chunk-blocks.ts'

export interface ChunkReader {
  /** Takes what the socket has read before, and reads from now on. `pause`, `resume` and the event `end` of the socket are as ever. */
  start(): void
  stop(): void
}

/** What libuv reads at once. */
const READ_BYTES = BLOCK_BYTES

/** All sockets are read into this, one after the other: the handle of each knows its address, so that it can never be lent. */
const inbox = Buffer.allocUnsafeSlow(READ_BYTES)

/** Somebody looks at the newest chunk. */
let busy = false

function receive(length: number): Buffer {
  // Node reads nothing from within a chunk's handler. If it did, the chunk at hand would change under its reader.
  return busy ? Buffer.from(inbox.subarray(0, length)) : placeChunk(inbox, length)
}

interface UserBufferHandle {
  useUserBuffer(buffer: Buffer): void
}

/** A socket's own properties for `onread`, which Node's `net` sets to null where it was not asked for. */
interface OnRead {
  buffer: symbol
  callback: symbol
}

/** @param onChunk gets what was read: valid during the call only, unless `holdChunk` says otherwise */
export function createChunkReader(socket: Socket, onChunk: (chunk: Buffer) => void): ChunkReader {
  const names = onReadOf(socket)
  const handle = handleOf(socket)
  return names === undefined || handle === undefined
    ? readEvents(socket, onChunk)
    : readIntoBuffer(socket, handle, names, onChunk)
}

function readEvents(socket: Socket, onChunk: (chunk: Buffer) => void): ChunkReader {
  return {
    start: () => void socket.on('data', onChunk),
    stop: () => void socket.off('data', onChunk),
  }
}

function readIntoBuffer(
  socket: Socket,
  handle: UserBufferHandle,
  names: OnRead,
  onChunk: (chunk: Buffer) => void,
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
