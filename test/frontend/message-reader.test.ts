import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ConnectionClosedError, createMessageReader, type MessageReader } from '../../src/frontend/message-reader.ts'
import { frame } from '../../src/wire/writer.ts'

const server = createServer({ allowHalfOpen: true, noDelay: true })
beforeAll(async () => {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
})
afterAll(() => server.close())

interface Pair {
  client: Socket
  socket: Socket
  reader: MessageReader
}

/** Two ends of a real connection; the server's end is read by a reader. */
async function pair(): Promise<Pair> {
  const accepted = once(server, 'connection')
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const [socket] = (await accepted) as [Socket]
  for (const end of [client, socket]) end.on('error', () => {})
  return { client, socket, reader: createMessageReader(socket) }
}

function close({ client, socket }: Pair): void {
  client.destroy()
  socket.destroy()
}

const query = (body: string): Buffer => frame(0x51, Buffer.from(body))
const arrived = async (socket: Socket, bytes: number): Promise<void> => {
  while (socket.readableLength < bytes) await once(socket, 'readable')
}

describe('messages', () => {
  test('come back whole however the bytes are cut, and what follows them is not lost', async () => {
    const bodies = fc.array(fc.string({ maxLength: 60 }), { maxLength: 5 })
    await fc.assert(
      fc.asyncProperty(bodies, fc.string(), fc.array(fc.integer({ min: 1, max: 30 })), async (texts, rest, cuts) => {
        const ends = await pair()
        const bytes = Buffer.concat([...texts.map(query), Buffer.from(rest)])
        let at = 0
        for (const size of [...cuts, bytes.length]) {
          ends.client.write(bytes.subarray(at, at + size))
          at += size
        }
        ends.client.end()
        for (const expected of texts) {
          const { type, body } = await ends.reader.readMessage([0x51], 1_000)
          expect([type, body.toString()]).toEqual([0x51, expected])
        }
        const unread = ends.reader.detach()
        expect(unread.toString() + (await text(ends.socket))).toBe(rest)
        close(ends)
      }),
      { numRuns: 40 },
    )
  })

  test('one byte at a time', async () => {
    const ends = await pair()
    const message = ends.reader.readMessage([0x51], 1_000)
    for (const byte of query('select 1')) {
      ends.client.write(Buffer.from([byte]))
      await new Promise(setImmediate)
    }
    expect((await message).body.toString()).toBe('select 1')
    close(ends)
  })

  test('larger than the stream buffers', async () => {
    const ends = await pair()
    const body = 'x'.repeat(1_000_000)
    ends.client.write(query(body))
    expect((await ends.reader.readMessage([0x51], 1_000_000)).body.toString()).toBe(body)
    close(ends)
  })

  test('the next byte can be looked at and is still there', async () => {
    const ends = await pair()
    ends.client.write(query('hi'))
    expect(await ends.reader.peek()).toBe(0x51)
    expect(await ends.reader.peek()).toBe(0x51)
    expect((await ends.reader.readMessage([0x51], 10)).body.toString()).toBe('hi')
    close(ends)
  })
})

describe('limits', () => {
  test.each([
    [
      'a length below 4',
      Buffer.from('5100000003', 'hex'),
      "message 'Q' says it is -1 bytes long; 0 to 10 are allowed here",
    ],
    ['a negative length', Buffer.from('51ffffffff', 'hex'), 'says it is -5 bytes long'],
    ['a length above the cap', Buffer.from('510000000f', 'hex'), 'says it is 11 bytes long'],
    ['the largest length', Buffer.from('517fffffff', 'hex'), 'says it is 2147483643 bytes long'],
    ['another type', Buffer.from('5800000004', 'hex'), "message type 'X' is not allowed here"],
    ['an unprintable type', Buffer.from('0000000004', 'hex'), 'message type 0x00 is not allowed here'],
  ])('invariant 6: %s is refused from the header alone', async (_, header, message) => {
    const ends = await pair()
    ends.client.write(header)
    const refused = expect(ends.reader.readMessage([0x51], 10)).rejects
    await refused.toMatchObject({ code: 'protocol_violation', message: expect.stringContaining(message) })
    close(ends)
  })

  test.each([
    ['00000007', 'invalid length of the startup packet'],
    ['ffffffff', 'invalid length of the startup packet'],
    ['00002715', 'invalid length of the startup packet'],
    [
      Buffer.from('GET ').toString('hex'),
      'invalid length of the startup packet: "GET " is how another protocol begins',
    ],
  ])('invariant 6: a startup packet that begins with %s is refused', async (hex, message) => {
    const ends = await pair()
    ends.client.write(Buffer.from(hex, 'hex'))
    await expect(ends.reader.readStartup(10_000)).rejects.toMatchObject({ code: 'protocol_violation', message })
    close(ends)
  })

  test('a startup packet of exactly the cap passes', async () => {
    const ends = await pair()
    ends.client.write(frame(undefined, Buffer.alloc(10_000)))
    expect(await ends.reader.readStartup(10_000)).toHaveLength(10_000)
    close(ends)
  })

  test('a client that sends ahead fills its own window, not our memory', async () => {
    const ends = await pair()
    ends.client.write(query('first'))
    ends.client.write(Buffer.alloc(32 * 1024 * 1024))
    await ends.reader.readMessage([0x51], 10)
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate)
    expect(ends.reader.buffered).toBeLessThan(1024 * 1024)
    close(ends)
  })
})

