/** HTTP behind the real handshake and TLS: what a client may do to it. No database is needed for that. */
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { AuditEvent } from '../../src/audit/recorder.ts'
import { configSchema } from '../../src/config/schema.ts'
import type { TicketContent } from '../../src/credentials/tickets.ts'
import { AccessError, type DenialCode } from '../../src/errors.ts'
import { refusalAnswer } from '../../src/http/answer.ts'
import { errorAnswer } from '../../src/http/api.ts'
import { createApi } from '../../src/http/api-server.ts'
import { createBars } from '../../src/session/bars.ts'
import { createJobWindows } from '../../src/session/job-windows.ts'
import type { ProxyContext, Snapshot } from '../../src/session/proxy-context.ts'
import { createLog } from '../../src/telemetry/log.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { type Listener, listen, readAll } from '../frontend/listener.ts'
import { grantOf, principalOf } from '../support/mint.ts'

const config = configSchema.parse({
  version: 1,
  listen: { address: '127.0.0.1:0' },
  issuers: {
    github: { preset: 'github-actions', audience: 'https://pgusher.acme.example' },
    other: { preset: 'github-actions', audience: 'https://pgusher.acme.example', url: 'https://github.acme.example' },
    gitlab: { preset: 'gitlab', audience: 'https://gitlab.for.pgusher', url: 'https://gitlab.acme.example' },
  },
  databases: {},
})

let listener: Listener
let events: AuditEvent[]
let context: ProxyContext
/** Connections that are served. */
let served: Promise<void>[]
beforeEach(async () => {
  events = []
  served = []
  context = {
    current: () => ({ config }) as Snapshot,
    draining: () => false,
    ...{ windows: createJobWindows(), bars: createBars(), tickets: undefined, metrics: createMetrics() },
    recorder: { accepting: true, event: (event: AuditEvent) => void events.push(event) },
    log: createLog({ level: 'error', destination: { write: () => {} } }),
  } as unknown as ProxyContext
  const serve = createApi(context)
  listener = await listen(async (handshaken, _stream, socket) => {
    const hello = await handshaken.catch(() => undefined)
    if (hello?.kind !== 'http') return
    const work = serve(hello.stream, { sessionId: 'one', client: { address: '127.0.0.1', port: socket.remotePort } })
    served.push(work)
    await work
  })
})
afterEach(async () => {
  vi.useRealTimers()
  await listener[Symbol.asyncDispose]()
})

const http = (): Promise<Socket> => listener.connectTls({ direct: true, ALPNProtocols: ['http/1.1'] })

/** What comes back for these bytes until the server closes. */
async function say(text: string | Buffer): Promise<string> {
  const client = await http()
  client.write(text)
  return (await readAll(client)).bytes.toString()
}

const get = (path: string, headers = ''): Promise<string> => say(`GET ${path} HTTP/1.1\r\nHost: a\r\n${headers}\r\n`)
const statusOf = (answer: string): number => Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1])
const bodyOf = (answer: string): string => answer.slice(answer.indexOf('\r\n\r\n') + 4)
const denials = (): unknown[] =>
  events.map(({ fields }) => (fields?.['pgusher'] as { decision: unknown } | undefined)?.decision)

test('everybody may ask for the audience, and a shell gets it bare where it is one', async () => {
  const answer = await get('/v1/audience')
  expect(statusOf(answer)).toBe(200)
  expect(answer.toLowerCase()).toContain('\r\ncache-control: no-store\r\n')
  expect(JSON.parse(bodyOf(answer))).toEqual({
    audiences: [
      { preset: 'github-actions', audience: 'https://pgusher.acme.example' },
      { preset: 'gitlab', audience: 'https://gitlab.for.pgusher' },
    ],
    tickets: false,
  })
  const text = 'Accept: text/plain\r\n'
  expect(bodyOf(await get('/v1/audience?preset=gitlab', text))).toBe('https://gitlab.for.pgusher\n')
  expect(bodyOf(await get('/v1/audience?preset=github-actions', text))).toBe('https://pgusher.acme.example\n')
  expect(statusOf(await get('/v1/audience', text))).toBe(409)
  expect(statusOf(await get('/v1/audience?preset=okta', text))).toBe(404)
  expect(bodyOf(await get('/v1/audience?preset=okta'))).toContain('"audiences":[]')
  expect(await get('/v1/audience?preset=github')).toMatch(
    /400 Bad Request[\s\S]*preset is one of github-actions, gitlab/,
  )
  expect(events).toEqual([])
})

