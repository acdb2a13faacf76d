/** Connections of the minting admin. Nothing that a client sent reaches them. */
import { readFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { checkServerIdentity } from 'node:tls'
import pg from 'pg'
import type { DatabaseConfig, EphemeralRoleConfig } from '../config/schema.ts'
import { AccessError } from '../errors.ts'
import { type AdminLane, openAdminPool } from './admin-pool.ts'
import { checkMessages } from './checked-messages.ts'

/** One entry of `databases`; `dbname` is what sessions connect to. */
export interface MintTarget {
  alias: string
  config: DatabaseConfig
  dbname: string
}

const SERVER_OPTIONS = [
  // A schema that others can write to must not lend the admin a function or an operator.
  'search_path=pg_catalog,pg_temp',
  // A job whose group role owns the database may ALTER DATABASE … SET: none of that is to stop or to misdirect the admin.
  'role=none',
  'default_transaction_read_only=off',
  'default_transaction_isolation=read committed',
  'idle_session_timeout=0',
  'exit_on_error=off',
  'local_preload_libraries=',
  // In case we vanish without a word: the connection's death frees what it holds.
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
    // Short, because others wait for these few connections; what does not come through is tried again.
    lock_timeout: 1_000,
    idle_in_transaction_session_timeout: 30_000,
    query_timeout: 25_000,
    keepAlive: true,
  })
  // Without a listener a connection that breaks while idle would end the process; whoever uses it next sees the error.
  client.on('error', () => {})
  checkMessages(client)
  if (!isTrustworthy(config)) keepPassword(client, config)
  await client.connect()
  return client
}

/** Nobody on the path can pass for the server. */
function isTrustworthy({ host, tls }: DatabaseConfig): boolean {
  return host.startsWith('/') || tls.mode === 'verify-full' || tls.mode === 'verify-ca'
}

/**
 * pg sends the password to any server that asks for it in the clear. Where that may be somebody else, only SCRAM is answered,
 * which tells a server nothing that it does not know. The listener comes before pg's own, whose answer then has no way out.
 */
function keepPassword(client: pg.Client, { host, tls }: DatabaseConfig): void {
  const { connection } = client
  const refuse = (): void => {
    const asked = `${host} asks for the password as it is or as an MD5 hash`
    const hint = `with tls.mode ${tls.mode} anybody may be that; use scram-sha-256 in pg_hba.conf, or tls.mode verify-full`
    connection.stream.destroy(new AccessError('credential_failed', asked, { hint }))
  }
  connection.on('authenticationCleartextPassword', refuse)
  connection.on('authenticationMD5Password', refuse)
}

async function refuseToAnswer(user: string): Promise<string> {
  const hint =
    'This is between pgusher and the database, not in your job: the line of pg_hba.conf must ask for what its operator has configured under credentials.'
  throw new AccessError('credential_failed', `PostgreSQL asks for a password of "${user}", and pgusher has none`, {
    hint,
  })
}

export interface Admin {
  target: MintTarget
  credentials: EphemeralRoleConfig
  /** Its connections show by their application_name that this process lives. */
  minting: AdminLane
  /** Takes back; apart, so that a session which takes its time to end delays no mint. */
  cleaning: AdminLane
  /** A connection of its own; to the admin's usual database, if no other is named. */
  connect(dbname?: string): Promise<pg.Client>
  /**
   * One after the other: those who pass on what roles own lock the group roles and the objects, and side by side they would run into each
   * other's lock_timeout.
   */
  oneRelease<T>(work: () => Promise<T>): Promise<T>
  close(): Promise<void>
}

export function openAdmin(target: MintTarget, credentials: EphemeralRoleConfig, application: string): Admin {
  const home = credentials.admin.dbname ?? target.dbname
  const connect = (dbname = home) => connectAs(target.config, credentials.admin, dbname, application)
  const { minting, cleaning, close } = openAdminPool(connect, credentials.admin.connections)
  let last: Promise<unknown> = Promise.resolve()
  const oneRelease = <T>(work: () => Promise<T>): Promise<T> => {
    const result = last.then(work)
    last = result.catch(() => {})
    return result
  }
  return { target, credentials, minting, cleaning, connect, oneRelease, close }
}