describe('the end of the stream', () => {
  const rejection = (promise: Promise<unknown>): Promise<ConnectionClosedError> =>
    promise.then(
      () => expect.unreachable('was read'),
      (error: unknown) => {
        expect(error).toBeInstanceOf(ConnectionClosedError)
        return error as ConnectionClosedError
      },
    )

  test('in front of a message', async () => {
    const ends = await pair()
    ends.client.end()
    expect(await rejection(ends.reader.readStartup(100))).toMatchObject({ reason: 'eof', partial: false })
    expect(await rejection(ends.reader.peek())).toMatchObject({ reason: 'eof', partial: false })
    close(ends)
  })

  test.each([3, 7])('after %i bytes of a message', async (length) => {
    const ends = await pair()
    ends.client.end(query('abcdef').subarray(0, length))
    const error = await rejection(ends.reader.readMessage([0x51], 100))
    expect(error).toMatchObject({ reason: 'eof', partial: true })
    expect(error.message).toBe('the client closed the connection in the middle of a message')
    close(ends)
  })

  test('by a reset', async () => {
    const ends = await pair()
    ends.client.write('Q')
    await arrived(ends.socket, 1)
    const message = rejection(ends.reader.readMessage([0x51], 100))
    ends.client.resetAndDestroy()
    expect(await message).toMatchObject({ reason: 'reset', cause: { code: 'ECONNRESET' } })
    close(ends)
  })

  test("by the caller's destroy, as at a deadline", async () => {
    const ends = await pair()
    const message = rejection(ends.reader.readMessage([0x51], 100))
    ends.socket.destroy()
    expect(await message).toMatchObject({ reason: 'reset' })
    expect(await rejection(ends.reader.readMessage([0x51], 100))).toMatchObject({ reason: 'reset' })
    expect(ends.reader.detach()).toHaveLength(0)
    close(ends)
  })
})

describe('detach', () => {
  test('leaves the stream paused and without listeners of the reader', async () => {
    const accepted = once(server, 'connection')
    const client = connect((server.address() as AddressInfo).port, '127.0.0.1')
    const [socket] = (await accepted) as [Socket]
    const count = () => socket.eventNames().map((event) => [event, socket.listenerCount(event)])
    const before = count()
    const reader = createMessageReader(socket)
    client.write(query('one'))
    await reader.readMessage([0x51], 10)
    client.write('rest')
    await arrived(socket, 4)
    expect(reader.detach().toString()).toBe('rest')
    expect(count()).toEqual(before)
    expect(socket.isPaused()).toBe(true)
    socket.end()
    expect(await text(client.end('more'))).toBe('')
    expect(await text(socket)).toBe('more')
    socket.destroy()
  })

  test('a relay that listens for data at once, or later, gets the bytes that follow', async () => {
    for (const later of [false, true]) {
      const ends = await pair()
      ends.client.write(query('one'))
      await ends.reader.readMessage([0x51], 10)
      const chunks = [ends.reader.detach()]
      ends.client.end('rest')
      if (later) await arrived(ends.socket, 4)
      ends.socket.on('data', (chunk: Buffer) => chunks.push(chunk))
      ends.socket.resume()
      await once(ends.socket, 'end')
      expect(Buffer.concat(chunks).toString()).toBe('rest')
      close(ends)
    }
  })

  test('many reads add no listeners', async () => {
    const ends = await pair()
    const count = () => ends.socket.eventNames().reduce((sum, event) => sum + ends.socket.listenerCount(event), 0)
    const before = count()
    for (let index = 0; index < 100; index++) {
      ends.client.write(query(`${index}`))
      await ends.reader.readMessage([0x51], 10)
    }
    expect(count()).toBe(before)
    close(ends)
  })
})
