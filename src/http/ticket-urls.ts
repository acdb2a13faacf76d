/** A connection with a ticket, as the programs of a job read it. */
import { isIP } from 'node:net'
import type { TokenAnswer } from './api.ts'

export interface PublicAddress {
  /** Without brackets. */
  host: string
  port: number
}

const HOST = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9][\w.-]{0,252}))(?::(\d{1,5}))?$/
/** What a client leaves out of Host (RFC 9110, section 7.2). */
const HTTPS_PORT = 443

/**
 * Where the client has found us, as its Host header says: behind a load balancer nobody else knows. It comes from who holds the
 * token, who would only mislead himself; but the answer is pasted into shells, so nothing but names and addresses passes.
 * @returns undefined for any other text
 */
export function parseHost(header: string | undefined): PublicAddress | undefined {
  const [, v6, name, digits] = HOST.exec(header ?? '') ?? []
  const port = digits === undefined ? HTTPS_PORT : Number(digits)
  const host = v6 === undefined ? name : isIP(v6) === 6 ? v6 : undefined
  return host === undefined || port < 1 || port > 65_535 ? undefined : { host, port }
}

export interface TicketConnection extends PublicAddress {
  database: string
  user: string
  ticket: string
}

/** Each verifies the server in full; where its CA is no public one, the client has to name it (`sslrootcert`). */
export function ticketUrls({ host, port, database, user, ticket }: TicketConnection): TokenAnswer['urls'] {
  const authority = `${host.includes(':') ? `[${host}]` : host}:${port}`
  const path = `${authority}/${encode(database)}`
  const login = { user: encode(user), password: encode(ticket) }
  const pairs = { host, port: String(port), dbname: database, user, password: ticket, sslmode: 'verify-full' }
  return {
    uri: `postgresql://${login.user}:${login.password}@${path}?sslmode=verify-full`,
    libpq: Object.entries(pairs)
      .map(([name, value]) => `${name}=${keywordValue(value)}`)
      .join(' '),
    jdbc: `jdbc:postgresql://${path}?user=${login.user}&password=${login.password}&sslmode=verify-full`,
  }
}

/** Percent-encoded but for RFC 3986's unreserved characters. */
function encode(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`)
}

/** libpq, "Keyword/Value Connection Strings". */
function keywordValue(text: string): string {
  return /^[\w.:-]+$/.test(text) ? text : `'${text.replace(/[\\']/g, '\\$&')}'`
}
