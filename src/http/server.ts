/** /livez, /readyz and /metrics on a listener of their own. Nothing here takes input but the path. */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { ListenAddress } from '../config/scalars.ts'

export interface HttpSources {
  /** `reasons` says what is missing where `ok` is false. */
  ready(): { ok: boolean; reasons: string[] }
  /** Text in Prometheus' exposition format. */
  metrics(): Promise<string>
  /** Of `metrics`. */
  contentType: string
}

export interface HttpServer {
  /** With the port that was taken where 0 was asked for. */
  address: ListenAddress
  /** Resolves when the listener and every connection are closed; answers under way have a second. */
  close(): Promise<void>
}

interface Answer {
  status: number
  contentType: string
  body: string
}

const TEXT = 'text/plain; charset=utf-8'
const CLOSE_GRACE = 1_000

const wantsJson = (request: IncomingMessage): boolean => request.headers.accept?.includes('application/json') ?? false

function readiness(sources: HttpSources, request: IncomingMessage): Answer {
  const { ok, reasons } = sources.ready()
  const status = ok ? 200 : 503
  if (wantsJson(request))
    return { status, contentType: 'application/json', body: `${JSON.stringify({ ok, reasons })}\n` }
  return { status, contentType: TEXT, body: ok ? 'ready\n' : `${['not ready:', ...reasons].join('\n')}\n` }
}

async function answer(sources: HttpSources, request: IncomingMessage): Promise<Answer> {
  switch (request.url?.split('?', 1)[0]) {
    case '/livez':
      return { status: 200, contentType: TEXT, body: 'alive\n' }
    case '/readyz':
      return readiness(sources, request)
    case '/metrics':
      return { status: 200, contentType: sources.contentType, body: await sources.metrics() }
    default:
      return { status: 404, contentType: TEXT, body: 'not found: there are /livez, /readyz and /metrics\n' }
  }
}

async function respond(sources: HttpSources, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const allowed = request.method === 'GET' || request.method === 'HEAD'
  const { status, contentType, body } = allowed
    ? await answer(sources, request)
    : { status: 405, contentType: TEXT, body: 'only GET and HEAD\n' }
  response.writeHead(status, {
    'content-type': contentType,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...(allowed ? {} : { allow: 'GET, HEAD', connection: 'close' }),
  })
  response.end(request.method === 'HEAD' ? undefined : body)
}

function createListener(sources: HttpSources): Server {
  // The limits are for a probe's request: a client that trickles bytes is cut off after 5 s, one without a request after 10 s.
  const options = {
    maxHeaderSize: 8192,
    headersTimeout: 5_000,
    requestTimeout: 5_000,
    keepAliveTimeout: 10_000,
    connectionsCheckingInterval: 1_000,
  }
  const server = createServer(options, (request, response) => {
    request.resume()
    respond(sources, request, response).catch(() => {
      if (response.headersSent) response.destroy()
      else response.writeHead(500, { 'content-type': TEXT }).end('internal error\n')
    })
  })
  server.maxConnections = 100
  return server
}

function boundAddress(server: Server, asked: ListenAddress): ListenAddress {
  const bound: AddressInfo | string | null = server.address()
  return asked.kind === 'tcp' && bound !== null && typeof bound === 'object' ? { ...asked, port: bound.port } : asked
}

async function closeServer(server: Server): Promise<void> {
  const closed = once(server, 'close')
  server.close()
  server.closeIdleConnections()
  const cut = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE)
  await closed
  clearTimeout(cut)
}

/** @throws the system's error (EADDRINUSE, EACCES) when it cannot listen. */
export async function startHttp(address: ListenAddress, sources: HttpSources): Promise<HttpServer> {
  const server = createListener(sources)
  server.listen(address.kind === 'tcp' ? { host: address.host, port: address.port } : { path: address.path })
  await once(server, 'listening')
  let closing: Promise<void> | undefined
  return {
    address: boundAddress(server, address),
    close() {
      closing ??= closeServer(server)
      return closing
    },
  }
}
