/** One connection of a local client: its password, a session of pgusher's for it, and from there on one to the other. */
import { hash, timingSafeEqual } from 'node:crypto'
import type { Socket } from 'node:net'
import { AccessError, asAccessError } from '../../errors.ts'
import { type CancelHandshake, handshake, type StartupHandshake } from '../../frontend/handshake.ts'
import { ConnectionClosedError } from '../../frontend/message-reader.ts'
import { lastWords, sendError } from '../../frontend/respond.ts'
import { cancelUpstream } from '../../upstream/cancel.ts'
import type { Peer } from '../../upstream/failure.ts'
import { authenticationCleartextPassword } from '../../wire/backend.ts'
import { FrontendMessage } from '../../wire/constants.ts'
import { createBufferReader } from '../../wire/reader.ts'
import { join } from './join.ts'
import { type CancelKey, openServerSession, type ServerRefusal } from './server-session.ts'

const CANCEL_TIMEOUT = 15_000
/** Far longer than the password is; a token that a client sends here by mistake is still answered in words. */
const MAX_PASSWORD = 64 * 1024

export interface Request {
  database: string
  user: string
}

export interface LocalContext {
  server: Peer
  /** Aborted when the listener closes. */
  signal: AbortSignal
  /** What local clients must know. */
  password: string
  /** Milliseconds that a client has for its startup and its password. */
  handshakeTimeout: number
  /** What the server is shown for this request. @throws AccessError, which the client then gets */
  serverPassword(request: Request): Promise<string>
  /** Told before the client is. */
  onRefused(refusal: ServerRefusal, request: Request): void
  /** A connection that came to nothing for a reason that is not the server's word. */
  onFailed(error: AccessError, request: Request): void
  /** Keys of live sessions: who knows none of them makes no connection to the server. */
  cancelKeys: Set<CancelKey>
}

/**
 * Never rejects. The client gets the server's own ErrorResponse where there is one.
 * @param onPassword the client has shown the password
 */
export async function serveLocalConnection(
  socket: Socket,
  context: LocalContext,
  onPassword: () => void,
): Promise<void> {
  socket.setNoDelay(true).on('error', () => {})
  const late = setTimeout(() => socket.destroy(), context.handshakeTimeout)
  try {
    const hello = await handshake(socket, { secureContext: () => undefined, plaintext: 'allow' })
    if (hello.kind === 'cancel') return await forwardCancel(hello, context)
    // HTTP is told from PostgreSQL by TLS, which there is none of here.
    if (hello.kind !== 'startup') return
    await checkPassword(hello, context.password)
    clearTimeout(late)
    onPassword()
    await serveSession(hello, context)
  } catch (thrown) {
    if (!(thrown instanceof ConnectionClosedError)) await sendError(socket, asAccessError(thrown))
  } finally {
    clearTimeout(late)
    socket.destroySoon()
  }
}

/** Whoever may run a process on this machine can reach a loopback port. */
async function checkPassword({ stream, reader }: StartupHandshake, wanted: string): Promise<void> {
  stream.write(authenticationCleartextPassword())
  const { body } = await reader.readMessage([FrontendMessage.Password], MAX_PASSWORD)
  const given = createBufferReader(body, 'PasswordMessage').cstringBytes()
  // Hashes have one length, which timingSafeEqual wants, and their comparison tells nothing about a prefix.
  if (timingSafeEqual(hash('sha256', given, 'buffer'), hash('sha256', wanted, 'buffer'))) return
  throw new AccessError(
    given.length === 0 ? 'token_missing' : 'token_malformed',
    'this port is that of one "pgusher exec": the password is not the one that it gave to its command',
    { hint: 'Use DATABASE_URL or the PG* variables that the command finds in its environment, all of them.' },
  )
}

async function forwardCancel({ processId, key }: CancelHandshake, { cancelKeys, server }: LocalContext): Promise<void> {
  const known = [...cancelKeys].find((one) => one.processId === processId && sameBytes(one.secret, key))
  // As PostgreSQL does, nothing is answered in any case; the client waits for the end of this connection.
  if (known !== undefined) await cancelUpstream(server, known, CANCEL_TIMEOUT).catch(() => {})
}

const sameBytes = (one: Buffer, other: Buffer): boolean => one.length === other.length && timingSafeEqual(one, other)

async function serveSession({ stream, reader, startup }: StartupHandshake, context: LocalContext): Promise<void> {
  const { parameters } = startup
  const request = { database: parameters.get('database') ?? '', user: parameters.get('user') ?? '' }
  try {
    const password = await context.serverPassword(request)
    const session = await openServerSession(context.server, startup, password, context.signal)
    if (session.kind === 'refused') {
      context.onRefused(session, request)
      return await lastWords(stream, session.frame)
    }
    const { socket, greeting, rest, cancelKey } = session
    if (cancelKey !== undefined) context.cancelKeys.add(cancelKey)
    stream.write(greeting)
    await join(stream, reader.detach(), socket, rest)
    if (cancelKey !== undefined) context.cancelKeys.delete(cancelKey)
  } catch (thrown) {
    const error = asAccessError(thrown)
    context.onFailed(error, request)
    await sendError(stream, error)
  }
}