test.each([
  ['GET', '/', 404, 'there are GET or HEAD /v1/audience, POST or DELETE /v1/token, POST /v1/whoami'],
  ['GET', '/v1/audience/', 404, 'there are'],
  ['GET', '/v1/token', 405, 'only POST, DELETE'],
  ['PUT', '/v1/whoami', 405, 'only POST'],
  ['OPTIONS', '/v1/token', 405, 'only POST, DELETE'],
  ['GET', '/constructor', 404, 'there are'],
  ['constructor'.toUpperCase().slice(0, 4), '/v1/token', NaN, ''],
])('%s %s is answered with %d', async (method, path, status, message) => {
  const answer = await say(`${method} ${path} HTTP/1.1\r\nHost: a\r\n\r\n`)
  if (Number.isNaN(status)) return expect(statusOf(answer)).toBe(400)
  expect(statusOf(answer)).toBe(status)
  expect(bodyOf(answer)).toContain(message)
  expect(events).toEqual([])
})

test.each<[DenialCode, number]>([
  ['token_expired', 401],
  ['address_mismatch', 401],
  ['no_matching_rule', 403],
  ['ticket_scope', 403],
  ['database_unknown', 404],
  ['limit_rate', 429],
  ['limit_sessions', 429],
  ['draining', 503],
  ['upstream_unreachable', 503],
  ['credential_failed', 503],
  ['internal_error', 500],
])('the refusal %s has the status %d', (code, wanted) => {
  const { status, body } = refusalAnswer(
    new AccessError(code, 'why', { hint: 'what next', cause: 'secret' }),
    'D-7Q2MK4',
  )
  expect(status).toBe(wanted)
  expect(errorAnswer.parse(body).error).toMatchObject({ code, message: 'why', hint: 'what next', id: 'D-7Q2MK4' })
  expect(JSON.stringify(body)).not.toContain('secret')
})

test('HEAD has no body', async () => {
  expect(bodyOf(await say('HEAD /v1/audience HTTP/1.1\r\nHost: a\r\n\r\n'))).toBe('')
})

test.each([
  ['', 'the request has no token'],
  ['Authorization: Bearer\r\n', 'the header Authorization has no token: it is empty behind \\"Bearer\\"'],
  ['Authorization: Basic eDp5\r\n', 'the header Authorization is no Bearer'],
])('without a token it is refused, told how to do it, and on record (%j)', async (header, message) => {
  const body = '{"database":"shop-prod"}'
  const length = `Content-Length: ${body.length}\r\n`
  const answer = await say(`POST /v1/token HTTP/1.1\r\nHost: a\r\n${header}${length}\r\n${body}`)
  expect(statusOf(answer)).toBe(401)
  expect(answer.toLowerCase()).toContain('\r\nwww-authenticate: bearer realm="pgusher"\r\n')
  expect(bodyOf(answer)).toContain(message)
  const { error } = JSON.parse(bodyOf(answer)) as { error: { id: string } }
  expect(denials()).toEqual([expect.objectContaining({ stage: 'exchange', code: 'token_missing', id: error.id })])
})

test('where tickets are off the exchange says so, and so does giving back', async () => {
  const bearer = 'Authorization: Bearer pgut_x\r\n'
  const off = 'this pgusher gives and takes no tickets'
  expect(await say(`POST /v1/token HTTP/1.1\r\nHost: a\r\n${bearer}Content-Length: 10\r\n\r\ndatabase=a`)).toContain(
    off,
  )
  expect(await say(`DELETE /v1/token HTTP/1.1\r\nHost: a\r\n${bearer}\r\n`)).toContain(off)
})

test('a connection has one request: neither a second one nor a pipelined one is answered', async () => {
  const request = 'GET /v1/audience HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n'
  const answer = await say(request.repeat(3))
  expect(answer.match(/HTTP\/1\.1 200/g)).toHaveLength(1)
  expect(answer.toLowerCase()).toContain('\r\nconnection: close\r\n')
  await Promise.all(served)
})

test('a body of 80 KiB is read, a longer one is refused and the answer arrives', async () => {
  const post = (length: number): Promise<string> =>
    say(`POST /v1/token HTTP/1.1\r\nHost: a\r\nContent-Length: ${length}\r\n\r\n${'x'.repeat(length)}`)
  expect(bodyOf(await post(80 * 1024))).toContain('"bad_request"')
  const tooLong = await post(80 * 1024 + 1)
  expect(statusOf(tooLong)).toBe(413)
  expect(bodyOf(tooLong)).toContain('the body is longer than 81920 bytes')
  expect(statusOf(await post(900_000))).toBe(413)
})

