/** pgusher's endpoints over HTTPS, on the port where it speaks PostgreSQL too. */
import { readFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { Agent, request as requestHttps } from 'node:https'
import { isIP } from 'node:net'
import { z } from 'zod'
import { PRESET_NAMES, type PresetName } from '../config/schema.ts'
import { AccessError, DENIAL_SQLSTATE, type DenialCode } from '../errors.ts'
import { AUDIENCE_PATH, TOKEN_PATH, WHOAMI_PATH } from '../http/api.ts'
import { explainFailure, unreachable } from '../upstream/failure.ts'
import { systemCertificates } from '../upstream/transport.ts'
import { hostAndPort, type ServerAddress, serverPeer } from './server-address.ts'

/** Milliseconds of one question, from the connection to the last byte of the answer. */
const TIMEOUT = 15_000
const MAX_ANSWER_BYTES = 256 * 1024

export interface ServerApiOptions {
  server: ServerAddress
  /** PEM file; the system's CAs without it. */
  caFile?: string | undefined
  signal?: AbortSignal | undefined
}

export interface Audiences {
  audiences: { preset: PresetName; audience: string }[]
  /** Whether this pgusher gives tickets at all; a rule must say so as well. */
  tickets: boolean
}

export interface Ticket {
  text: string
  /** Milliseconds since the epoch. */
  expiresAt: number
  database: string
  /** The role that it is for. */
  user: string
  rule: string
}

/** What pgusher makes of a token or ticket. */
export interface WhoAmI {
  identity: z.infer<typeof identityAnswer>
  /** Whether it would be let in; there where a database was asked for. */
  decision?: z.infer<typeof decisionAnswer> | undefined
}

export interface ServerApi {
  audiences(preset: PresetName): Promise<Audiences>
  /** A ticket for a token. */
  exchange(token: string, request: { database: string; user: string }): Promise<Ticket>
  giveBack(ticket: string): Promise<void>
  /** @param request without a database nothing is decided */
  whoami(secret: string, request: { database?: string; user?: string }): Promise<WhoAmI>
}

/** There is a server, and it does not answer HTTP as pgusher does: an older pgusher, or something in front of it. */
export class ApiUnavailable extends Error {
  override name = 'ApiUnavailable'
}

// Not the schemas of http/api.ts: those are strict, and a newer pgusher may say more than this one knows.
const audiencesAnswer = z.object({
  // A preset of a newer pgusher is none that this one can have recognised.
  audiences: z.array(z.object({ preset: z.string(), audience: z.string() })),
  tickets: z.boolean(),
})

const ticketAnswer = z.object({
  ticket: z.string().min(1).max(1_000),
  expires_at: z.iso.datetime({ offset: true }),
  database: z.string(),
  user: z.string(),
  rule: z.string(),
})

const refusalAnswer = z.object({
  code: z.string(),
  sqlstate: z.string().optional(),
  message: z.string(),
  detail: z.string().optional(),
  hint: z.string().optional(),
  id: z.string().optional(),
})

const errorAnswer = z.object({ error: refusalAnswer })

const identityAnswer = z.object({
  provider: z.string(),
  issuer: z.string(),
  subject: z.string(),
  claims: z.record(z.string(), z.union([z.string(), z.array(z.string())])),
  /** By the names of the audit's vocabulary in snake_case: `repository_url`, `run_id`. */
  job: z.record(z.string(), z.string()),
  expires_at: z.iso.datetime({ offset: true }),
})

const decisionAnswer = z.object({
  allowed: z.boolean(),
  rule: z.string().optional(),
  database: z.string().optional(),
  role: z.string().optional(),
  error: refusalAnswer.optional(),
})

const whoamiAnswer = z.object({ identity: identityAnswer, decision: decisionAnswer.optional() })

/** Every method throws AccessError, the server's own where it refused; or ApiUnavailable. */
export function createServerApi(options: ServerApiOptions): ServerApi {
  return {
    async audiences(preset) {
      const answer = await ask(options, {
        method: 'GET',
        path: `${AUDIENCE_PATH}?preset=${encodeURIComponent(preset)}`,
      })
      const { audiences, tickets } = understood(audiencesAnswer, answer)
      const known = new Set<string>(PRESET_NAMES)
      return {
        audiences: audiences.filter((one): one is Audiences['audiences'][number] => known.has(one.preset)),
        tickets,
      }
    },
    async exchange(token, request) {
      const answer = await ask(options, { method: 'POST', path: TOKEN_PATH, bearer: token, body: { ...request } })
      const { ticket, expires_at, database, user, rule } = understood(ticketAnswer, answer)
      return { text: ticket, expiresAt: Date.parse(expires_at), database, user, rule }
    },
    async giveBack(ticket) {
      await ask(options, { method: 'DELETE', path: TOKEN_PATH, bearer: ticket })
    },
    async whoami(secret, request) {
      const answer = await ask(options, { method: 'POST', path: WHOAMI_PATH, bearer: secret, body: { ...request } })
      return understood(whoamiAnswer, answer)
    },
  }
}

interface Question {
  method: 'GET' | 'POST' | 'DELETE'
  path: string
  bearer?: string
  body?: Readonly<Record<string, string>>
}

async function ask(options: ServerApiOptions, question: Question): Promise<unknown> {
  const { status, text } = await send(options, question)
  if (status === 204) return undefined
  const value = asJson(text)
  if (status === 200) return value
  const parsed = errorAnswer.safeParse(value)
  if (!parsed.success) throw new ApiUnavailable(`status ${status}, and no error of pgusher`)
  throw asRefusal(parsed.data.error)
}

function asJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new ApiUnavailable('an answer that is not JSON', { cause })
  }
}

