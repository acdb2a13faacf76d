import { once } from 'node:events'
import { readSync } from 'node:fs'
import type { Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import { createSecureContext, TLSSocket, connect as tlsConnect } from 'node:tls'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { directWriter } from '../../src/session/direct-writer.ts'
import { createCa } from '../support/certificates.ts'
import { pair } from '../support/socket-pair.ts'

/** Everything that comes up to FIN. */
async function allOf(socket: Socket): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of socket) parts.push(part as Buffer)
  return Buffer.concat(parts)
}

const fdOf = (socket: Socket): number => (socket as unknown as { _handle: { fd: number } })._handle.fd

/** As its callers do: what it does not take goes by the socket. */
function write(socket: Socket, now: (bytes: Buffer) => number, bytes: Buffer): void {
  const taken = now(bytes)
  if (taken < bytes.length) socket.write(bytes.subarray(taken))
}

test('a small message is with the kernel at once, and a large one is left to the socket', async () => {
  const [near, far] = await pair()
  const now = directWriter(near)
  expect(now(Buffer.from('at once'))).toBe(7)
  expect(near.bytesWritten).toBe(0)
  expect(now(Buffer.alloc(64 * 1024))).toBe(0)
  near.end(' and behind')
  expect((await allOf(far)).toString()).toBe('at once and behind')
})

test('nothing overtakes, whatever the sizes and however slowly the other side reads', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 6_000 }), { minLength: 1, maxLength: 60 }),
      fc.integer({ min: 1, max: 40 }),
      async (sizes, times) => {
        const [near, far] = await pair()
        const now = directWriter(near)
        const sent: Buffer[] = []
        // Up to 14 MB while nobody reads, far more than the kernel keeps.
        for (let time = 0; time < times; time++) {
          for (const size of sizes) {
            const bytes = Buffer.alloc(size, (sent.length * 31 + size) & 0xff)
            sent.push(bytes)
            write(near, now, bytes)
          }
        }
        near.end()
        expect((await allOf(far)).equals(Buffer.concat(sent))).toBe(true)
      },
    ),
    { numRuns: 25 },
  )
})

test('a kernel that takes no more is no error, and the socket goes on when it takes more', async () => {
  const [near, far] = await pair()
  const now = directWriter(near)
  const message = Buffer.alloc(4_000, 'm')
  let taken = 0
  for (let last = message.length; last === message.length; taken += last) last = now(message)
  expect(taken).toBeGreaterThan(message.length)
  near.write('behind')
  expect(near.writableLength).toBeGreaterThan(0)
  // The kernel has room again before the socket hears of it, and even the smallest message has to stand behind what waits.
  const read = Buffer.alloc(taken)
  const first = readSync(fdOf(far), read)
  expect(first).toBeGreaterThan(message.length)
  expect(now(Buffer.from('!'))).toBe(0)
  near.end('!')
  const seen = await allOf(far)
  expect(first + seen.length).toBe(taken + 'behind!'.length)
  expect(seen.subarray(-7).toString()).toBe('behind!')
})

test('a connection that is closed takes nothing, whoever has its descriptor by then', async () => {
  const [near, far] = await pair()
  const now = directWriter(near)
  const fd = fdOf(near)
  near.destroy()
  await once(near, 'close')
  // The kernel gives the lowest free number.
  const others: Socket[] = []
  while (!others.map(fdOf).includes(fd) && others.length < 100) others.push(...(await pair()))
  expect(others.map(fdOf)).toContain(fd)
  expect(now(Buffer.from('of somebody else'))).toBe(0)
  for (const socket of others) socket.end()
  for (const socket of others) expect((await allOf(socket)).length).toBe(0)
  far.destroy()
})

test('within the turn of the loop in which it is destroyed, too', async () => {
  const [near, far] = await pair()
  const now = directWriter(near)
  near.destroy()
  expect(now(Buffer.from('too late'))).toBe(0)
  expect((await allOf(far)).length).toBe(0)
})

test('behind `end` nothing goes, though FIN is not sent within its turn', async () => {
  const [near, far] = await pair()
  const now = directWriter(near)
  near.end('last words')
  expect(near.writableLength).toBe(0)
  expect(now(Buffer.from('behind them'))).toBe(0)
  expect((await allOf(far)).toString()).toBe('last words')
})

test('where the other side is gone the socket tells it, and nothing is thrown', async () => {
  const [near, far] = await pair()
  const now = directWriter(near)
  far.resetAndDestroy()
  const failed = new Promise<NodeJS.ErrnoException>((resolve) => near.once('error', resolve))
  // The reset is there once a write meets it.
  while (now(Buffer.from('anybody?')) > 0) await new Promise((resolve) => setImmediate(resolve))
  near.write('anybody?')
  expect(['EPIPE', 'ECONNRESET']).toContain((await failed).code)
})

test('through TLS no byte goes past the encryption', async () => {
  const ca = await createCa()
  const { cert, key } = await ca.issue({ cn: 'localhost', dns: ['localhost'] })
  const [near, far] = await pair()
  const raw: Buffer[] = []
  near.on('data', (bytes: Buffer) => raw.push(bytes))
  const client = tlsConnect({ socket: near, ca: ca.cert, servername: 'localhost' })
  const server = new TLSSocket(far, { isServer: true, secureContext: createSecureContext({ cert, key }) })
  await once(client, 'secureConnect')
  for (const end of [client, server]) {
    const now = directWriter(end)
    expect(now(Buffer.from('plain text'))).toBe(0)
  }
  server.end('said in secret')
  expect((await allOf(client)).toString()).toBe('said in secret')
  expect(Buffer.concat(raw).includes('plain text')).toBe(false)
  near.destroy()
  far.destroy()
})

test('a Unix socket is written to as well', async () => {
  const [near, far] = await pair('unix')
  expect(directWriter(near)(Buffer.from('local'))).toBe(5)
  near.end()
  expect((await allOf(far)).toString()).toBe('local')
})

test('what is no socket of the system is left to its stream', () => {
  expect(directWriter(new PassThrough() as unknown as Socket)(Buffer.from('as ever'))).toBe(0)
})
