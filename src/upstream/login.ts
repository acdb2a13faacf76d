/** From the StartupMessage to ReadyForQuery. */
import type { Socket } from 'node:net'
import { type PeerCertificate, TLSSocket } from 'node:tls'
import { serialize } from 'pg-protocol'
import type { DatabaseError } from 'pg-protocol/dist/messages.js'
import type { MintedCredential } from '../credentials/minter.ts'
import type { AccessError } from '../errors.ts'
import { type ChannelBinding, createScramClient, ScramError, type ScramSecret } from '../sasl/scram.ts'
import { tlsServerEndPoint } from './channel-binding.ts'
import {
  failure,
  loginRefused,
  UpstreamLoginError,
  type UpstreamTarget,
  UpstreamUnusable,
  unreachable,
} from './failure.ts'
import { createFrameReader, type FrameReader } from './frame-reader.ts'
import { decodeLoginMessage, type LoginMessage } from './messages.ts'

export interface LoggedIn {
  parameterStatus: Map<string, string>
  /** `secret` is empty where the upstream sent no key: nothing can be cancelled there. */
  backendKey: { processId: number; secret: Buffer }
  transactionStatus: string
  /** Whole NoticeResponse frames that came after AuthenticationOk; older ones are nobody's (CVE-2024-10977). */
  notices: Buffer[]
  rest: Buffer
}

const MAX_PARAMETERS = 256
const MAX_NOTICES = 64
const MAX_RELAYED_TEXT = 1000

const sqlstateOf = (error: DatabaseError): string | undefined =>
  /^(?!0[0-2])[0-9A-Z]{5}$/.test(error.code ?? '') ? error.code : undefined

/** What an unauthenticated upstream may say, in our own words. */
const EARLY_REFUSALS: Readonly<Record<string, string>> = {
  '53300': 'it has no free connection slot',
  '57P03': 'it is starting up, shutting down or recovering',
  '57P01': 'it is shutting down',
}

function refusedBeforeLogin(target: UpstreamTarget, error: DatabaseError): AccessError {
  const sqlstate = sqlstateOf(error)
  if (sqlstate?.startsWith('28')) return loginRefused(target, error)
  const known = EARLY_REFUSALS[sqlstate ?? '']
  if (known !== undefined) return unreachable(target, known, error, sqlstate)
  return unreachable(target, `it refused the connection (SQLSTATE ${sqlstate ?? 'missing'})`, error)
}

/** The role exists and the proof was right; the text is PostgreSQL's own and the job may see it. */
function refusedAfterLogin(target: UpstreamTarget, error: DatabaseError): AccessError {
  const sqlstate = sqlstateOf(error)
  if (sqlstate?.startsWith('28')) return loginRefused(target, error)
  const text = (error.message ?? '').replace(/[\p{Cc}\u2028\u2029]+/gu, ' ').slice(0, MAX_RELAYED_TEXT)
  // 42501: may not assume the role; 22023: there is no such role, or a parameter that it does not take.
  const code = sqlstate === '42501' || sqlstate === '22023' ? 'upstream_auth' : 'upstream_unreachable'
  return failure(code, `"${target.alias}" refused the session: ${text || 'without a reason'}`, error, sqlstate)
}

/** The next message that matters before AuthenticationOk. */
async function authenticationMessage(target: UpstreamTarget, reader: FrameReader): Promise<LoginMessage> {
  for (;;) {
    const message = decodeLoginMessage(await reader.next())
    if (message.kind === 'error') throw refusedBeforeLogin(target, message.error)
    if (message.kind !== 'notice') return message
  }
}

function unexpected(message: LoginMessage, wanted: string): Error {
  if (message.kind === 'other-method') {
    return new UpstreamLoginError(
      `the upstream asks for the authentication method ${message.method}; pg_hba.conf must say ${wanted} for the roles of pgusher`,
    )
  }
  if (message.kind === 'authentication-ok') {
    return new UpstreamLoginError(
      `the upstream lets the login in without a proof (trust, peer or ident); pg_hba.conf must say ${wanted} for the roles of pgusher`,
    )
  }
  if (message.kind === 'sasl') {
    return new UpstreamLoginError(
      `the upstream asks for SASL (${message.mechanisms.join(', ').slice(0, 200)}); pg_hba.conf must say ${wanted} for the roles of pgusher`,
    )
  }
  return new UpstreamUnusable('it sent a message out of turn during the login')
}