function understood<T>(schema: z.ZodType<T>, answer: unknown): T {
  const parsed = schema.safeParse(answer)
  if (parsed.success) return parsed.data
  throw new ApiUnavailable('an answer that is not as this version of pgusher expects', { cause: parsed.error })
}

function asRefusal({ code, message, detail, hint, id }: z.infer<typeof refusalAnswer>): AccessError {
  const known = Object.hasOwn(DENIAL_SQLSTATE, code) ? (code as DenialCode) : undefined
  // Not found, and like it: the endpoint itself is missing, and nobody was refused.
  if (known === undefined && id === undefined) throw new ApiUnavailable(`it answered ${code}`)
  const text = id === undefined || message.includes(id) ? message : `${message} [${id}]`
  return new AccessError(known ?? 'internal_error', text, {
    ...(detail === undefined ? {} : { detail }),
    ...(hint === undefined ? {} : { hint }),
  })
}

interface Answer {
  status: number
  text: string
}

async function send({ server, caFile, signal }: ServerApiOptions, question: Question): Promise<Answer> {
  const peer = serverPeer(server, caFile)
  const ca = caFile === undefined ? systemCertificates() : await readCa(caFile)
  const limit = AbortSignal.timeout(TIMEOUT)
  const body = question.body === undefined ? undefined : JSON.stringify(question.body)
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const request = requestHttps({
    ...server,
    method: question.method,
    path: question.path,
    // Not the global one: a kept connection would keep the process.
    agent: new Agent({
      ca,
      minVersion: 'TLSv1.2',
      // SNI holds names only (RFC 6066, section 3); the certificate is compared with the host in either case.
      servername: isIP(server.host) === 0 ? server.host : '',
      // By this the server tells it from PostgreSQL.
      ALPNProtocols: ['http/1.1'],
    }),
    signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
    headers: {
      host: hostAndPort(server),
      accept: 'application/json',
      ...(question.bearer === undefined ? {} : { authorization: `Bearer ${question.bearer}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
    },
  })
  request.once('error', reject)
  request.once('response', (response) => readAnswer(response).then(resolve, reject))
  request.end(body)
  try {
    return await promise
  } catch (thrown) {
    signal?.throwIfAborted()
    if (speaksNoHttp(thrown)) throw new ApiUnavailable('it speaks no HTTP on this port', { cause: thrown })
    if (limit.aborted) throw new ApiUnavailable(`no answer within ${TIMEOUT / 1_000} s`, { cause: thrown })
    if (speaksNoTls(thrown)) throw unreachable(peer, 'what answers there speaks no TLS', thrown)
    throw explainFailure(peer, 'connecting', thrown)
  }
}

async function readCa(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    throw new AccessError('upstream_unreachable', `the CA file ${file} of --ca cannot be read`, { cause })
  }
}

/** A connection that is closed without a word, an answer that is no HTTP, or TLS's own alert, which Node reports as EPROTO. */
function speaksNoHttp(thrown: unknown): boolean {
  if (!(thrown instanceof Error)) return false
  const code = 'code' in thrown ? String(thrown.code) : ''
  return code === 'ECONNRESET' || code.startsWith('HPE_') || /no application protocol/i.test(thrown.message)
}

/** What OpenSSL says of bytes that begin no TLS record, such as those of a plain HTTP server. */
function speaksNoTls(thrown: unknown): boolean {
  return thrown instanceof Error && /wrong version number|packet length too long/i.test(thrown.message)
}

async function readAnswer(response: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    length += chunk.length
    if (length > MAX_ANSWER_BYTES) {
      response.destroy()
      throw new ApiUnavailable('an answer without end')
    }
    chunks.push(chunk)
  }
  return { status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }
}
