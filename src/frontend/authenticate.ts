/** Asks the client for its token: as a cleartext password over TLS, or by OAUTHBEARER where the client asked for that. */
import type { Socket } from 'node:net'
import { AccessError } from '../errors.ts'
import { tokenMissing } from '../identity/mistaken-password.ts'
import {
  type Challenge,
  challengeFor,
  expectDummyResponse,
  OAUTHBEARER,
  parseInitialResponse,
} from '../sasl/oauthbearer.ts'
import { authenticationCleartextPassword, authenticationSASL, authenticationSASLContinue } from '../wire/backend.ts'
import { FrontendMessage, MAX_TOKEN_LENGTH } from '../wire/constants.ts'
import { createBufferReader, decodeUtf8 } from '../wire/reader.ts'
import type { MessageReader } from './message-reader.ts'
import { sendError } from './respond.ts'

/** Milliseconds for the answer to the challenge of a refused token. */
const CHALLENGE_TIMEOUT = 2_000

export interface AuthenticateOptions {
  /** The client asked for OAUTHBEARER (`pgusher.auth=oauthbearer`). */
  oauthbearer: boolean
  /** What a client of OAUTHBEARER is told about where to get a token; undefined where there is no one issuer. */
  challenge: Challenge | undefined
}

export interface Presented {
  /** Not verified, not empty, at most 64 KiB. Goes to the verifier and nowhere else. */
  token: string
  mechanism: 'password' | 'oauthbearer'
  /** Tells the client that it is refused and closes the stream, by the way of its mechanism. Never rejects; takes at most four seconds. */
  refuse(error: AccessError, denialId?: string): Promise<void>
}

export interface AuthenticatingConnection {
  stream: Socket
  reader: MessageReader
  /** Undefined without TLS. */
  tlsProtocol: string | undefined
}

/**
 * @throws AccessError `token_missing`, `token_malformed`, `protocol_violation`, or `tls_required` for OAUTHBEARER in the clear.
 *   After an OAUTHBEARER discovery (an empty token) the challenge is done by then and only the ErrorResponse is due.
 * @throws ConnectionClosedError
 */
export async function requestToken(
  connection: AuthenticatingConnection,
  options: AuthenticateOptions,
): Promise<Presented> {
  return options.oauthbearer ? requestOAuthBearer(connection, options.challenge) : requestPassword(connection)
}

async function requestPassword({ stream, reader }: AuthenticatingConnection): Promise<Presented> {
  stream.write(authenticationCleartextPassword())
  const { body } = await reader.readMessage([FrontendMessage.Password], MAX_TOKEN_LENGTH + 1, tokenTooLong)
  const message = createBufferReader(body, 'PasswordMessage')
  const password = message.cstringBytes()
  if (message.remaining > 0) {
    throw new AccessError('protocol_violation', 'PasswordMessage is malformed: bytes follow its terminator')
  }
  // `$(cat token)` is trimmed by the shell, PGPASSFILE and secrets of CI systems often end in a newline.
  const token = decodeToken(password).trimEnd()
  if (token === '') throw tokenMissing('the password of the connection string is empty')
  return { token, mechanism: 'password', refuse: (error, denialId) => sendError(stream, error, denialId) }
}

async function requestOAuthBearer(
  { stream, reader, tlsProtocol }: AuthenticatingConnection,
  challenge: Challenge | undefined,
): Promise<Presented> {
  if (tlsProtocol === undefined) {
    throw new AccessError('tls_required', 'OAUTHBEARER is only offered over TLS: use sslmode=verify-full')
  }
  const token = parseInitialResponse(await readInitialResponse(stream, reader))

  async function failExchange(): Promise<void> {
    stream.write(authenticationSASLContinue(challengeFor(challenge)))
    expectDummyResponse((await reader.readMessage([FrontendMessage.Password], 1)).body)
  }

  if (token === '') {
    // libpq asks for the issuer by an empty token and would take AuthenticationOk for a login.
    await failExchange()
    throw new AccessError('token_missing', 'the OAUTHBEARER message holds no token')
  }
  return {
    token,
    mechanism: 'oauthbearer',
    async refuse(error, denialId) {
      // Whatever the client answers to the challenge, or if it closes or keeps silent: it is refused, and for this reason.
      const { promise: silent, resolve } = Promise.withResolvers<void>()
      const timer = setTimeout(resolve, CHALLENGE_TIMEOUT)
      await Promise.race([failExchange().catch(() => {}), silent])
      clearTimeout(timer)
      await sendError(stream, error, denialId)
    },
  }
}

/** SASLInitialResponse, and one SASLResponse more for a client that sends no data with the first. */
async function readInitialResponse(stream: Socket, reader: MessageReader): Promise<Buffer> {
  stream.write(authenticationSASL([OAUTHBEARER]))
  const maxLength = MAX_TOKEN_LENGTH + 256
  const { body } = await reader.readMessage([FrontendMessage.Password], maxLength, tokenTooLong)
  const message = createBufferReader(body, 'SASLInitialResponse')
  const mechanism = message.cstring()
  if (mechanism !== OAUTHBEARER) {
    throw new AccessError('protocol_violation', 'the client chose a SASL mechanism that was not offered')
  }
  const length = message.int32()
  if (length !== -1) {
    const data = message.bytes(length)
    if (message.remaining > 0)
      throw new AccessError('protocol_violation', 'SASLInitialResponse is malformed: it is too long')
    return data
  }
  stream.write(authenticationSASLContinue(Buffer.alloc(0)))
  return (await reader.readMessage([FrontendMessage.Password], maxLength, tokenTooLong)).body
}

function decodeToken(bytes: Buffer): string {
  try {
    return decodeUtf8(bytes, 'the password')
  } catch (cause) {
    throw new AccessError('token_malformed', 'the password is not a token: it is not valid UTF-8', { cause })
  }
}

function tokenTooLong(): AccessError {
  return new AccessError(
    'token_malformed',
    `the token is longer than ${MAX_TOKEN_LENGTH} bytes: put the token alone into the password`,
  )
}
