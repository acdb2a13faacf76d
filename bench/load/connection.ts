/**
 * A frontend for loads that libpq's programs cannot make: a thousand sessions in one process, and TLS sessions that are
 * resumed. It runs in a process of its own (`generator-process.ts`), so that its CPU is nobody's.
 */
import { once } from 'node:events'
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { createScramClient, deriveScramKeys, type ScramSecret } from '../../src/sasl/scram.ts'
import {
  passwordMessage,
  saslInitialResponse,
  saslResponse,
  sslRequest,
  startupMessage,
} from '../../src/wire/frontend.ts'
import { cstring, frame } from '../../src/wire/writer.ts'
import type { Address } from '../contestants/contestant.ts'

export interface Connection {
  /** The TLS handshake was an abbreviated one. */
  readonly resumed: boolean
  /** The newest ticket of the server, for the next connection. */
  readonly ticket: Buffer | undefined
  /** Reads the result and forgets it. @throws Error with the server's message */
  query(sql: string): Promise<void>
  /** Terminate, and FIN. */
  close(): Promise<void>
}

const HEADER = 5
/** Milliseconds until TLS stands. A server that closes without a word ends no `once`. */
const TIMEOUT = 30_000
const QUERY = 0x51
const TERMINATE = Buffer.from('X\0\0\0\x04', 'latin1')

interface Message {
  type: string
  body: Buffer
}

/** Messages one at a time, of whatever the socket has. */
function messagesOf(socket: Socket): () => Promise<Message> {
  let pending: Buffer = Buffer.alloc(0)
  let failure: Error | undefined
  let wake: (() => void) | undefined
  socket.on('data', (chunk) => {
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
    wake?.()
  })
  const over = (error?: Error): void => {
    failure ??= error ?? new Error('the connection was closed')
    wake?.()
  }
  socket
    .on('error', over)
    .on('end', over)
    .on('close', () => over())
  return async () => {
    for (;;) {
      const length = pending.length < HEADER ? undefined : pending.readInt32BE(1) + 1
      if (length !== undefined && pending.length >= length) {
        const message = { type: String.fromCharCode(pending[0]!), body: pending.subarray(HEADER, length) }
        pending = pending.subarray(length)
        return message
      }
      if (failure !== undefined) throw failure
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
  }
}

/** The message of an ErrorResponse: the field M. */
function serverError(body: Buffer): Error {
  const fields = body.toString('utf8').split('\0')
  return new Error(fields.find((field) => field.startsWith('M'))?.slice(1) ?? 'an error without a message')
}

/** PBKDF2 takes milliseconds; a client that pools connections derives once, and a thousand in one process have to. */
const derived = new Map<string, ScramSecret>()

function secretFor(password: string, serverFirst: string): ScramSecret {
  const [, salt = '', iterations = ''] = /,s=([^,]+),i=(\d+)/.exec(serverFirst) ?? []
  const key = `${password} ${salt} ${iterations}`
  const bytes = Buffer.from(salt, 'base64')
  const known = derived.get(key)
  if (known !== undefined) return known
  const secret = {
    ...deriveScramKeys(password, bytes, Number(iterations)),
    salt: bytes,
    iterations: Number(iterations),
  }
  derived.set(key, secret)
  return secret
}

/** Up to ReadyForQuery. */
async function login(
  socket: Socket,
  next: () => Promise<Message>,
  { user, database, password }: Address,
): Promise<void> {
  const secret: ScramSecret = {
    clientKey: Buffer.alloc(0),
    serverKey: Buffer.alloc(0),
    salt: Buffer.alloc(0),
    iterations: 0,
  }
  const scram = createScramClient(secret)
  socket.write(startupMessage(new Map(Object.entries({ user, database, application_name: 'bench' }))))
  for (;;) {
    const { type, body } = await next()
    if (type === 'E') throw serverError(body)
    if (type === 'Z') return
    if (type !== 'R') continue
    const code = body.readInt32BE(0)
    const text = body.subarray(4).toString()
    if (code === 3) socket.write(passwordMessage(password))
    if (code === 10) socket.write(saslInitialResponse(scram.mechanism, Buffer.from(scram.initialResponse())))
    if (code === 11) {
      // Salt and iterations are the server's to say, for a client that knows a password.
      Object.assign(secret, secretFor(password, text))
      socket.write(saslResponse(Buffer.from(scram.continue(text))))
    }
    if (code === 12) scram.finish(text)
  }
}

async function secure(socket: Socket, ticket: Buffer | undefined, signal: AbortSignal): Promise<TLSSocket> {
  socket.write(sslRequest())
  const [answer] = (await once(socket, 'data', { signal })) as [Buffer]
  if (answer.toString() !== 'S') throw new Error('the server does not speak TLS')
  socket.removeAllListeners('data')
  // libpq's `require` does not verify either, and pgbench and psql are used with that.
  const options = { socket, rejectUnauthorized: false, ALPNProtocols: ['postgresql'] }
  const secured = connectTls(ticket === undefined ? options : { ...options, session: ticket })
  await once(secured, 'secureConnect', { signal })
  return secured
}

/** @throws Error with the server's message, or the socket's */
export async function openConnection(address: Address, ticket?: Buffer): Promise<Connection> {
  const tcp = connectTcp({ port: address.port, host: '127.0.0.1', noDelay: true })
  try {
    const signal = AbortSignal.timeout(TIMEOUT)
    await once(tcp, 'connect', { signal })
    const secured = address.tls ? await secure(tcp, ticket, signal) : undefined
    const socket = secured ?? tcp
    let newest: Buffer | undefined
    secured?.on('session', (session) => {
      newest = session
    })
    const next = messagesOf(socket)
    await login(socket, next, address)
    return {
      resumed: secured?.isSessionReused() === true,
      get ticket() {
        return newest
      },
      async query(sql) {
        socket.write(frame(QUERY, cstring(sql)))
        let error: Error | undefined
        for (;;) {
          const { type, body } = await next()
          if (type === 'E') error = serverError(body)
          if (type === 'Z') break
        }
        if (error !== undefined) throw error
      },
      async close() {
        if (socket.closed) return
        const closed = once(socket, 'close')
        socket.end(TERMINATE)
        await closed
      },
    }
  } catch (error) {
    tcp.destroy()
    throw error
  }
}
