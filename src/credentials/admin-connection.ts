/** Connections of the minting admin. Nothing that a client sent reaches them. */
import { readFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { checkServerIdentity } from 'node:tls'
import pg from 'pg'
import type { DatabaseConfig, EphemeralRoleConfig } from '../config/schema.ts'
import { AccessError } from '../errors.ts'
import { isCollision, isConnectionFailure } from './failure.ts'

/** One entry of `databases`; `dbname` is what sessions connect to. */
export interface MintTarget {
  alias: string
  config: DatabaseConfig
  dbname: string
}

/** The server's own limits on our connections, in case we vanish without a word: their death frees what they hold. */
const SERVER_OPTIONS = [
  // A schema that others can write to must not lend the admin a function or an operator.
  'search_path=pg_catalog,pg_temp',
  'tcp_keepalives_idle=10',
  'tcp_keepalives_interval=5',
  'tcp_keepalives_count=3',
]

async function tlsOptions({ host, tls }: DatabaseConfig, identity: Login) {
  // PostgreSQL speaks no TLS on Unix sockets.
  if (tls.mode === 'disable' || host.startsWith('/')) return false
  const name = tls.server_name ?? host
  const file = async (path: string | undefined) => (path === undefined ? undefined : readFile(path, 'utf8'))
  const ca = await file(tls.ca)
  const cert = identity.certificate?.cert ?? (await file(identity.cert))
  const key = identity.certificate?.key ?? (await file(identity.key))
  const verifyName: typeof checkServerIdentity = (_host, certificate) => checkServerIdentity(name, certificate)
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(isIP(name) === 0 ? { servername: name } : {}),
    minVersion: 'TLSv1.2' as const,
    rejectUnauthorized: tls.mode !== 'require',
    checkServerIdentity: tls.mode === 'verify-full' ? verifyName : () => undefined,
  }
}

export interface Login {
  user: string
  password?: string | undefined
  /** PEM files. */
  cert?: string | undefined
  key?: string | undefined
  /** PEM texts, in place of files. */
  certificate?: { cert: string; key: string }
}

/**
 * An established connection. Everything is said explicitly: pg would otherwise take what is missing from PG* variables
 * and ~/.pgpass.
 * @throws the error of the socket, of TLS or of PostgreSQL, as it is.
 */
export async function connectAs(
  config: DatabaseConfig,
  login: Login,
  dbname: string,
  application: string,
): Promise<pg.Client> {
  const password = login.password ?? (() => refuseToAnswer(login.user))
  const client = new pg.Client({
    host: config.host,
    port: config.port,
    user: login.user,
    password,
    database: dbname,
    ssl: await tlsOptions(config, login),
    enableChannelBinding: true,
    application_name: application,
    client_encoding: 'UTF8',
    options: SERVER_OPTIONS.map((setting) => `-c ${setting.replace(/[ \\]/g, '\\$&')}`).join(' '),
    connectionTimeoutMillis: config.connect_timeout,
    statement_timeout: 20_000,
    // Short, because others wait for the same connection; what does not come through is tried again.
    lock_timeout: 1_000,
    idle_in_transaction_session_timeout: 30_000,
    query_timeout: 25_000,
    keepAlive: true,
  })
  // Without a listener a connection that breaks while idle would end the process; whoever uses it next sees the error.
  client.on('error', () => {})
  await client.connect()
  return client
}

async function refuseToAnswer(user: string): Promise<string> {
  const hint = 'its line in pg_hba.conf must ask for what is configured under credentials'
  throw new AccessError('credential_failed', `PostgreSQL asks for a password of "${user}", and pgusher has none`, {
    hint,
  })
}

/** One connection whose users take turns; made when it is first needed and again after it broke. */
export interface SerialConnection {
  run<T>(work: (client: pg.Client) => Promise<T>): Promise<T>
  close(): Promise<void>
}

/**
 * @param keep true: a broken connection is made again at once, and then every few seconds until it works; for the connection
 *   that shows the others that we live.
 */
export function serialConnection(connect: () => Promise<pg.Client>, keep: boolean): SerialConnection {
  let current: Promise<pg.Client> | undefined
  let turn: Promise<unknown> = Promise.resolve()
  let retry: NodeJS.Timeout | undefined
  let closed = false
  let wait = 1_000

  const lost = (which: Promise<pg.Client>): void => {
    if (current !== which) return
    current = undefined
    if (!keep || closed) return
    retry = setTimeout(() => void client().catch(() => {}), wait).unref()
    // A wrong password is not tried every second; below the 20 s after which a process without a connection counts as dead.
    wait = Math.min(wait * 2, 10_000)
  }
  const client = (): Promise<pg.Client> => {
    if (current !== undefined) return current
    clearTimeout(retry)
    const made = connect()
    current = made
    made.then(
      (established) => {
        wait = 1_000
        established.once('end', () => {
          lost(made)
          if (keep && !closed) void client().catch(() => {})
        })
      },
      () => lost(made),
    )
    return made
  }
  return {
    run(work) {
      const result = turn.then(async () => {
        if (closed) throw new AccessError('draining', 'pgusher is shutting down')
        const established = await client()
        return work(established).catch((error: unknown) => {
          // Not an answer of PostgreSQL: a query that timed out would leave its late answer to the next one.
          if (isConnectionFailure(error)) void established.end().catch(() => {})
          throw error
        })
      })
      turn = result.catch(() => {})
      return result
    },
    async close() {
      await turn
      closed = true
      clearTimeout(retry)
      const established = await current?.catch(() => undefined)
      await established?.end().catch(() => {})
    },
  }
}

/** COMMITs what `work` did, or rolls it back; a connection that cannot roll back is given up. */
export async function inTransaction<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
  await client.query('BEGIN')
  try {
    const result = await work()
    await client.query('COMMIT')
    return result
  } catch (error) {
    await client.query('ROLLBACK').catch(() => client.end().catch(() => {}))
    throw error
  }
}

const ATTEMPTS = 8

/** Runs `work` again while it loses against other transactions on the same catalog rows. */
export async function retryCollisions<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      if (!isCollision(error) || attempt === ATTEMPTS) throw error
      await new Promise((next) => setTimeout(next, Math.random() * 10 * 2 ** attempt))
    }
  }
}

export interface Admin {
  target: MintTarget
  credentials: EphemeralRoleConfig
  /** Mints, and shows by its application_name that this process lives. */
  minting: SerialConnection
  /** Takes back; apart, so that a session which takes its time to end delays no mint. */
  cleaning: SerialConnection
  /** A connection of its own; to the admin's usual database, if no other is named. */
  connect(dbname?: string): Promise<pg.Client>
  close(): Promise<void>
}

export function openAdmin(target: MintTarget, credentials: EphemeralRoleConfig, application: string): Admin {
  const home = credentials.admin.dbname ?? target.dbname
  const connect = (dbname = home) => connectAs(target.config, credentials.admin, dbname, application)
  const minting = serialConnection(connect, true)
  const cleaning = serialConnection(connect, false)
  const close = async () => {
    await Promise.all([minting.close(), cleaning.close()])
  }
  return { target, credentials, minting, cleaning, connect, close }
}
