/**
 * HTTP on the TLS port. A connection brings one request and closes: nothing is kept alive, so nothing has to be told at a
 * shutdown, and a client that holds connections open holds them as one that has not shown who it is.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { SessionIdentity } from '../audit/recorder.ts'
import { AccessError, asAccessError } from '../errors.ts'
import { newDenialId, type Stage } from '../session/denial.ts'
import type { ServeHttp } from '../session/proxy-context.ts'
import { recordDenial } from '../session/refusal.ts'
import { type Answer, RequestError, refusalAnswer, requestErrorAnswer, sendAnswer } from './answer.ts'
import { AUDIENCE_PATH, TOKEN_PATH, WHOAMI_PATH } from './api.ts'
import { audience } from './audience.ts'
import type { Call, Endpoint } from './endpoint.ts'
import { exchange, giveBack } from './exchange.ts'
import { readBody, targetOf } from './read-request.ts'
import { whoami } from './whoami.ts'

/** Milliseconds in which the whole request has to come, and in which the client has to take the answer. */
const CLIENT_TIME = 10_000
/** A token may have 64 KiB. */
const MAX_HEADER = 80 * 1024

interface Route {
  stage: Stage
  endpoint: Endpoint
}

const ROUTES: Readonly<Record<string, Readonly<Record<string, Route>>>> = {
  [AUDIENCE_PATH]: {
    GET: { stage: 'handshake', endpoint: audience },
    HEAD: { stage: 'handshake', endpoint: audience },
  },
  [TOKEN_PATH]: {
    POST: { stage: 'exchange', endpoint: exchange },
    DELETE: { stage: 'exchange', endpoint: giveBack },
  },
  [WHOAMI_PATH]: { POST: { stage: 'whoami', endpoint: whoami } },
}

interface Connection {
  identity: SessionIdentity
  /** Its one request; undefined before that has come. */
  work: Promise<void> | undefined
  /** Replaces the time that runs. */
  within(milliseconds: number, late: () => void): void
  signal: AbortSignal
  abort(reason: AccessError): void
}

export function createApi(proxy: Call['proxy']): ServeHttp {
  const connections = new WeakMap<Socket, Connection>()
  const server = createApiServer(
    (request, response) => {
      const connection = connections.get(request.socket)
      if (connection === undefined || connection.work !== undefined) return void request.socket.destroy()
      connection.work = handle(request, response, connection, proxy)
    },
    (error, socket) => {
      const connection = connections.get(socket)
      if (connection === undefined || connection.work !== undefined || !isMalformed(error)) socket.destroy()
      else refuseMalformed(error, socket, connection, proxy)
    },
  )
  return async (stream, identity) => {
    const closed = new Promise<void>((resolve) => void stream.once('close', resolve))
    if (stream.destroyed) return
    const controller = new AbortController()
    let timer: NodeJS.Timeout | undefined
    const connection: Connection = {
      identity,
      work: undefined,
      within(milliseconds, late) {
        clearTimeout(timer)
        timer = setTimeout(late, milliseconds)
      },
      signal: controller.signal,
      abort: (reason) => controller.abort(reason),
    }
    connections.set(stream, connection)
    connection.within(CLIENT_TIME, () => hangUp(stream, connection, proxy))
    server.emit('connection', stream)
    // It was paused when the handshake let go of it.
    stream.resume()
    await closed
    clearTimeout(timer)
    connection.abort(new AccessError('protocol_violation', 'the client went away before the answer'))
    if (connection.work === undefined) recordNoRequest(stream, connection, proxy)
    await connection.work
  }
}

function createApiServer(
  onRequest: (request: IncomingMessage, response: ServerResponse) => void,
  onError: (error: Error, socket: Socket) => void,
): Server {
  // Its own timeouts need a listening server; this one is handed its connections, and each has its own clock.
  const server = createServer({ maxHeaderSize: MAX_HEADER, keepAliveTimeout: 1 }, onRequest)
  server.maxRequestsPerSocket = 1
  server.on('clientError', (error, socket) => onError(error, socket as Socket))
  return server
}