function channelBinding(socket: Socket, mechanisms: readonly string[]): ChannelBinding {
  if (!(socket instanceof TLSSocket)) return undefined
  // Not getPeerX509Certificate: on the client's side that one takes the certificate out of the connection (Node 24, tried).
  const certificate: Partial<PeerCertificate> | null = socket.getPeerCertificate()
  const data = certificate?.raw && tlsServerEndPoint(certificate.raw)
  if (data === undefined) return undefined
  return mechanisms.includes('SCRAM-SHA-256-PLUS') ? { type: 'tls-server-end-point', data } : 'not-offered'
}

async function scram(target: UpstreamTarget, socket: Socket, reader: FrameReader, secret: ScramSecret): Promise<void> {
  const offer = await authenticationMessage(target, reader)
  if (offer.kind !== 'sasl') throw unexpected(offer, 'scram-sha-256')
  const client = createScramClient(secret, { channelBinding: channelBinding(socket, offer.mechanisms) })
  if (!offer.mechanisms.includes(client.mechanism)) throw unexpected(offer, 'scram-sha-256')
  socket.write(serialize.sendSASLInitialResponseMessage(client.mechanism, client.initialResponse()))
  const first = await authenticationMessage(target, reader)
  if (first.kind !== 'sasl-continue') throw unexpected(first, 'scram-sha-256')
  socket.write(serialize.sendSCRAMClientFinalMessage(client.continue(first.data)))
  const final = await authenticationMessage(target, reader)
  if (final.kind !== 'sasl-final') throw unexpected(final, 'scram-sha-256')
  client.finish(final.data)
}

async function authenticate(
  target: UpstreamTarget,
  socket: Socket,
  reader: FrameReader,
  secret: MintedCredential['secret'],
): Promise<void> {
  try {
    if (secret.type === 'scram') await scram(target, socket, reader, secret)
  } catch (error) {
    throw error instanceof ScramError ? new UpstreamLoginError(error.message, { cause: error }) : error
  }
  const end = await authenticationMessage(target, reader)
  if (end.kind !== 'authentication-ok') throw unexpected(end, secret.type === 'scram' ? 'scram-sha-256' : 'cert')
}

async function untilReady(target: UpstreamTarget, reader: FrameReader): Promise<Omit<LoggedIn, 'rest'>> {
  const parameterStatus = new Map<string, string>()
  const notices: Buffer[] = []
  let backendKey: LoggedIn['backendKey'] = { processId: 0, secret: Buffer.alloc(0) }
  for (;;) {
    const frame = await reader.next()
    const message = decodeLoginMessage(frame)
    switch (message.kind) {
      case 'parameter-status':
        parameterStatus.set(message.name, message.value)
        if (parameterStatus.size > MAX_PARAMETERS) throw new UpstreamUnusable('it reports parameters without end')
        break
      case 'backend-key':
        backendKey = { processId: message.processId, secret: message.secret }
        break
      case 'notice':
        if (notices.length >= MAX_NOTICES) throw new UpstreamUnusable('it sends notices without end')
        notices.push(Buffer.from(frame.bytes))
        break
      case 'ready':
        if (message.transactionStatus !== 'I') throw new UpstreamUnusable('it begins inside a transaction')
        return { parameterStatus, backendKey, transactionStatus: message.transactionStatus, notices }
      case 'error':
        throw refusedAfterLogin(target, message.error)
      default:
        throw new UpstreamUnusable('it sent a message out of turn during the login')
    }
  }
}

/** Sends the StartupMessage and logs in. The socket is left paused, without our listeners. */
export async function login(
  target: UpstreamTarget,
  socket: Socket,
  startup: Buffer,
  secret: MintedCredential['secret'],
): Promise<LoggedIn> {
  const reader = createFrameReader(socket)
  socket.write(startup)
  await authenticate(target, socket, reader, secret)
  const session = await untilReady(target, reader)
  return { ...session, rest: reader.release() }
}
