/** A connection in the words of the programs that jobs run: libpq's variables, URLs, JDBC, Flyway. */

export interface Connection {
  /** A name or an address, or the directory of a Unix socket. */
  host: string
  port: number
  database: string
  user: string
  password: string
  /** Undefined for loopback and Unix sockets: no TLS. `caFile` is an absolute path. */
  tls: { caFile: string } | undefined
}

export type Variables = ReadonlyMap<string, string>

/** Variables that would lead libpq elsewhere, or make it demand what this connection has not. */
export const CONFLICTING = [
  'PGHOSTADDR',
  'PGSERVICE',
  'PGPASSFILE',
  'PGREQUIRESSL',
  'PGREQUIREPEER',
  'PGREQUIREAUTH',
  'PGCHANNELBINDING',
  'PGSSLNEGOTIATION',
  'PGSSLCERT',
  'PGSSLKEY',
  'PGSSLCERTMODE',
  'PGSSLROOTCERT',
  'PGSSLCRL',
  'PGSSLCRLDIR',
  'PGGSSENCMODE',
  'PGTARGETSESSIONATTRS',
  'PGLOADBALANCEHOSTS',
  'JDBC_DATABASE_URL',
  'FLYWAY_URL',
] as const

const isSocket = ({ host }: Connection): boolean => host.startsWith('/')

/** In the order of how likely they are wanted. */
export function connectionVariables(connection: Connection): Variables {
  const { host, port, database, user, password, tls } = connection
  const variables = new Map([
    ['DATABASE_URL', databaseUrl(connection)],
    ['PGHOST', host],
    ['PGPORT', String(port)],
    ['PGDATABASE', database],
    ['PGUSER', user],
    ['PGPASSWORD', password],
    ['PGSSLMODE', tls === undefined ? 'disable' : 'verify-full'],
  ])
  if (tls !== undefined) variables.set('PGSSLROOTCERT', tls.caFile)
  // Java's driver knows no Unix sockets.
  if (isSocket(connection)) return variables
  variables.set('JDBC_DATABASE_URL', jdbcUrl(connection))
  variables.set('JDBC_DATABASE_USERNAME', user)
  variables.set('JDBC_DATABASE_PASSWORD', password)
  variables.set('FLYWAY_URL', jdbcUrlWithoutLogin(connection))
  variables.set('FLYWAY_USER', user)
  variables.set('FLYWAY_PASSWORD', password)
  return variables
}

/** `postgres://user:password@host:port/database?sslmode=…` */
export function databaseUrl(connection: Connection): string {
  const { host, port, database, user, password } = connection
  const login = `${encode(user)}:${encode(password)}`
  const parameters = tlsParameters(connection)
  if (!isSocket(connection))
    return `postgres://${login}@${bracketed(host)}:${port}/${encode(database)}${query(parameters)}`
  // Drivers agree on `host` and `port` as parameters; an authority they do without, or take for the one of TCP.
  return `postgres://${login}@localhost/${encode(database)}${query([['host', host], ['port', String(port)], ...parameters])}`
}

/** `jdbc:postgresql://host:port/database?user=…&password=…`; TCP only. */
export function jdbcUrl(connection: Connection): string {
  const { user, password } = connection
  return jdbc(connection, [['user', user], ['password', password], ...tlsParameters(connection)])
}

/** Flyway has settings of their own for user and password, and shows its URL in its log. */
function jdbcUrlWithoutLogin(connection: Connection): string {
  return jdbc(connection, tlsParameters(connection))
}

type Parameters = readonly (readonly [string, string])[]

function jdbc({ host, port, database }: Connection, parameters: Parameters): string {
  return `jdbc:postgresql://${bracketed(host)}:${port}/${encode(database)}${query(parameters)}`
}

function tlsParameters({ tls }: Connection): Parameters {
  if (tls === undefined) return [['sslmode', 'disable']]
  return [
    ['sslmode', 'verify-full'],
    ['sslrootcert', tls.caFile],
  ]
}

/** A query may hold `/` as it is (RFC 3986, 3.4), and paths of files are for people too. */
function query(parameters: Parameters): string {
  return `?${parameters.map(([name, value]) => `${name}=${encode(value).replaceAll('%2F', '/')}`).join('&')}`
}

const bracketed = (host: string): string => (host.includes(':') ? `[${host}]` : host)

/** Percent-encoded but for RFC 3986's unreserved characters. */
function encode(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`)
}