/** Never rejects. */
async function handle(
  request: IncomingMessage,
  response: ServerResponse,
  connection: Connection,
  proxy: Call['proxy'],
): Promise<void> {
  const { identity, signal } = connection
  const timeout = proxy.current().config.listen.handshake_timeout
  const startWork = (): void => connection.within(timeout, () => connection.abort(tooLate(timeout)))
  const body = async (): Promise<string> => {
    const text = await readBody(request)
    startWork()
    return text
  }
  const answer = await answerTo({ request, proxy, identity, signal, body }, startWork)
  connection.within(CLIENT_TIME, () => request.socket.destroy())
  if (!(await sendAnswer(response, answer))) await answer.undelivered?.()
}

async function answerTo(call: Call, startWork: () => void): Promise<Answer> {
  let stage: Stage = 'handshake'
  try {
    const route = routeOf(call.request)
    stage = route.stage
    if (call.request.method !== 'POST') startWork()
    return await route.endpoint(call)
  } catch (thrown) {
    if (thrown instanceof RequestError) return requestErrorAnswer(thrown)
    const error = call.request.complete ? asAccessError(thrown) : brokenOff()
    const id = newDenialId()
    recordDenial(call.proxy, call.identity, error, stage, id)
    return refusalAnswer(error, id)
  }
}

/** @throws RequestError */
function routeOf(request: IncomingMessage): Route {
  const methods = ROUTES[targetOf(request).pathname]
  if (methods === undefined) {
    const all = Object.entries(ROUTES).map(([path, ways]) => `${Object.keys(ways).join(' or ')} ${path}`)
    throw new RequestError(404, 'not_found', `there are ${all.join(', ')}`)
  }
  const allow = Object.keys(methods).join(', ')
  const route = methods[request.method ?? '']
  if (route === undefined) throw new RequestError(405, 'method_not_allowed', `only ${allow}`, { allow })
  return route
}

/** It broke off, or was one that is not for us (CONNECT). */
function brokenOff(): AccessError {
  return new AccessError('protocol_violation', 'the request did not come whole')
}

function tooLate(timeout: number): AccessError {
  return new AccessError('upstream_unreachable', `the answer took longer than ${timeout / 1000} s`, {
    hint: 'Ask again; the operator finds the reason in the log of pgusher.',
  })
}

function isMalformed(error: Error): error is Error & { code: string } {
  return 'code' in error && typeof error.code === 'string' && error.code.startsWith('HPE_')
}

/** Bytes that are no HTTP: a PostgreSQL client that speaks direct TLS without ALPN, a scanner. */
function refuseMalformed(
  { code }: { code: string },
  socket: Socket,
  connection: Connection,
  proxy: Call['proxy'],
): void {
  const tooLong = code === 'HPE_HEADER_OVERFLOW'
  const message = tooLong
    ? `the header of the request is longer than ${MAX_HEADER} bytes`
    : 'TLS from the first byte without the ALPN protocol "postgresql" is for HTTP, and what came is none'
  connection.work = Promise.resolve()
  recordDenial(proxy, connection.identity, new AccessError('protocol_violation', message), 'handshake', newDenialId())
  const status = tooLong ? '431 Request Header Fields Too Large' : '400 Bad Request'
  socket.end(`HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`, () => socket.destroySoon())
}

/** As where PostgreSQL is spoken, a connection without a byte is a port check; half a header, and what Node answers by itself, is on record. */
function recordNoRequest({ bytesRead }: Socket, { identity }: Connection, proxy: Call['proxy']): void {
  if (bytesRead === 0) proxy.metrics.sessionEnded('failure', 'no_startup')
  else recordDenial(proxy, identity, brokenOff(), 'handshake', newDenialId())
}

/** The request has not come in its time. Where only the rest of a body is missing, who reads that sees the end and says so. */
function hangUp(stream: Socket, connection: Connection, proxy: Call['proxy']): void {
  if (stream.bytesRead > 0 && connection.work === undefined) {
    const late = `the request did not come within ${CLIENT_TIME / 1000} s`
    connection.work = Promise.resolve()
    recordDenial(proxy, connection.identity, new AccessError('protocol_violation', late), 'handshake', newDenialId())
  }
  stream.destroy()
}
