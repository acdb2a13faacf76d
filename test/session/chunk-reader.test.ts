import { once } from 'node:events'
import type { Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import { expect, test } from 'vitest'
import { BulkPacing } from '../../src/session/bulk-pacing.ts'
import { BLOCK_BYTES, holdChunk } from '../../src/session/chunk-blocks.ts'
import { createChunkReader } from '../../src/session/chunk-reader.ts'
import { createPump } from '../../src/session/pump.ts'
import { createFrameScanner } from '../../src/wire/frame-scanner.ts'
import { pair } from '../support/socket-pair.ts'

/** Bytes that tell where they stand. */
const numbered = (length: number): Buffer => Buffer.from(Array.from({ length }, (_, at) => (at * 7 + (at >> 8)) & 0xff))

/** Whole blocks of memory that chunks lie in. */
const memoryOf = (chunks: readonly Buffer[]): number => new Set(chunks.map(({ buffer }) => buffer)).size

test('small messages of all sockets are read into the same memory, one after the other', async () => {
  const chunks: Buffer[] = []
  let seen = ''
  let next = (): void => {}
  const connections = [await pair(), await pair()]
  for (const [, socket] of connections) {
    const reader = createChunkReader(socket, (chunk) => {
      chunks.push(chunk)
      seen += chunk.toString()
      next()
    })
    reader.start()
    socket.resume()
  }
  for (const [at, text] of ['one ', 'two ', 'three ', 'four '].entries()) {
    const read = new Promise<void>((resolve) => {
      next = resolve
    })
    connections[at % 2]?.[0].write(text)
    await read
  }
  expect(seen).toBe('one two three four ')
  expect(memoryOf(chunks)).toBe(1)
  for (const socket of connections.flat()) socket.destroy()
})

test('what is held is not written over, and a stream of much is read in large pieces', async () => {
  const [writer, socket] = await pair()
  const sent = numbered(3_000_000)
  const kept: Buffer[] = []
  const reader = createChunkReader(socket, (chunk) => {
    kept.push(chunk)
    holdChunk()
  })
  reader.start()
  socket.resume()
  writer.end(sent)
  await once(socket, 'end')
  expect(Buffer.concat(kept).equals(sent)).toBe(true)
  expect(Math.max(...kept.map(({ length }) => length))).toBeGreaterThan(8 * 1024)
  socket.destroy()
})

test('small messages that are held lie close together', async () => {
  const [writer, socket] = await pair()
  const kept: Buffer[] = []
  let next = (): void => {}
  const reader = createChunkReader(socket, (chunk) => {
    kept.push(chunk)
    holdChunk()
    next()
  })
  reader.start()
  socket.resume()
  for (let sent = 0; sent < 200; sent++) {
    const read = new Promise<void>((resolve) => {
      next = resolve
    })
    writer.write(`message ${sent},`)
    await read
  }
  expect(Buffer.concat(kept).toString()).toBe(Array.from({ length: 200 }, (_, sent) => `message ${sent},`).join(''))
  expect(memoryOf(kept)).toBeLessThanOrEqual(2)
  expect(kept[0]?.buffer.byteLength).toBe(BLOCK_BYTES)
  writer.destroy()
  socket.destroy()
})

/** A pump of CopyData messages, whose destination's other end is `far`. */
async function pumped(kind?: 'unix'): Promise<{ writer: Socket; far: Socket }> {
  const [writer, source] = await pair()
  const [destination, far] = await pair(kind)
  const scanner = createFrameScanner(
    { onHeader: () => 0, onBody: () => true, onDropped() {} },
    () => Number.MAX_SAFE_INTEGER,
  )
  const hooks = { beforeChunk() {}, afterChunk() {}, onStop() {}, onEnd: () => void destination.end() }
  const pump = createPump(source, destination, scanner, {
    ...hooks,
    pacing: new BulkPacing(),
    onFailure: (error) => destination.destroy(error as Error),
  })
  pump.start(Buffer.alloc(0))
  return { writer, far }
}

const copyData = (body: Buffer): Buffer => {
  const header = Buffer.from('d\0\0\0\0', 'latin1')
  header.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([header, body])
}

test('what a slow reader has not taken is not written over by what others are sent meanwhile', async () => {
  const slow = await pumped()
  const quick = await pumped()
  const message = copyData(numbered(40_000))
  const sent = Buffer.concat(Array.from({ length: 400 }, () => message))
  slow.far.pause()
  slow.writer.end(sent)
  // The slow one reads a piece only when the quick one has been sent another message.
  const noise = copyData(Buffer.alloc(200_000, 'x'))
  quick.far.resume()
  const taken: Buffer[] = []
  while (!slow.far.readableEnded) {
    const drained = new Promise<void>((resolve) => quick.writer.write(noise, () => resolve()))
    await drained
    await new Promise((resolve) => setImmediate(resolve))
    const piece = slow.far.read() as Buffer | null
    if (piece !== null) taken.push(piece)
  }
  expect(Buffer.concat(taken).equals(sent)).toBe(true)
  for (const { writer, far } of [slow, quick]) for (const socket of [writer, far]) socket.destroy()
})

test('nor what the kernel has taken of a small message in part', async () => {
  const slow = await pumped('unix')
  const quick = await pumped('unix')
  slow.far.pause()
  quick.far.resume()
  const sent: Buffer[] = []
  const turn = () => new Promise((resolve) => setImmediate(resolve))
  // One message at a time, until the slow one's side holds its writer back; each read of the quick one's goes to the same memory.
  while (slow.writer.writableLength < 100_000) {
    const message = copyData(Buffer.alloc(3_500, sent.length))
    sent.push(message)
    slow.writer.write(message)
    quick.writer.write(copyData(Buffer.alloc(3_500, 'x')))
    await turn()
  }
  slow.writer.end()
  const taken: Buffer[] = []
  slow.far.on('data', (piece: Buffer) => void taken.push(piece))
  slow.far.resume()
  await once(slow.far, 'end')
  expect(Buffer.concat(taken).equals(Buffer.concat(sent))).toBe(true)
  for (const { writer, far } of [slow, quick]) for (const socket of [writer, far]) socket.destroy()
})

test('what the socket had read before comes first, and a paused socket reads nothing until it is resumed', async () => {
  const [writer, socket] = await pair()
  writer.write('before ')
  await once(socket, 'readable')
  let seen = ''
  const onChunk = (chunk: Buffer): void => {
    seen += chunk.toString()
    socket.pause()
  }
  const reader = createChunkReader(socket, onChunk)
  reader.start()
  expect(seen).toBe('before ')
  socket.pause()
  await new Promise<void>((resolve) => writer.write('behind', () => resolve()))
  // Bytes that are there already are read within a turn of the loop by a socket that reads.
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
  expect(seen).toBe('before ')
  socket.resume()
  while (seen !== 'before behind') await new Promise((resolve) => setImmediate(resolve))
  writer.end()
  socket.resume()
  await once(socket, 'end')
  reader.stop()
  socket.destroy()
})

test('a stream without such buffers is read by its events', async () => {
  const stream = new PassThrough()
  let seen = ''
  const reader = createChunkReader(stream as unknown as Socket, (chunk) => {
    seen += chunk.toString()
  })
  reader.start()
  stream.write('as ever')
  stream.end()
  await once(stream, 'end')
  expect(seen).toBe('as ever')
  reader.stop()
  expect(stream.listenerCount('data')).toBe(0)
})
