/** One question to a CI system's token service over HTTP, within limits; asked again where the failure may pass by itself. */
import { Agent, type IncomingMessage, request as requestHttp } from 'node:http'
import { request as requestHttps, Agent as SecureAgent } from 'node:https'
import { setTimeout as delay } from 'node:timers/promises'
import { printable } from '../../config/quote.ts'
import { maskSecrets } from '../../telemetry/mask.ts'
import type { Environment } from '../token-source.ts'
import { noToken } from '../token-text.ts'

export interface TokenRequest {
  /** For errors: `GitHub Actions`. */
  name: string
  url: string
  method?: 'GET' | 'POST'
  headers: Readonly<Record<string, string>>
  /** Whose HTTPS_PROXY and NO_PROXY count; without it no proxy is used. */
  proxyEnv?: Environment
  signal?: AbortSignal | undefined
  /** For a question that tells whether anybody is there. */
  once?: boolean
  /** By status, what to tell in addition. */
  advice?(status: number): string | undefined
}

const MAX_BODY_BYTES = 128 * 1024
/** Of one attempt, from the connection to the last byte. */
const ATTEMPT_MS = 10_000
/** Before the second and the third attempt. GitHub's service answers 5xx for a moment now and then. */
const PAUSES_MS = [200, 1_000]

interface Answer {
  status: number
  headers: IncomingMessage['headers']
  body: string
}

/** A member of the JSON object that a 200 answer holds. @throws as `ask`, and where there is no such text */
export async function requestMember(request: TokenRequest, member: string): Promise<string> {
  const { body } = await ask(request)
  let value: unknown
  try {
    value = (JSON.parse(body) as Record<string, unknown> | null)?.[member]
  } catch {
    // Without the cause: a SyntaxError quotes what it has read, which may be a token.
    throw noToken(`${request.name} answered the request for a token with something that is not JSON`)
  }
  if (typeof value !== 'string') {
    throw noToken(`${request.name} answered the request for a token without "${member}" in it`)
  }
  return value
}

/**
 * An answer with status 200. Redirects are not followed: they would carry the request's secret to another place.
 * @throws AccessError `token_missing`; the signal's reason when it aborts
 */
export async function ask(request: TokenRequest): Promise<Answer> {
  const url = checkedUrl(request)
  for (let attempt = 0; ; attempt += 1) {
    const pause = request.once === true ? undefined : PAUSES_MS[attempt]
    let answer: Answer
    try {
      answer = await send(request, url)
    } catch (thrown) {
      request.signal?.throwIfAborted()
      if (pause === undefined) throw unreachable(request, url, thrown)
      await wait(pause, request.signal)
      continue
    }
    if (answer.status === 200) return answer
    if (pause === undefined || !mayPass(answer.status)) throw refused(request, answer)
    await wait(pause, request.signal)
  }
}

async function wait(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  await delay(milliseconds, undefined, { signal }).catch(() => signal?.throwIfAborted())
}

function mayPass(status: number): boolean {
  return status === 408 || status === 429 || status >= 500
}

function checkedUrl({ name, url }: TokenRequest): URL {
  const parsed = URL.canParse(url) ? new URL(url) : undefined
  if (parsed === undefined || !/^https?:$/.test(parsed.protocol)) {
    throw noToken(`the address where ${name} gives tokens is not a URL of http or https`)
  }
  return parsed
}

function send({ method = 'GET', headers, proxyEnv, signal }: TokenRequest, url: URL): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const secure = url.protocol === 'https:'
    const limit = AbortSignal.timeout(ATTEMPT_MS)
    const options = {
      method,
      headers: { 'accept-encoding': 'identity', 'user-agent': 'pgusher', 'content-length': '0', ...headers },
      signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
      // A kept connection would keep the process.
      agent: new (secure ? SecureAgent : Agent)(proxyEnv === undefined ? {} : { proxyEnv: { ...proxyEnv } }),
    }
    const request = (secure ? requestHttps : requestHttp)(url, options)
    request.once('error', reject)
    request.once('response', (response) => readAnswer(response).then(resolve, reject))
    request.end()
  })
}

async function readAnswer(response: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > MAX_BODY_BYTES) {
      response.destroy()
      throw new Error(`an answer of more than ${MAX_BODY_BYTES} bytes`)
    }
    chunks.push(chunk)
  }
  return { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks).toString('utf8') }
}

function unreachable({ name }: TokenRequest, { host }: URL, thrown: unknown): Error {
  const why = thrown instanceof Error ? ('code' in thrown ? String(thrown.code) : thrown.message) : 'unknown error'
  const text = why === 'ABORT_ERR' ? `no answer within ${ATTEMPT_MS / 1000} s` : why
  return noToken(
    `${name} gave no token: ${host} was asked ${PAUSES_MS.length + 1} times: ${printable(text)}`,
    undefined,
    thrown,
  )
}

/** The service's own words help most; what was sent to it must not come back in them. */
function refused({ name, headers, advice }: TokenRequest, { status, body }: Answer): Error {
  const secrets = Object.values(headers)
    .flatMap((value) => value.split(' '))
    .filter((value) => value.length > 15)
  const said = secrets.reduce((text, secret) => text.replaceAll(secret, '[masked]'), body)
  const short = printable(maskSecrets(said).replace(/\s+/g, ' ').trim()).slice(0, 200)
  const words = /^\s*</.test(short) || short === '' ? '' : `: ${short}`
  return noToken(`${name} refused the request for a token with status ${status}${words}`, advice?.(status))
}
