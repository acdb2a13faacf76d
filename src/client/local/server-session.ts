/** A connection to pgusher, from TCP to ReadyForQuery, with the startup parameters of a local client. */
import type { Socket } from 'node:net'
import {
  ConnectionClosedError,
  createMessageReader,
  type Message,
  type MessageReader,
} from '../../frontend/message-reader.ts'
import { attempt } from '../../upstream/attempt.ts'
import { type Peer, UpstreamUnusable } from '../../upstream/failure.ts'
import { openTransport } from '../../upstream/transport.ts'
import { AuthenticationCode, BackendMessage } from '../../wire/constants.ts'
import { parseErrorFields } from '../../wire/error-response.ts'
import { passwordMessage, startupMessage } from '../../wire/frontend.ts'
import type { StartupMessage } from '../../wire/startup.ts'
import { frame } from '../../wire/writer.ts'

/** pgusher's own limit is 15 s and comes with a reason; this one is for a server that says nothing at all. */
const LOGIN_TIMEOUT = 30_000
/** Bytes of one message before ReadyForQuery. */
const MAX_MESSAGE = 64 * 1024
/** Bytes of all of them; PostgreSQL sends about 500. */
const MAX_GREETING = 1024 * 1024

const LOGIN_MESSAGES = [
  BackendMessage.Authentication,
  BackendMessage.ErrorResponse,
  BackendMessage.NoticeResponse,
  BackendMessage.NegotiateProtocolVersion,
]
const SESSION_MESSAGES = [
  BackendMessage.ParameterStatus,
  BackendMessage.BackendKeyData,
  BackendMessage.ReadyForQuery,
  BackendMessage.NoticeResponse,
  BackendMessage.ErrorResponse,
]

export interface ServerSession {
  kind: 'session'
  /** Paused, without listeners that read. */
  socket: Socket
  /** Whole messages for the client, from AuthenticationOk to ReadyForQuery. */
  greeting: Buffer
  /** What came behind them. */
  rest: Buffer
  /** For CancelRequest; undefined where none was sent. */
  cancelKey: CancelKey | undefined
}

export interface CancelKey {
  processId: number
  secret: Buffer
}

export interface ServerRefusal {
  kind: 'refused'
  /** The ErrorResponse as it came. */
  frame: Buffer
  /** Its fields by their codes: C, M, D, H. */
  fields: ReadonlyMap<string, string>
}

/**
 * @param password the token or ticket; sent inside TLS to a verified server only
 * @throws AccessError `upstream_unreachable` where there is no such server or it is not as it should be; `protocol_violation`
 */
export async function openServerSession(
  peer: Peer,
  startup: Pick<StartupMessage, 'parameters' | 'minor'>,
  password: string,
  signal: AbortSignal,
): Promise<ServerSession | ServerRefusal> {
  return await attempt(peer, LOGIN_TIMEOUT, signal, async (state) => {
    const socket = await openTransport(state, peer.config)
    state.stage = 'logging in'
    const reader = createMessageReader(socket)
    try {
      // Options of the protocol that the client was told are unknown here are left out, so there is nothing to negotiate.
      socket.write(startupMessage(startup.parameters, startup.minor))
      const result = await logIn(socket, reader, password)
      if (result.kind === 'refused') socket.destroySoon()
      return result
    } catch (error) {
      if (!(error instanceof ConnectionClosedError)) throw error
      throw new UpstreamUnusable('it closed the connection during the login', { cause: error })
    }
  })
}

async function logIn(socket: Socket, reader: MessageReader, password: string): Promise<ServerSession | ServerRefusal> {
  const asked = await authenticationMessage(reader)
  if (asked.type === BackendMessage.ErrorResponse) return refusal(asked)
  if (authenticationCode(asked) !== AuthenticationCode.CleartextPassword) {
    throw new UpstreamUnusable('it does not ask for a token as pgusher does: is --server that of pgusher?')
  }
  socket.write(passwordMessage(password))
  const answer = await authenticationMessage(reader)
  if (answer.type === BackendMessage.ErrorResponse) return refusal(answer)
  if (authenticationCode(answer) !== AuthenticationCode.Ok) {
    throw new UpstreamUnusable('it sent a message out of turn during the login')
  }
  return await greet(socket, reader, asFrame(answer))
}

/** An ErrorResponse or what the server says of authentication. */
async function authenticationMessage(reader: MessageReader): Promise<Message> {
  for (;;) {
    const message = await reader.readMessage(LOGIN_MESSAGES, MAX_MESSAGE)
    // An older server may speak 3.0 only, which differs from 3.2 in the length of cancel keys alone; the client was answered already.
    const passed =
      message.type === BackendMessage.NoticeResponse || message.type === BackendMessage.NegotiateProtocolVersion
    if (!passed) return message
  }
}

async function greet(socket: Socket, reader: MessageReader, ok: Buffer): Promise<ServerSession | ServerRefusal> {
  const frames = [ok]
  let length = ok.length
  let cancelKey: CancelKey | undefined
  for (;;) {
    const message = await reader.readMessage(SESSION_MESSAGES, MAX_MESSAGE)
    if (message.type === BackendMessage.ErrorResponse) return refusal(message)
    const bytes = asFrame(message)
    length += bytes.length
    if (length > MAX_GREETING) throw new UpstreamUnusable('it sends without end before the login is done')
    frames.push(bytes)
    if (message.type === BackendMessage.BackendKeyData && message.body.length >= 8) {
      cancelKey = { processId: message.body.readInt32BE(0), secret: Buffer.from(message.body.subarray(4)) }
    }
    if (message.type !== BackendMessage.ReadyForQuery) continue
    return { kind: 'session', socket, greeting: Buffer.concat(frames), rest: reader.detach(), cancelKey }
  }
}

function refusal(message: Message): ServerRefusal {
  return { kind: 'refused', frame: asFrame(message), fields: parseErrorFields(message.body) }
}

const asFrame = ({ type, body }: Message): Buffer => frame(type, body)

const authenticationCode = ({ body }: Message): number | undefined =>
  body.length >= 4 ? body.readInt32BE(0) : undefined
