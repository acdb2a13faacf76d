/** A PostgreSQL by its URL: for the superuser's own connections, and as an entry of `databases`. */
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import type pg from 'pg'
import { isLoopback } from '../../config/scalars.ts'

export interface Upstream {
  /** Name, address, or directory of a Unix socket. */
  host: string
  port: number
  user: string
  password: string | undefined
  /** Where the superuser connects to. */
  database: string
  tls: { mode: 'disable' | 'require' | 'verify-ca' | 'verify-full'; caFile: string | undefined; ca: string | undefined }
}

const MODES = ['disable', 'require', 'verify-ca', 'verify-full'] as const

/**
 * `postgres://user:password@host:5432/database?sslmode=…&sslrootcert=…`. Without `sslmode`: none on this machine, else
 * verify-full; libpq's default, prefer, would send a superuser's password to whoever answers.
 * @throws Error for what is no such URL, and for a `sslrootcert` that cannot be read
 */
export async function parseUpstream(text: string): Promise<Upstream> {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^postgres(ql)?:$/.test(url.protocol)) {
    throw new Error('--upstream wants a URL such as postgres://postgres:password@127.0.0.1:5432/postgres')
  }
  const host = url.searchParams.get('host') ?? (decodeURIComponent(url.hostname).replace(/^\[|\]$/g, '') || 'localhost')
  const user = decodeURIComponent(url.username) || url.searchParams.get('user') || 'postgres'
  const local = host.startsWith('/') || isLoopback(host)
  const sslmode = url.searchParams.get('sslmode') ?? (local ? 'disable' : 'verify-full')
  const mode = MODES.find((one) => one === sslmode)
  if (mode === undefined) throw new Error(`--upstream: sslmode ${sslmode} is not one of ${MODES.join(', ')}`)
  const rootCert = url.searchParams.get('sslrootcert')
  const caFile = rootCert === null ? undefined : resolve(rootCert)
  return {
    host,
    user,
    port: Number(url.port || url.searchParams.get('port') || 5432),
    password: decodeURIComponent(url.password) || url.searchParams.get('password') || undefined,
    database: decodeURIComponent(url.pathname.slice(1)) || user,
    tls: { mode, caFile, ca: caFile === undefined ? undefined : await readFile(caFile, 'utf8') },
  }
}

/** For `new pg.Client`. */
export function upstreamClient(upstream: Upstream, database = upstream.database): pg.ClientConfig {
  const { host, port, user, password, tls } = upstream
  const ssl = {
    rejectUnauthorized: tls.mode === 'verify-full' || tls.mode === 'verify-ca',
    ...(tls.ca === undefined ? {} : { ca: tls.ca }),
    ...(tls.mode === 'verify-ca' ? { checkServerIdentity: () => undefined } : {}),
  }
  return {
    ...{ host, port, user, database, connectionTimeoutMillis: 10_000, application_name: 'pgusher demo' },
    ssl: tls.mode === 'disable' ? false : ssl,
    ...(password === undefined ? {} : { password }),
  }
}
