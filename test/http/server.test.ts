import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { Agent, type IncomingMessage, request } from 'node:http'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, test, vi } from 'vitest'
import type { ListenAddress } from '../../src/config/scalars.ts'
import { type HttpServer, type HttpSources, startHttp } from '../../src/http/server.ts'

let server: HttpServer | undefined
afterEach(() => server?.close())

const LOOPBACK: ListenAddress = { kind: 'tcp', host: '127.0.0.1', port: 0 }

async function start(sources: Partial<HttpSources> = {}, address = LOOPBACK): Promise<HttpServer> {
  server = await startHttp(address, {
    ready: () => ({ ok: true, reasons: [] }),
    metrics: async () => 'up 1\n',
    contentType: 'text/plain; version=0.0.4',
    ...sources,
  })
  return server
}

interface Reply {
  status: number | undefined
  headers: IncomingMessage['headers']
  body: string
}

async function get(path: string, options: { method?: string; accept?: string; agent?: Agent } = {}): Promise<Reply> {
  const { address } = server ?? {}
  if (address === undefined) throw new Error('no server')
  const where = address.kind === 'tcp' ? { host: address.host, port: address.port } : { socketPath: address.path }
  const { method = 'GET', accept, agent } = options
  const sent = request({ ...where, path, method, agent, headers: accept === undefined ? {} : { accept } }).end()
  const [response]: [IncomingMessage] = (await once(sent, 'response')) as [IncomingMessage]
  const chunks = await response.toArray()
  return { status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks).toString() }
}

test('the process lives, is ready and shows its metrics', async () => {
  await start()
  expect(await get('/livez')).toMatchObject({ status: 200, body: 'alive\n' })
  expect(await get('/readyz?verbose')).toMatchObject({ status: 200, body: 'ready\n' })
  const metrics = await get('/metrics')
  expect(metrics).toMatchObject({ status: 200, body: 'up 1\n' })
  expect(metrics.headers['content-type']).toBe('text/plain; version=0.0.4')
})

test('what is missing is said with 503, as text and as JSON', async () => {
  await start({ ready: () => ({ ok: false, reasons: ['audit: no space left', 'draining'] }) })
  expect(await get('/readyz')).toMatchObject({ status: 503, body: 'not ready:\naudit: no space left\ndraining\n' })
  const json = await get('/readyz', { accept: 'application/json' })
  expect(JSON.parse(json.body)).toEqual({ ok: false, reasons: ['audit: no space left', 'draining'] })
  expect((await get('/livez')).status).toBe(200)
})

test('HEAD has the headers and no body; other methods and paths are refused', async () => {
  await start()
  expect(await get('/livez', { method: 'HEAD' })).toMatchObject({ status: 200, body: '' })
  expect(await get('/livez', { method: 'POST' })).toMatchObject({ status: 405, headers: { allow: 'GET, HEAD' } })
  expect((await get('/')).status).toBe(404)
  expect((await get('/metrics/../livez')).status).toBe(404)
})

test('metrics that fail answer 500 and tell nothing', async () => {
  await start({ metrics: () => Promise.reject(new Error('hunter2')) })
  expect(await get('/metrics')).toMatchObject({ status: 500, body: 'internal error\n' })
  expect((await get('/livez')).status).toBe(200)
})

test('closing does not wait for a client that keeps its connection', async () => {
  const running = await start()
  const agent = new Agent({ keepAlive: true })
  await get('/livez', { agent })
  // The second after which it would be cut off does not pass.
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  await Promise.all([running.close(), running.close()])
  vi.useRealTimers()
  agent.destroy()
})

test('a client that stops in the middle of its request is cut off on close', async () => {
  const running = await start()
  if (running.address.kind !== 'tcp') throw new Error('not TCP')
  const socket = connect(running.address.port, '127.0.0.1')
  await once(socket, 'connect')
  socket.on('error', () => {}).write('GET /livez HT')
  const gone = once(socket, 'close')
  await get('/livez')
  await running.close()
  socket.resume()
  await gone
})

test('it listens on a Unix socket', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'pgusher-http-'))
  await start({}, { kind: 'unix', path: join(directory, 'http.sock') })
  expect(await get('/livez')).toMatchObject({ status: 200 })
  await rm(directory, { recursive: true })
})

test('an address that is taken is an error', async () => {
  const { address } = await start()
  await expect(
    startHttp(address, { ready: () => ({ ok: true, reasons: [] }), metrics: async () => '', contentType: '' }),
  ).rejects.toThrow('EADDRINUSE')
})
