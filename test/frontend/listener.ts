/** A listener of the real frontend code on a loopback port, for tests of what a client sees. */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { type ConnectionOptions, createSecureContext, type TLSSocket, connect as tlsConnect } from 'node:tls'
import { type HandshakeOptions, type HandshakeResult, handshake } from '../../src/frontend/handshake.ts'
import { sslRequest } from '../../src/wire/frontend.ts'
import { createCa, type TestCa } from '../support/certificates.ts'

export type Accept = (handshaken: Promise<HandshakeResult>, stream: () => Socket, socket: Socket) => Promise<unknown>

export interface Listener extends AsyncDisposable {
  port: number
  ca: TestCa
  /** Sockets that the server holds open. */
  open: Set<Socket>
  connect(): Socket
  /** After an SSLRequest, or from the first byte with `direct`. Resolves when TLS stands. */
  connectTls(options?: ConnectionOptions & { direct?: boolean }): Promise<TLSSocket>
}

export const ca = await createCa()
const { cert, key } = await ca.issue({ cn: 'localhost', dns: ['localhost'], ips: ['127.0.0.1'] })
export const secureContext = createSecureContext({ cert, key, minVersion: 'TLSv1.2' })

/** @param accept gets the handshake's promise and where an error would be answered; what it throws fails the test run */
export async function listen(accept: Accept, options: Partial<HandshakeOptions> = {}): Promise<Listener> {
  const open = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    let stream: Socket = socket
    open.add(socket)
    socket.once('close', () => open.delete(socket))
    const onSecure = (secured: TLSSocket) => {
      stream = secured
    }
    void accept(
      handshake(socket, { secureContext: () => secureContext, plaintext: 'refuse', ...options, onSecure }),
      () => stream,
      socket,
    )
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const clients = new Set<Socket>()

  const track = <S extends Socket>(socket: S): S => {
    clients.add(socket)
    socket.on('error', () => {})
    return socket
  }
  return {
    port,
    ca,
    open,
    connect: () => track(connect(port, '127.0.0.1')),
    async connectTls({ direct = false, ...tls } = {}) {
      const raw = track(connect(port, '127.0.0.1'))
      if (!direct) {
        raw.write(sslRequest())
        const answer = await read(raw, 1)
        if (answer.toString() !== 'S') throw new Error(`SSLRequest was answered by ${answer}`)
      }
      const secured = track(tlsConnect({ socket: raw, ca: ca.cert, servername: 'localhost', ...tls }))
      await new Promise<void>((resolve, reject) => {
        // Not within OpenSSL's read, from where Node tells it: a test that fails there would take its process along.
        secured.once('secureConnect', () => setImmediate(resolve))
        secured.once('error', reject)
        secured.once('close', () => reject(new Error('closed in the TLS handshake')))
      })
      return secured
    },
    async [Symbol.asyncDispose]() {
      for (const socket of [...clients, ...open]) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

/** Exactly `length` bytes; what follows stays in the socket. */
export async function read(socket: Socket, length: number): Promise<Buffer> {
  for (;;) {
    const chunk: Buffer | null = socket.read(length)
    if (chunk !== null) return chunk
    if (socket.readableEnded || socket.destroyed) throw new Error('closed before the bytes came')
    await once(socket, 'readable')
  }
}

/** Everything up to the end of the stream, and whether it ended in order or by a reset. */
export async function readAll(socket: Socket): Promise<{ bytes: Buffer; ended: boolean }> {
  const chunks: Buffer[] = []
  let ended = false
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  socket.once('end', () => {
    ended = true
    socket.end()
  })
  if (!socket.closed) await new Promise<void>((resolve) => socket.once('close', () => resolve()))
  return { bytes: Buffer.concat(chunks), ended }
}
