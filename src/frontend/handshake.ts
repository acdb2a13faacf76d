/**
 * From the first byte to the StartupMessage: SSLRequest, GSSENCRequest, direct TLS, CancelRequest. One loop, in which each
 * request comes at most once; the order of the checks follows PostgreSQL's backend_startup.c. TLS from the first byte may
 * also be HTTP's: what is spoken is settled by ALPN before a byte of it is read, and never guessed from the bytes.
 */
import type { Socket } from 'node:net'
import type { SecureContext, TLSSocket } from 'node:tls'
import { AccessError } from '../errors.ts'
import { negotiateProtocolVersion } from '../wire/backend.ts'
import { ALPN_PROTOCOL, MAX_STARTUP_LENGTH, TLS_HANDSHAKE_RECORD } from '../wire/constants.ts'
import { type CancelRequest, needsNegotiation, parseStartupPacket, type StartupMessage } from '../wire/startup.ts'
import { createMessageReader, type MessageReader } from './message-reader.ts'
import { acceptTls } from './tls.ts'

export interface HandshakeOptions {
  /** Asked once a connection, so that a renewed certificate serves the next one. Undefined: the listener has no TLS. */
  secureContext(): SecureContext | undefined
  plaintext: 'refuse' | 'allow'
  /** Told when TLS has taken over, so that whoever catches a later error knows where to answer. */
  onSecure?(stream: TLSSocket): void
}

export interface CancelHandshake extends CancelRequest {
  stream: Socket | TLSSocket
}

export interface StartupHandshake {
  kind: 'startup'
  stream: Socket | TLSSocket
  reader: MessageReader
  startup: StartupMessage
  /** `TLSv1.2`, `TLSv1.3`; undefined for plain TCP and Unix sockets. */
  tlsProtocol: string | undefined
  /** Duration of the TLS handshake in seconds. */
  tlsSeconds: number | undefined
}

/** TLS from the first byte without ALPN `postgresql`. Nothing of the stream is read yet. */
export interface HttpHandshake {
  kind: 'http'
  stream: TLSSocket
  tlsProtocol: string
}

export type HandshakeResult = CancelHandshake | StartupHandshake | HttpHandshake

/**
 * The deadline is the caller's: it destroys the socket, and this rejects. A no-op `error` listener stays on the streams for
 * good, since a reset between two owners of a socket would otherwise end the process.
 *
 * Where the protocol was negotiated down, NegotiateProtocolVersion has been sent already.
 * @throws AccessError `protocol_violation` or `tls_required`. Where nothing may be said to the client (bytes smuggled in front
 *   of TLS, a failed TLS handshake) the stream is destroyed by then.
 * @throws ConnectionClosedError
 */
export async function handshake(socket: Socket, options: HandshakeOptions): Promise<HandshakeResult> {
  socket.on('error', ignoreError)
  const channel: Channel = {
    socket,
    stream: socket,
    reader: createMessageReader(socket),
    tls: undefined,
    seen: new Set(),
  }
  try {
    if ((await channel.reader.peek()) === TLS_HANDSHAKE_RECORD) {
      const context = options.secureContext()
      if (context === undefined) throw muted(socket, 'direct TLS on a listener without TLS')
      const secured = await secure(channel, context, options, true)
      if (secured.alpnProtocol !== ALPN_PROTOCOL) {
        const rest = channel.reader.detach()
        if (rest.length > 0) secured.unshift(rest)
        return { kind: 'http', stream: secured, tlsProtocol: secured.getProtocol() ?? 'unknown' }
      }
    }
    for (;;) {
      const packet = parseStartupPacket(await channel.reader.readStartup(MAX_STARTUP_LENGTH))
      switch (packet.kind) {
        case 'ssl':
        case 'gss':
          await answerEncryptionRequest(channel, packet.kind, options)
          break
        case 'cancel':
          // In the clear as well: libpq's PQcancel sends it so even where the session has TLS.
          channel.reader.detach()
          return { ...packet, stream: channel.stream }
        case 'startup':
          return acceptStartup(channel, packet, options)
      }
    }
  } catch (error) {
    channel.reader.detach()
    throw error
  }
}

/** Stays for good, so it is none that would keep the handshake with it. */
function ignoreError(): void {}

/** The connection as it is negotiated: `stream` and `reader` change when TLS takes over. */
interface Channel {
  socket: Socket
  stream: Socket | TLSSocket
  reader: MessageReader
  tls: { protocol: string; seconds: number } | undefined
  seen: Set<'ssl' | 'gss'>
}

async function answerEncryptionRequest(
  channel: Channel,
  kind: 'ssl' | 'gss',
  options: HandshakeOptions,
): Promise<void> {
  const request = kind === 'ssl' ? 'SSLRequest' : 'GSSENCRequest'
  refuseRepeated(request, channel.seen.has(kind), channel.tls !== undefined)
  channel.seen.add(kind)
  refuseSmuggled(request, channel.reader, channel.socket)
  const context = kind === 'ssl' ? options.secureContext() : undefined
  channel.socket.write(context === undefined ? 'N' : 'S')
  if (context !== undefined) await secure(channel, context, options, false)
}

async function secure(
  channel: Channel,
  context: SecureContext,
  options: HandshakeOptions,
  direct: boolean,
): Promise<TLSSocket> {
  const started = performance.now()
  const secured = await acceptTls(channel.socket, channel.reader, context, direct)
  channel.tls = { protocol: secured.getProtocol() ?? 'unknown', seconds: (performance.now() - started) / 1000 }
  channel.stream = secured
  channel.reader = createMessageReader(secured)
  options.onSecure?.(secured)
  return secured
}

function acceptStartup(
  { stream, reader, tls }: Channel,
  startup: StartupMessage,
  options: HandshakeOptions,
): StartupHandshake {
  if (tls === undefined && options.plaintext === 'refuse') throw tlsRequired()
  if (needsNegotiation(startup)) stream.write(negotiateProtocolVersion(startup.minor, startup.unknownOptions))
  return { kind: 'startup', stream, reader, startup, tlsProtocol: tls?.protocol, tlsSeconds: tls?.seconds }
}

function refuseRepeated(request: string, seen: boolean, encrypted: boolean): void {
  if (encrypted) throw new AccessError('protocol_violation', `${request} on a connection that is encrypted already`)
  // Endless negotiation kept processes of PostgreSQL and poolers busy or recursing before any authentication.
  if (seen) throw new AccessError('protocol_violation', `a second ${request} on one connection`)
}

/**
 * A client waits for the answer to its request. Bytes that are here before it were injected by somebody on the path, who
 * wants them read as if they came out of the encrypted stream (CVE-2021-23214).
 */
function refuseSmuggled(request: string, reader: MessageReader, socket: Socket): void {
  if (reader.buffered > 0) throw muted(socket, `received unencrypted data after ${request}`)
}

/** Nothing is answered: whoever sent this reads the plain stream, and a text sent before TLS is not ours to the client. */
function muted(socket: Socket, message: string): AccessError {
  socket.destroy()
  return new AccessError('protocol_violation', message)
}

function tlsRequired(): AccessError {
  return new AccessError(
    'tls_required',
    'TLS is required: use sslmode=verify-full. If another error came before this one, that one is the reason: ' +
      'with sslmode=prefer a client that was refused over TLS comes again without it',
    { hint: 'No token is asked for on an unencrypted connection.' },
  )
}
