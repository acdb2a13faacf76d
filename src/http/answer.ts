/** What is answered over HTTP, and refusals as their status and JSON. */
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { jsonValue } from '../audit/json.ts'
import type { AccessError } from '../errors.ts'
import type { Refusal } from './api.ts'

export interface Answer {
  status: number
  /** As JSON; undefined for none. */
  body?: unknown
  /** As it is, in place of `body`. */
  text?: string
  headers?: Readonly<Record<string, string>>
  /** Takes back what the answer gives, where the client went away before it. */
  undelivered?(): Promise<void>
}

/** A request that is none of ours, or not well formed; nobody was refused. */
export class RequestError extends Error {
  readonly status: number
  readonly code: string
  readonly headers: Readonly<Record<string, string>>

  constructor(status: number, code: string, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message)
    this.name = 'RequestError'
    this.status = status
    this.code = code
    this.headers = headers
  }
}

/** By SQLSTATE or its class; what is none of these is a matter of the policy. */
const STATUS: Readonly<Record<string, number>> = {
  '28P01': 401,
  '28000': 401,
  '3D000': 404,
  '53300': 429,
  '57P03': 503,
  '08006': 503,
  '08P01': 400,
  XX000: 500,
}
const POLICY = 403

export function refusalOf(error: AccessError, id?: string): Refusal {
  const { code, sqlstate, message, detail, hint } = error
  const more = { ...(detail === undefined ? {} : { detail }), ...(hint === undefined ? {} : { hint }) }
  return { code, sqlstate, message, ...more, ...(id === undefined ? {} : { id }) }
}

/** @param id of the denial in the audit */
export function refusalAnswer(error: AccessError, id: string): Answer {
  const status = STATUS[error.sqlstate] ?? POLICY
  // RFC 9110, section 15.5.2: a 401 says how to do it.
  const headers = status === 401 ? { 'www-authenticate': 'Bearer realm="pgusher"' } : {}
  return { status, body: { error: refusalOf(error, id) }, headers }
}

export function requestErrorAnswer({ status, code, message, headers }: RequestError): Answer {
  return { status, body: { error: { code, message } }, headers }
}

/** @returns false where the client went away before all of it was handed to the kernel. Never rejects. */
export async function sendAnswer(response: ServerResponse, answer: Answer): Promise<boolean> {
  if (response.destroyed) return false
  const { type, text } = contentOf(answer)
  response.writeHead(answer.status, {
    ...answer.headers,
    ...(type === undefined ? {} : { 'content-type': type, 'content-length': Buffer.byteLength(text) }),
    // It may hold a ticket.
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    connection: 'close',
  })
  const over = Promise.race([once(response, 'finish'), once(response, 'close')])
  response.end(text)
  await over.catch(() => {})
  return response.writableFinished
}

function contentOf({ body, text }: Answer): { type: string | undefined; text: string } {
  if (text !== undefined) return { type: 'text/plain; charset=utf-8', text: `${text}\n` }
  if (body !== undefined) return { type: 'application/json', text: `${jsonValue(body)}\n` }
  return { type: undefined, text: '' }
}
