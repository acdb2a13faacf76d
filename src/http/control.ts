/**
 * The operator's socket: HTTP on a Unix socket that only its owner and root can open. Who may open it may end jobs, and nothing
 * else: it gives no credential and changes no policy.
 */
import { once } from 'node:events'
import type { Stats } from 'node:fs'
import { stat } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { dirname } from 'node:path'
import { jsonValue } from '../audit/json.ts'
import { AccessError } from '../errors.ts'
import type { KillOrder, KillResult } from '../session/kill.ts'
import { bindListener } from '../session/listener.ts'
import type { Overview } from '../session/operator.ts'
import { KILL_PATH, OVERVIEW_PATH, readKillRequest } from './control-request.ts'

export interface ControlSources {
  overview(): Overview | Promise<Overview>
  kill(order: KillOrder): Promise<KillResult>
  /** A fault of pgusher's own. */
  onFailure(error: unknown): void
}

export interface ControlServer {
  close(): Promise<void>
}

interface Answer {
  status: number
  body: unknown
}

const MAX_BODY = 64 * 1024
const STATUS = { not_found: 404, ambiguous: 409, malformed: 400 } as const

/**
 * @param path of the socket, absolute
 * @throws AccessError where its directory is none, or others may write there; the system's error where it cannot listen
 */
export async function startControl(path: string, sources: ControlSources): Promise<ControlServer> {
  await checkDirectory(dirname(path))
  const server = createListener(sources)
  await bindListener(server, { kind: 'unix', path }, { ownerOnly: true })
  return { close: () => closeServer(server) }
}

async function checkDirectory(directory: string): Promise<void> {
  const found = await stat(directory).catch(() => undefined)
  if (found === undefined || !found.isDirectory()) {
    throw new AccessError('internal_error', `control.socket: there is no directory ${directory}`)
  }
  const who = whoElseMayWrite(found, process.geteuid?.() ?? found.uid)
  if (who === undefined) return
  throw new AccessError(
    'internal_error',
    `control.socket: ${who} may write to the directory ${directory}; use one of pgusher's own with mode 755 or less`,
  )
}

/**
 * Whoever may write there could put a socket of their own in place of ours, and take the operator's orders.
 * @param user pgusher's own. @returns undefined where only that one and root may
 */
export function whoElseMayWrite({ mode, uid }: Pick<Stats, 'mode' | 'uid'>, user: number): string | undefined {
  if (uid !== user && uid !== 0) return `its owner (uid ${uid})`
  return (mode & 0o022) === 0 ? undefined : `others (mode ${(mode & 0o777).toString(8)})`
}

function createListener(sources: ControlSources): Server {
  const limits = {
    maxHeaderSize: 8192,
    headersTimeout: 5_000,
    requestTimeout: 5_000,
    connectionsCheckingInterval: 1_000,
  }
  const server = createServer(limits, (request, response) => {
    answer(sources, request).then(
      (said) => send(response, said),
      (error: unknown) => {
        sources.onFailure(error)
        send(response, { status: 500, body: { error: "internal error; the reason is in pgusher's log" } })
      },
    )
  })
  server.maxConnections = 20
  return server
}

async function answer(sources: ControlSources, request: IncomingMessage): Promise<Answer> {
  const asked = `${request.method} ${request.url}`
  if (asked === `GET ${OVERVIEW_PATH}`) {
    request.resume()
    return { status: 200, body: await sources.overview() }
  }
  if (asked !== `POST ${KILL_PATH}`) {
    request.resume()
    return { status: 404, body: { error: `there are GET ${OVERVIEW_PATH} and POST ${KILL_PATH}` } }
  }
  const body = await readBody(request)
  if (body === undefined) return { status: 413, body: { error: 'the request is too long' } }
  const read = readKillRequest(body)
  if ('problem' in read) return { status: 400, body: { error: read.problem } }
  const result = await sources.kill(read.order)
  if (!result.ok) return { status: STATUS[result.code], body: { error: result.message } }
  return { status: 200, body: result }
}

async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes <= MAX_BODY) chunks.push(chunk)
  }
  return bytes > MAX_BODY ? undefined : Buffer.concat(chunks).toString('utf8')
}

function send(response: ServerResponse, { status, body }: Answer): void {
  const text = `${jsonValue(body)}\n`
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    connection: 'close',
  })
  response.end(text)
}

/** Answers under way are cut: nobody's order is half done by that. */
async function closeServer(server: Server): Promise<void> {
  const closed = once(server, 'close')
  server.close()
  server.closeAllConnections()
  await closed
}
