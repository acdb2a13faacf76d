/** What went wrong with the admin's work, as the job may see it. */
import { AccessError } from '../errors.ts'

/** SQLSTATE of an error that PostgreSQL sent; undefined for those of sockets and of the client library. */
export function sqlstateOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('severity' in error) || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}

export function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const detail = 'detail' in error && typeof error.detail === 'string' ? `: ${error.detail}` : ''
  const address = error instanceof AggregateError ? error.errors.map(messageOf).join(', ') : ''
  return `${error.message || address}${detail}`
}

/** The library's own words; it has no codes for them. */
const BROKEN = /^(Query read timeout|Connection terminated|Client has encountered a connection error|Client was closed)/

/** True where the connection is of no more use, or its next answer may belong to an earlier question. */
export function isConnectionFailure(error: unknown): boolean {
  if (sqlstateOf(error) !== undefined || !(error instanceof Error)) return false
  return BROKEN.test(error.message) || ('code' in error && /^E[A-Z]+$/.test(String(error.code)))
}

/** Two transactions that touch the same catalog row; the loser may try again. */
export function isCollision(error: unknown): boolean {
  const sqlstate = sqlstateOf(error)
  if (sqlstate === 'XX000') return /^tuple (concurrently|already) (updated|deleted)/.test(messageOf(error))
  return sqlstate === '40P01' || sqlstate === '40001' || sqlstate === '23505'
}

/** Their texts hold names only; others could quote the statement, and a verifier is in there. */
const TELLING = /^(42501|42704|42710|0LP01|28...|3D000|53300|55P03|57014)$/
const UNREACHABLE = /^(08...|53300|57P0.)$/

/** @param what e.g. `a login cannot be made`. */
export function adminFailure(alias: string, what: string, error: unknown): AccessError {
  if (error instanceof AccessError) return error
  const sqlstate = sqlstateOf(error)
  const hint = 'The operator finds the reason in the log of pgusher.'
  if (sqlstate === undefined || UNREACHABLE.test(sqlstate)) {
    const text = `database "${alias}" cannot be reached by pgusher${sqlstate === undefined ? '' : ` (${sqlstate})`}`
    return new AccessError('upstream_unreachable', text, { hint, cause: error })
  }
  const told = TELLING.test(sqlstate) && error instanceof Error ? `: ${error.message}` : ''
  return new AccessError('credential_failed', `${what} on database "${alias}"${told} (${sqlstate})`, {
    hint,
    cause: error,
  })
}
