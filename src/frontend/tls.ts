/** TLS on an accepted socket, behind `S` or from the first byte. */
import type { Socket } from 'node:net'
import { type SecureContext, TLSSocket } from 'node:tls'
import { AccessError } from '../errors.ts'
import { ALPN_HTTP, ALPN_PROTOCOL } from '../wire/constants.ts'
import type { MessageReader } from './message-reader.ts'

/**
 * @param reader of `socket`; it ends here, and what it has not consumed becomes the beginning of the TLS stream
 * @param direct from the first byte: HTTP may be spoken then as well, and PostgreSQL only with its ALPN protocol, without which a
 *   TLS stream meant for another service could be led here (ALPACA attack). `alpnProtocol` of the result tells.
 * @throws AccessError `protocol_violation` when the handshake fails or breaks off; both streams are destroyed by then
 */
export async function acceptTls(
  socket: Socket,
  reader: MessageReader,
  secureContext: SecureContext,
  direct: boolean,
): Promise<TLSSocket> {
  const rest = reader.detach()
  // Node feeds what the socket has buffered to the TLS engine when the TLSSocket is made.
  if (rest.length > 0) socket.unshift(rest)
  // Ours first, for a client that offers both. One that offers neither gets the alert no_application_protocol from OpenSSL.
  const ALPNProtocols = direct ? [ALPN_PROTOCOL, ALPN_HTTP] : [ALPN_PROTOCOL]
  const secured = new TLSSocket(socket, { isServer: true, secureContext, ALPNProtocols })
  secured.on('error', ignoreError)
  // Node 24 reports an error after the handshake (a bad record, renegotiation) by this event alone unless a tls.Server owns
  // the socket, and reads nothing more: without this line the stream would hang for good.
  secured.on('_tlsError', (error: Error) => secured.destroy(error))
  await established(secured)
  // Renegotiation (TLS 1.2) costs the server more than the client; PostgreSQL switches it off too.
  secured.disableRenegotiation()
  return secured
}

/** Stays for good, so it is none that would keep the handshake with it. */
function ignoreError(): void {}

function established(secured: TLSSocket): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  let cause: unknown
  const onError = (error: Error) => {
    cause = error
  }
  const fail = () => {
    secured.destroy()
    reject(new AccessError('protocol_violation', `TLS handshake failed${reasonOf(cause)}`, { cause }))
  }
  // On a half-open listener a FIN in the middle of the handshake closes nothing, and 'end' comes only to those who read.
  const onReadable = () => secured.read(0)
  secured.on('error', onError).once('close', fail).once('end', fail).on('readable', onReadable)
  secured.once('secure', () => {
    secured.off('error', onError).off('close', fail).off('end', fail).off('readable', onReadable)
    // Node 24 calls this from within OpenSSL's SSL_read, and runs promises there as well. Who takes both sockets down in that
    // place frees what OpenSSL is reading with, and the process dies of it: go on when it has returned.
    setImmediate(resolve)
  })
  return promise
}

/** OpenSSL's reason, e.g. "no shared cipher". Its whole text has file names and thread ids and is for the log. */
function reasonOf(cause: unknown): string {
  if (cause instanceof Error && 'reason' in cause && typeof cause.reason === 'string') return `: ${cause.reason}`
  return ': the client broke it off'
}
