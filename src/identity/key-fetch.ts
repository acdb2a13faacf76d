/** HTTP for keys: one GET with limits on everything that a slow, large or hostile answer could use up. */
import { readFile } from 'node:fs/promises'
import { type IncomingMessage, request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import { isLoopback } from '../config/scalars.ts'

export const MAX_BODY_BYTES = 64 * 1024
export const CONNECT_MS = 2_000
/** For a whole refresh, discovery and keys together. */
export const REFRESH_MS = 5_000

export interface FetchOptions {
  /** Ends the fetch; its reason is what the caller gets. */
  signal: AbortSignal
  /** PEM of the only CA that may have signed the server's certificate; the system's CAs without it. */
  ca: string | undefined
}

/** https, or http where issuer and target are both on this machine. */
export function allowedUrl(url: string, issuer: string): boolean {
  if (!URL.canParse(url)) return false
  const target = new URL(url)
  if (target.username !== '' || target.password !== '') return false
  if (target.protocol === 'https:') return true
  return target.protocol === 'http:' && isLocal(target) && URL.canParse(issuer) && isLocal(new URL(issuer))
}

function isLocal({ hostname }: URL): boolean {
  return isLoopback(hostname.replace(/^\[|\]$/g, ''))
}

export async function readCa(path: string | undefined): Promise<string | undefined> {
  return path === undefined ? undefined : await readFile(path, 'utf8')
}

/**
 * The answer of one GET. A redirect is returned as it is, never followed: whoever can redirect could choose the keys.
 * @throws Error on a connection that takes over 2 s, a body over 64 KiB, an encoded body, or when the signal aborts.
 */
export function getLimited(url: string, { signal, ca }: FetchOptions): Promise<Response> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted()
    const target = new URL(url)
    const secure = target.protocol === 'https:'
    // No agent: a kept connection would outlive the refresh it belongs to.
    const common = { agent: false, signal, headers: { accept: 'application/json', 'accept-encoding': 'identity' } }
    const request = secure
      ? requestHttps(target, ca === undefined ? common : { ...common, ca })
      : requestHttp(target, common)
    const slow = setTimeout(() => request.destroy(new Error(`no connection to ${target.host} within 2 s`)), CONNECT_MS)
    const connected = () => clearTimeout(slow)
    request.on('socket', (socket) => socket.once(secure ? 'secureConnect' : 'connect', connected))
    request.once('close', connected)
    request.once('error', (error) => reject(signal.aborted ? asError(signal.reason) : error))
    request.once('response', (response) => readBody(response, target).then(resolve, reject))
    request.end()
  })
}

async function readBody(message: IncomingMessage, target: URL): Promise<Response> {
  const encoding = message.headers['content-encoding']
  if (encoding !== undefined && encoding !== 'identity') {
    message.destroy()
    throw new Error(`${target.host} sent a body in encoding ${encoding}, which was not asked for`)
  }
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of message as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > MAX_BODY_BYTES) {
      message.destroy()
      throw new Error(`${target.href} sent more than ${MAX_BODY_BYTES} bytes`)
    }
    chunks.push(chunk)
  }
  const status = message.statusCode ?? 0
  if (status < 200 || status > 599) throw new Error(`${target.href} answered with status ${status}`)
  const headers = { 'content-type': message.headers['content-type'] ?? '' }
  // Response allows no body with these, and none of them is an answer to this request.
  return new Response([204, 205, 304].includes(status) ? null : Buffer.concat(chunks), { status, headers })
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error(String(reason))
}