test('a token of 64 KiB is read, a header of more than 80 KiB is not', async () => {
  const post = (length: number): Promise<string> =>
    say(`DELETE /v1/token HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${'x'.repeat(length)}\r\n\r\n`)
  expect(await post(64 * 1024)).toContain('gives and takes no tickets')
  expect(statusOf(await post(100 * 1024))).toBe(431)
  expect(denials()[1]).toMatchObject({ code: 'protocol_violation', message: expect.stringContaining('81920 bytes') })
})

test.each([
  ['a StartupMessage', Buffer.from('0000000f00030000757365720063690000', 'hex')],
  ['another protocol', 'SSH-2.0-OpenSSH_9.2\r\n'],
  ['two lengths', 'POST /v1/token HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n'],
  [
    'a length and chunks',
    'POST /v1/token HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n',
  ],
])('%s is refused and on record', async (_, bytes) => {
  expect(statusOf(await say(bytes))).toBe(400)
  expect(denials()).toEqual([expect.objectContaining({ stage: 'handshake', code: 'protocol_violation' })])
  await Promise.all(served)
})

test.each([
  ['silent', '', []],
  ['in the middle of the header', 'POST /v1/token HTTP/1.1\r\nHost:', ['protocol_violation']],
  [
    'in the middle of the body',
    'POST /v1/token HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nd',
    ['protocol_violation'],
  ],
])('a client that stops, %s, is hung up on after ten seconds', async (_, bytes, codes) => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  const client = await http()
  client.resume()
  if (bytes !== '') client.write(bytes)
  const [held] = await vi.waitUntil(
    () => (listener.open.size === 1 && served.length === 1 ? [...listener.open] : undefined),
    { interval: 1, timeout: 20_000 },
  )
  const arrived = held?.bytesRead
  await new Promise(setImmediate)
  expect(arrived).toBeGreaterThan(0)
  await vi.advanceTimersByTimeAsync(9_900)
  expect(client.closed).toBe(false)
  await vi.advanceTimersByTimeAsync(200)
  if (!client.closed) await once(client, 'close')
  await Promise.all(served)
  expect(denials()).toMatchObject(codes.map((code) => ({ code })))
})

test.each([
  ['a proxy is asked for', 'CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['something is expected of us', 'POST /v1/token HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 3\r\n\r\na=b'],
  ['there is no Host', 'GET /v1/audience HTTP/1.1\r\n\r\n'],
])('where %s a request is on record too', async (_, bytes) => {
  await say(bytes)
  await Promise.all(served)
  expect(denials()).toEqual([expect.objectContaining({ stage: 'handshake', code: 'protocol_violation' })])
})

test('a client that leaves at any moment leaves nothing behind', async () => {
  const request = 'POST /v1/token HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\ndatabase=a'
  for (const length of [0, 10, 60, request.length]) {
    for (const leave of ['end', 'destroy'] as const) {
      const client = await http()
      client.write(request.slice(0, length))
      client[leave]()
    }
  }
  await vi.waitUntil(() => served.length === 8, { timeout: 20_000 })
  await Promise.all(served)
  await vi.waitUntil(() => listener.open.size === 0, { timeout: 20_000 })
  // Those that end in order; what stands before a reset may never come.
  expect(events.length).toBeGreaterThanOrEqual(3)
})

test('a ticket that is given back is on record as such, also where nobody waits for the answer', async () => {
  const { promise: removed, resolve: remove } = Promise.withResolvers<TicketContent>()
  const giveBack = vi.fn(() => removed)
  Object.assign(context, { tickets: { giveBack } })
  const client = await http()
  client.write('DELETE /v1/token HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer pgut_x\r\n\r\n')
  await vi.waitUntil(() => giveBack.mock.calls.length === 1, { timeout: 20_000 })
  client.destroy()
  await vi.waitUntil(() => listener.open.size === 0, { timeout: 20_000 })
  const { rule, database, role } = grantOf()
  const times = { issuedAt: 0, expiresAt: 60_000 }
  remove({ id: 'ab', principal: principalOf('1'), rule, database, role, address: undefined, ...times })
  await Promise.all(served)
  expect(events).toMatchObject([{ event: 'ticket.returned', fields: { pgusher: { ticket: { id: 'ab' } } } }])
})

test('while the audit cannot be written nobody learns by HTTP what a token may do', async () => {
  Object.assign(context, { recorder: { ...context.recorder, accepting: false } })
  const body = '{"database":"shop-prod"}'
  const ask = (path: string): Promise<string> =>
    say(`POST ${path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
  for (const path of ['/v1/token', '/v1/whoami']) {
    const answer = await ask(path)
    expect([statusOf(answer), bodyOf(answer)]).toEqual([503, expect.stringContaining('"audit_unavailable"')])
  }
})
