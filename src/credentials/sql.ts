/**
 * SQL text for the admin's connections. Names and operators are qualified: a function or operator that somebody puts into
 * a schema ahead of pg_catalog would otherwise run with the admin's privileges.
 */
import type pg from 'pg'

const NAME_BYTES = 63

/** Equality, whatever the search path. */
export const EQ = 'OPERATOR(pg_catalog.=)'

/** @throws RangeError for a name that PostgreSQL would cut (to the name of another role, perhaps) or that holds a NUL. */
export function quoteIdentifier(name: string): string {
  const bytes = Buffer.byteLength(name)
  if (bytes === 0 || bytes > NAME_BYTES)
    throw new RangeError(`a PostgreSQL name has 1 to ${NAME_BYTES} bytes, not ${bytes}`)
  if (name.includes('\0')) throw new RangeError('a PostgreSQL name holds no NUL')
  return `"${name.replaceAll('"', '""')}"`
}

/** Right under both values of standard_conforming_strings. @throws RangeError for a NUL. */
export function quoteLiteral(text: string): string {
  if (text.includes('\0')) throw new RangeError('a PostgreSQL string holds no NUL')
  const quoted = `'${text.replaceAll("'", "''")}'`
  return text.includes('\\') ? ` E${quoted.replaceAll('\\', '\\\\')}` : quoted
}

/** PostgreSQL 16 made membership options and ADMIN OPTION on created roles what they are now. */
export function hasMembershipOptions(serverVersion: number): boolean {
  return serverVersion >= 160_000
}

export interface NewLogin {
  login: string
  group: string
  verifier: string
  /** Milliseconds since the epoch. */
  validUntil: number
  connectionLimit: number
  replication: boolean
  comment: string
}

/**
 * CREATE ROLE, COMMENT and membership. The membership last: from 16 on GRANT holds a lock on the group role up to the transaction's end,
 * and other jobs' mints wait for it.
 */
export function createLoginStatements(role: NewLogin, serverVersion: number): string[] {
  const login = quoteIdentifier(role.login)
  const attributes = [
    'LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOBYPASSRLS',
    role.replication ? 'REPLICATION' : 'NOREPLICATION',
    `CONNECTION LIMIT ${Math.trunc(role.connectionLimit)}`,
    `PASSWORD ${quoteLiteral(role.verifier)}`,
    `VALID UNTIL ${quoteLiteral(new Date(role.validUntil).toISOString())}`,
  ]
  const options = hasMembershipOptions(serverVersion) ? ' WITH ADMIN FALSE, INHERIT FALSE, SET TRUE' : ''
  return [
    `CREATE ROLE ${login} ${attributes.join(' ')}`,
    `COMMENT ON ROLE ${login} IS ${quoteLiteral(role.comment)}`,
    `GRANT ${quoteIdentifier(role.group)} TO ${login}${options}`,
  ]
}

/** The admin makes itself a member for the time of a transaction, with the role's privileges and the right to SET ROLE to it. */
export function joinRole(role: string, serverVersion: number): string {
  const options = hasMembershipOptions(serverVersion) ? ' WITH ADMIN FALSE, INHERIT TRUE, SET TRUE' : ''
  return `GRANT ${quoteIdentifier(role)} TO CURRENT_USER${options}`
}

/** Takes `joinRole` back. From 16 on the membership that an operator granted is a row of its own and stays. */
export function leaveRole(role: string, serverVersion: number): string {
  const grantor = hasMembershipOptions(serverVersion) ? ' GRANTED BY CURRENT_USER' : ''
  return `REVOKE ${quoteIdentifier(role)} FROM CURRENT_USER${grantor}`
}

/** Sends the statements in one message, which is one transaction unless it says otherwise. @returns the rows of the last one */
export async function lastRows<Row extends pg.QueryResultRow>(
  client: pg.Client,
  statements: readonly string[],
): Promise<Row[]> {
  const results: pg.QueryResult<Row> | pg.QueryResult<Row>[] = await client.query<Row>(statements.join('; '))
  return (Array.isArray(results) ? results.at(-1)?.rows : results.rows) ?? []
}
