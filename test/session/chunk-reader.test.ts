import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createChunkReader, LARGE_BUFFER, SMALL_BUFFER } from '../../src/session/chunk-reader.ts'

const server = createServer({ allowHalfOpen: true })
beforeAll(async () => {
  await once(server.listen(0, '127.0.0.1'), 'listening')
})
afterAll(() => void server.close())

/** Both ends of a connection: what one writes, the other is there to read. */
async function pair(): Promise<[writer: Socket, accepted: Socket]> {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('not listening')
  const accepted = once(server, 'connection') as Promise<[Socket]>
  const writer = connect(address.port, '127.0.0.1')
  const [socket] = await accepted
  return [writer, socket]
}

/** Bytes that tell where they stand. */
const numbered = (length: number): Buffer => Buffer.from(Array.from({ length }, (_, at) => (at * 7 + (at >> 8)) & 0xff))

/** Whole blocks of memory that chunks lie in. */
const memoryOf = (chunks: readonly Buffer[]): number => new Set(chunks.map(({ buffer }) => buffer)).size

test('small messages are read into the same memory, one after the other', async () => {
  const [writer, socket] = await pair()
  const chunks: Buffer[] = []
  let seen = ''
  let next = (): void => {}
  const reader = createChunkReader(socket, {
    onChunk(chunk) {
      chunks.push(chunk)
      seen += chunk.toString()
      next()
    },
    kept: () => false,
  })
  reader.start()
  socket.resume()
  for (const text of ['one ', 'two ', 'three ']) {
    const read = new Promise<void>((resolve) => {
      next = resolve
    })
    writer.write(text)
    await read
  }
  expect(seen).toBe('one two three ')
  expect(memoryOf(chunks)).toBe(1)
  expect(chunks[0]?.buffer.byteLength).toBe(SMALL_BUFFER)
  writer.destroy()
  socket.destroy()
})

test('what is kept is not written over, and a stream of much is read in large pieces', async () => {
  const [writer, socket] = await pair()
  const sent = numbered(3_000_000)
  const kept: Buffer[] = []
  const reader = createChunkReader(socket, { onChunk: (chunk) => void kept.push(chunk), kept: () => true })
  reader.start()
  socket.resume()
  writer.end(sent)
  await once(socket, 'end')
  expect(Buffer.concat(kept).equals(sent)).toBe(true)
  expect(Math.max(...kept.map(({ length }) => length))).toBeGreaterThan(SMALL_BUFFER)
  expect(Math.max(...kept.map(({ buffer }) => buffer.byteLength))).toBe(LARGE_BUFFER)
  socket.destroy()
})

test('what was kept and released is used again', async () => {
  const [writer, socket] = await pair()
  const memory = new Set<ArrayBufferLike>()
  let read = 0
  const reader = createChunkReader(socket, {
    onChunk(chunk) {
      // Whatever came before this one.
      reader.release()
      memory.add(chunk.buffer)
      read += chunk.length
    },
    kept: () => true,
  })
  reader.start()
  socket.resume()
  writer.end(numbered(3_000_000))
  await once(socket, 'end')
  expect(read).toBe(3_000_000)
  // A read takes 64 KiB at most, so without it there would be more than 45.
  expect(memory.size).toBeLessThan(10)
  socket.destroy()
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
  const reader = createChunkReader(socket, { onChunk, kept: () => false })
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
  const reader = createChunkReader(stream as unknown as Socket, {
    onChunk(chunk) {
      seen += chunk.toString()
    },
    kept: () => false,
  })
  reader.start()
  stream.write('as ever')
  stream.end()
  await once(stream, 'end')
  expect(seen).toBe('as ever')
  reader.stop()
  expect(stream.listenerCount('data')).toBe(0)
})
