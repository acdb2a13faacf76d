/** TCP, Unix socket and TLS toward an upstream, up to where the StartupMessage or CancelRequest may be sent. */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import * as net from 'node:net'
import * as tls from 'node:tls'
import { serialize } from 'pg-protocol'
import type { Attempt } from './attempt.ts'
import { type Endpoint, expectedName, UpstreamUnusable } from './failure.ts'

const KEEPALIVE_AFTER = 30_000
/** Of each address of a name before the next one is tried; Node's 250 ms is less than a far region's round trips under loss. */
const ADDRESS_ATTEMPT_TIMEOUT = 1_000

export interface ClientCertificate {
  /** PEM. */
  cert: string
  key: string
}

/** PostgreSQL has no TLS on Unix sockets; libpq ignores sslmode there as well. */
export function usesTls(config: Endpoint): boolean {
  return !config.host.startsWith('/') && config.tls.mode !== 'disable'
}

/** @throws what the socket threw, or UpstreamUnusable; the attempt's owner destroys the sockets. */
export async function openTransport(
  attempt: Attempt,
  config: Endpoint,
  certificate?: ClientCertificate,
): Promise<net.Socket | tls.TLSSocket> {
  // Before there is a socket that could be reset in the meantime.
  const secureContext = usesTls(config) ? await secureContextFor(config, certificate) : undefined
  attempt.signal.throwIfAborted()
  const socket = config.host.startsWith('/')
    ? net.connect({ path: `${config.host}/.s.PGSQL.${config.port}` })
    : net.connect({
        host: config.host,
        port: config.port,
        noDelay: true,
        keepAlive: true,
        keepAliveInitialDelay: KEEPALIVE_AFTER,
        autoSelectFamilyAttemptTimeout: ADDRESS_ATTEMPT_TIMEOUT,
      })
  attempt.track(socket)
  await once(socket, 'connect', { signal: attempt.signal })
  if (secureContext === undefined) return socket
  attempt.stage = 'negotiating TLS'
  await requestTls(socket)
  return await handshake(attempt, socket, config, secureContext)
}

/**
 * SSLRequest and its answer of exactly one byte. More bytes with it were sent in the clear by somebody in between and
 * would count as the server's first words inside TLS (CVE-2021-23222).
 */
async function requestTls(socket: net.Socket): Promise<void> {
  socket.write(serialize.requestSsl())
  const answer = await firstChunk(socket)
  const [byte = 0] = answer
  // S, N, and E of an error: else it is another protocol, such as HTTP.
  if (![0x53, 0x4e, 0x45].includes(byte)) {
    throw new UpstreamUnusable('its answer to the request for TLS is not one of PostgreSQL')
  }
  if (answer.length !== 1 || socket.readableLength !== 0) {
    throw new UpstreamUnusable('its answer to the request for TLS is followed by bytes in the clear')
  }
  if (byte === 0x53) return // S
  if (byte === 0x4e) throw new UpstreamUnusable('it offers no TLS, and `tls.mode` demands it') // N
  throw new UpstreamUnusable('its answer to the request for TLS is not one of PostgreSQL')
}

/** Pauses the socket in the same turn, so that what follows stays in the kernel for TLS to read. */
function firstChunk(socket: net.Socket): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const settle = (done: () => void): void => {
      socket.off('data', onData).off('end', onEnd).off('error', onError).off('close', onEnd)
      done()
    }
    const onData = (chunk: Buffer): void => {
      socket.pause()
      settle(() => resolve(chunk))
    }
    const onEnd = (): void =>
      settle(() => reject(new UpstreamUnusable('it closed the connection on a request for TLS')))
    const onError = (error: Error): void => settle(() => reject(error))
    socket.on('data', onData).on('end', onEnd).on('error', onError).on('close', onEnd)
    if (socket.destroyed) onEnd()
  })
}

async function handshake(
  attempt: Attempt,
  socket: net.Socket,
  config: Endpoint,
  secureContext: tls.SecureContext,
): Promise<tls.TLSSocket> {
  const name = expectedName(config)
  const { mode, ca } = config.tls
  const secured = tls.connect({
    socket,
    secureContext,
    // SNI holds names only (RFC 6066, section 3).
    ...(net.isIP(name) === 0 ? { servername: name } : {}),
    // As libpq 17 does: a TLS service that is no PostgreSQL cannot be made to take our words (ALPACA).
    ALPNProtocols: ['postgresql'],
    // As with libpq, `require` with a CA checks the chain: a CA that is configured and not looked at would mislead.
    rejectUnauthorized: mode !== 'require' || ca !== undefined,
    checkServerIdentity: (_host, certificate) =>
      mode === 'verify-full' ? tls.checkServerIdentity(name, certificate) : undefined,
  })
  attempt.track(secured)
  await once(secured, 'secureConnect', { signal: attempt.signal })
  return secured
}

/**
 * Contexts without a client certificate, by CA text: making one with the system's 200 CAs takes 20 ms of the event loop,
 * with a CA file 0.4 ms. Bounded by the number of CA files in the configuration and their versions.
 */
const contexts = new Map<string, tls.SecureContext>()
const MAX_CONTEXTS = 64

async function secureContextFor(
  config: Endpoint,
  certificate: ClientCertificate | undefined,
): Promise<tls.SecureContext> {
  try {
    // Read for each connection, so that a CA file that is replaced counts at once.
    const ca = config.tls.ca === undefined ? undefined : await readFile(config.tls.ca, 'utf8')
    if (certificate !== undefined) return makeContext(ca, certificate)
    const known = contexts.get(ca ?? '')
    if (known !== undefined) return known
    const made = makeContext(ca)
    if (contexts.size >= MAX_CONTEXTS) contexts.clear()
    contexts.set(ca ?? '', made)
    return made
  } catch (error) {
    throw new UpstreamUnusable('the CA file or client certificate for it cannot be read', { cause: error })
  }
}

function makeContext(ca: string | undefined, certificate?: ClientCertificate): tls.SecureContext {
  return tls.createSecureContext({ ...certificate, ca: ca ?? systemCertificates(), minVersion: 'TLSv1.2' })
}

/** Node's default is the list that it was built with; an operator who adds a CA to the machine expects it to count. */
export function systemCertificates(): string[] {
  return [...new Set([...tls.getCACertificates('default'), ...tls.getCACertificates('system')])]
}
