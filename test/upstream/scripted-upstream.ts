/** Upstreams that say what a test tells them to, on real sockets. */
import { createHash, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { DatabaseConfig } from '../../src/config/schema.ts'
import type { MintedCredential } from '../../src/credentials/minter.ts'
import { deriveScramKeys } from '../../src/sasl/scram.ts'
import { createScramServer } from '../sasl/scram-server.ts'

/** One message: type, length, body. */
export function frame(type: string, ...parts: (string | number | Buffer)[]): Buffer {
  const body = Buffer.concat(
    parts.map((part) => {
      if (typeof part !== 'number') return Buffer.from(part)
      const int = Buffer.alloc(4)
      int.writeInt32BE(part)
      return int
    }),
  )
  const head = Buffer.alloc(5)
  head.write(type, 'latin1')
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}

export const AUTHENTICATION_OK = frame('R', 0)
export const READY = frame('Z', 'I')
export const KEY = frame('K', 4711, 99)
export const parameter = (name: string, value: string) => frame('S', `${name}\0${value}\0`)
export const error = (fields: Record<string, string>) =>
  frame(
    'E',
    `${Object.entries(fields)
      .map(([type, value]) => `${type}${value}\0`)
      .join('')}\0`,
  )
export const afterStartup =
  (...chunks: Buffer[]) =>
  async (peer: Peer): Promise<void> => {
    await peer.startup()
    peer.send(...chunks)
  }

export const afterLogin =
  (...chunks: Buffer[]) =>
  async (peer: Peer): Promise<void> => {
    await acceptScram(peer)
    peer.send(AUTHENTICATION_OK, ...chunks)
  }

export const notice = (text: string) => frame('N', `SNOTICE\0C00000\0M${text}\0\0`)
export const sasl = (...mechanisms: string[]) => frame('R', 10, `${mechanisms.join('\0')}\0\0`)
export const SESSION = Buffer.concat([parameter('server_version', '18.0'), KEY, READY])

export interface Peer {
  socket: Socket
  /** The next `count` bytes. Rejects when the other side is gone. */
  read(count: number): Promise<Buffer>
  /** Body of a message without type (StartupMessage and its like). */
  startup(): Promise<Buffer>
  /** Body of a message with type. */
  message(): Promise<Buffer>
  send(...chunks: Buffer[]): void
}

function peerOn(socket: Socket): Peer {
  const iterator = socket.iterator({ destroyOnReturn: false })
  let pending: Buffer = Buffer.alloc(0)
  const read = async (count: number): Promise<Buffer> => {
    while (pending.length < count) {
      const next = await iterator.next()
      if (next.done) throw new Error('the other side is gone')
      pending = Buffer.concat([pending, next.value])
    }
    const taken = pending.subarray(0, count)
    pending = pending.subarray(count)
    return taken
  }
  return {
    socket,
    read,
    startup: async () => read((await read(4)).readInt32BE() - 4),
    message: async () => read((await read(5)).readInt32BE(1) - 4),
    send: (...chunks) => void socket.write(Buffer.concat(chunks)),
  }
}

export interface ScriptedUpstream {
  port: number
  /** Connections that were made. */
  connections: () => number
  /** Resolves when every connection that was made is closed. */
  allClosed(): Promise<void>
  close(): Promise<void>
}

const running = new Set<Server>()
const open = new Map<Server, Set<Socket>>()

/** Runs `script` for each connection; what it throws is the other side's business. */
export async function scriptedUpstream(script: (peer: Peer) => Promise<void>): Promise<ScriptedUpstream> {
  let count = 0
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    count++
    sockets.add(socket)
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
    script(peerOn(socket)).catch(() => {})
  })
  running.add(server)
  open.set(server, sockets)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    connections: () => count,
    allClosed: async () => {
      await Promise.all([...sockets].map((socket) => new Promise((closed) => socket.resume().once('close', closed))))
    },
    close: () => stop(server),
  }
}

async function stop(server: Server): Promise<void> {
  running.delete(server)
  const closed = once(server, 'close')
  server.close()
  for (const socket of open.get(server) ?? []) socket.destroy()
  await closed
}

/** For `afterEach`. */
export async function closeScriptedUpstreams(): Promise<void> {
  await Promise.all([...running].map(stop))
}

/** Answers SSLRequest with `S` and goes on inside TLS. */
export async function acceptTls(peer: Peer, tls: { cert: string; key: string }): Promise<Peer> {
  await peer.read(8)
  peer.socket.write('S')
  const secured = new TLSSocket(peer.socket, { isServer: true, ...tls })
  secured.on('error', () => {})
  return peerOn(secured)
}

export const CREDENTIAL = scramCredential('pgu_test', 'a minted password')

export function scramCredential(
  login: string,
  password: string,
  salt = Buffer.from('0123456789abcdef'),
  iterations = 1,
) {
  const { clientKey, serverKey } = deriveScramKeys(password, salt, iterations)
  return {
    kind: 'ephemeral-role',
    login,
    assumeRole: undefined,
    secret: { type: 'scram', password, clientKey, serverKey, salt, iterations },
    validUntil: Date.now() + 60_000,
  } satisfies MintedCredential
}

/** Reads the StartupMessage and takes the login of `CREDENTIAL` up to SASLFinal. Returns what the client said about channel binding. */
export async function acceptScram(peer: Peer, tls?: { cert: string }): Promise<string> {
  await peer.startup()
  const channel = tls && createHash('sha256').update(new X509Certificate(tls.cert).raw).digest()
  const server = createScramServer({ ...CREDENTIAL.secret, ...(channel && { channel }) })
  peer.send(channel ? sasl('SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256') : sasl('SCRAM-SHA-256'))
  const initial = (await peer.message()).toString()
  peer.send(frame('R', 11, server.first(initial.slice(initial.indexOf('\0') + 5))))
  peer.send(frame('R', 12, server.final((await peer.message()).toString())))
  return server.flag()
}

/** A database entry without TLS, unless `change` says otherwise. */
export function databaseConfig(port: number, change: Partial<DatabaseConfig> = {}): DatabaseConfig {
  return {
    host: '127.0.0.1',
    port,
    tls: { mode: 'disable' },
    connect_timeout: 5_000,
    credentials: {
      kind: 'ephemeral-role',
      admin: { user: 'pgusher_admin', connections: 4 },
      prefix: 'pgu_',
      linger: 0,
    },
    audit: {},
    ...change,
  }
}
