/** A logged-in connection to the PostgreSQL server behind a database entry, as the minted credential. */
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { MintedCredential } from '../credentials/minter.ts'
import { abandoned, attempt } from './attempt.ts'
import { UpstreamLoginError, type UpstreamTarget } from './failure.ts'
import { login } from './login.ts'
import { loginQueueOf } from './login-queue.ts'
import { startupMessage } from './startup.ts'
import { openTransport, usesTls } from './transport.ts'

export { ignoreSocketError } from './attempt.ts'
export type { UpstreamTarget } from './failure.ts'

export interface UpstreamConnection {
  /**
   * Paused (call `resume` after adding listeners) and without listeners but `ignoreSocketError` on `error`, which the
   * owner may take off. Ends its writing side by itself when the upstream ended its own.
   */
  socket: Socket | TLSSocket
  /** As reported up to ReadyForQuery. */
  parameterStatus: Map<string, string>
  /** The upstream's own cancel key, never shown to a client; `secret` is empty where it sent none. */
  backendKey: { processId: number; secret: Buffer }
  /** `I`. */
  transactionStatus: string
  /** NoticeResponse messages of the session's start, whole frames. */
  notices: Buffer[]
  /** Bytes behind ReadyForQuery, to be read before those of the socket. */
  rest: Buffer
  /** As configured; `host` is the directory where it is a Unix socket. */
  address: { host: string; port: number }
}

export interface ConnectOptions {
  signal?: AbortSignal
  /** Value of the `replication` parameter, for grants that give it. */
  replication?: string
}

/**
 * @param parameters all of the StartupMessage but `user`, `database` and `replication`.
 * @throws AccessError `upstream_unreachable`, `upstream_auth`, or `protocol_violation` for overlong parameters. The reason
 *   for the operator is in `cause`; no socket is left open. A reason of `signal` that is an AccessError is thrown as it is.
 */
export async function connectUpstream(
  target: UpstreamTarget & { dbname: string },
  credential: MintedCredential,
  parameters: ReadonlyMap<string, string>,
  options: ConnectOptions = {},
): Promise<UpstreamConnection> {
  const { config, dbname } = target
  const { replication, signal } = options
  const startup = startupMessage({ user: credential.login, database: dbname, replication, parameters })
  const leave = await loginQueueOf(target)
    .enter(signal)
    .catch((reason: unknown) => {
      throw abandoned(target, reason)
    })
  return await attempt(target, config.connect_timeout, signal, async (state) => {
    const { secret } = credential
    if (secret.type === 'certificate' && !usesTls(config)) {
      throw new UpstreamLoginError(
        'client certificates need TLS, and this entry is a Unix socket or says `tls.mode: disable`',
      )
    }
    const socket = await openTransport(state, config, secret.type === 'certificate' ? secret : undefined)
    state.stage = 'logging in'
    const session = await login(target, socket, startup, secret)
    return { ...session, socket, address: { host: config.host, port: config.port } }
  }).finally(leave)
}
