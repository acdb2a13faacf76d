/** The port or Unix socket that only the command of one `pgusher exec` can use, for as long as it runs. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { type LocalContext, serveLocalConnection } from './local-connection.ts'
import type { CancelKey } from './server-session.ts'

/** Milliseconds. */
const HANDSHAKE_TIMEOUT = 15_000
/** Connections that have not shown the password: far more than a pool opens at a time. */
const MAX_WAITING = 500
/** Of a Unix socket; part of its file's name, which libpq puts together from it. */
const SOCKET_PORT = 5432

export interface LocalListener {
  /** 127.0.0.1, or the directory of the Unix socket. */
  host: string
  port: number
  /** 256 random bits, good for this listener alone. */
  password: string
  /** Ends every connection. */
  close(): Promise<void>
}

export type ListenerOptions = Pick<LocalContext, 'server' | 'serverPassword' | 'onRefused' | 'onFailed'> & {
  /** A directory that nobody else may enter, to listen on a Unix socket in it; a loopback port without it. */
  socketDirectory?: string | undefined
  /** Milliseconds that a client has for its startup and its password; 15 s without it. */
  handshakeTimeout?: number
}

/** @throws the system's error where it cannot listen */
export async function startLocalListener({
  socketDirectory,
  handshakeTimeout = HANDSHAKE_TIMEOUT,
  ...hooks
}: ListenerOptions): Promise<LocalListener> {
  const password = randomBytes(32).toString('base64url')
  const closing = new AbortController()
  const cancelKeys = new Set<CancelKey>()
  const context: LocalContext = { ...hooks, password, handshakeTimeout, signal: closing.signal, cancelKeys }
  const connections = new Map<Socket, Promise<void>>()
  const waiting = createWaitingRoom()
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const leave = waiting.enter(socket)
    const served = serveLocalConnection(socket, context, leave).finally(() => {
      leave()
      connections.delete(socket)
    })
    connections.set(socket, served)
  })
  server.on('error', () => {})
  // A pool or `pgbench -c 200` opens all its connections at once.
  const backlog = 1024
  if (socketDirectory === undefined) server.listen({ host: '127.0.0.1', port: 0, backlog })
  else server.listen({ path: join(socketDirectory, `.s.PGSQL.${SOCKET_PORT}`), backlog })
  await once(server, 'listening')
  const bound = server.address()
  const port = bound !== null && typeof bound === 'object' ? bound.port : SOCKET_PORT
  return {
    host: socketDirectory ?? '127.0.0.1',
    port,
    password,
    async close() {
      server.close()
      closing.abort()
      for (const socket of connections.keys()) socket.destroy()
      await Promise.all(connections.values())
    },
  }
}

/**
 * Any process of this machine reaches a loopback port. Whoever comes when it is full takes the place of the one who has waited longest
 * without a password: refused in its place, the command's own connections would be kept out for as long as somebody likes.
 */
function createWaitingRoom() {
  const waiting = new Set<Socket>()
  return {
    /** @returns to be called once it has shown the password or is gone; a second call does nothing */
    enter(socket: Socket): () => void {
      waiting.add(socket)
      const [oldest] = waiting
      if (waiting.size > MAX_WAITING && oldest !== undefined) {
        waiting.delete(oldest)
        oldest.destroy()
      }
      return () => void waiting.delete(socket)
    },
  }
}
