/** The local port of `pgusher exec`, message by message: who may use it, what passes unchanged, and how both directions end. */
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type LocalListener, startLocalListener } from '../../src/client/local/listener.ts'
import type { Request } from '../../src/client/local/local-connection.ts'
import { serverPeer } from '../../src/client/server-address.ts'
import { AccessError } from '../../src/errors.ts'
import { cancelRequest, gssencRequest, sslRequest } from '../../src/wire/frontend.ts'
import { createCa } from '../support/certificates.ts'
import { type Stage, startStage } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'
import {
  approach,
  dial,
  query,
  type RawClient,
  type RawOptions,
  rawSession,
  startupPacket,
  terminate,
} from '../support/raw-client.ts'

let stage: Stage
let listener: LocalListener
let token: string
/** What pgusher is shown; the token of the file without it. */
let serverPassword: ((request: Request) => Promise<string>) | undefined
const said: string[] = []

beforeAll(async () => {
  stage = await startStage()
  token = await stage.token()
  listener = await startLocalListener(options(stage.caFile))
})
afterAll(async () => {
  await listener.close()
  await stage.close()
})

const options = (caFile: string) => ({
  server: serverPeer({ host: '127.0.0.1', port: stage.port }, caFile),
  serverPassword: async (request: Request) => serverPassword?.(request) ?? token,
  onRefused: ({ fields }: { fields: ReadonlyMap<string, string> }) => void said.push(`refused ${fields.get('M')}`),
  onFailed: ({ message }: AccessError) => void said.push(`failed ${message}`),
})

/** Connections that pgusher accepted meanwhile. */
async function counted(work: () => Promise<unknown>): Promise<{ accepted: number }> {
  const count = async (): Promise<number> => {
    const { httpAddress } = stage.pgusher
    const port = httpAddress.kind === 'tcp' ? httpAddress.port : 0
    const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
    return Number(/^pgusher_connections_total (\d+)$/m.exec(text)?.[1])
  }
  const before = await count()
  await work()
  return { accepted: (await count()) - before }
}

/** The stage as a raw client sees it, with the local port in place of pgusher's. */
const local = (at = listener): Stage => ({ ...stage, port: at.port })
const job = () => ({ token: listener.password })
const session = (raw: RawOptions = {}) => rawSession(local(), job(), { tls: 'none', ...raw })

test('SSLRequest and GSSENCRequest are answered by N, once each, and then the session is as without them', async () => {
  using client = await approach(local(), 'none')
  const answer = async (request: Buffer): Promise<string> => {
    client.send(request)
    await once(client.socket, 'readable')
    return String(client.socket.read(1))
  }
  expect([await answer(sslRequest()), await answer(gssencRequest())]).toEqual(['N', 'N'])
  client.send(sslRequest())
  expect(await client.rest()).toEqual([expect.stringContaining('a second SSLRequest')])
})

test.each([
  ['an empty password', ''],
  ['another password', 'x'.repeat(43)],
  ['the beginning of it', 'listener.password'],
  ['a token that pgusher would take', 'token'],
])('%s is refused, and pgusher hears nothing of it', async (_name, which) => {
  const password = { 'listener.password': listener.password.slice(0, -1), token }[which] ?? which
  const { accepted } = await counted(async () => {
    await expect(rawSession(local(), { token: password }, { tls: 'none' })).rejects.toThrow(
      /28P01.*this port is that of one "pgusher exec": the password is not the one that it gave to its command/s,
    )
  })
  expect(accepted).toBe(0)
})

test('each listener has a password of its own', async () => {
  const other = await startLocalListener(options(stage.caFile))
  await expect(rawSession(local(other), job(), { tls: 'none' })).rejects.toThrow('28P01')
  await other.close()
})

test('the startup parameters of the client arrive, in the protocol that it speaks', async () => {
  using old = await session({ parameters: { application_name: 'mine', options: '-c work_mem=5MB' } })
  expect(await old.ask(query('show work_mem'))).toContainEqual(expect.stringContaining('5MB'))
  expect(old.key.secret).toHaveLength(4)
  using long = await session({ minor: 2 })
  expect(long.key.secret.length).toBeGreaterThan(4)
  expect(long.greeting).not.toContainEqual(expect.stringMatching(/^v/))
})

test('NegotiateProtocolVersion comes once, for what neither side knows', async () => {
  using client = await session({ minor: 9999, parameters: { '_pq_.future': 'x' } })
  expect(client.greeting.filter((text) => text.startsWith('v'))).toHaveLength(1)
  expect(await client.ask(query('select 42'))).toContainEqual(expect.stringContaining('42'))
})

test('a client that names another database or role gets the server’s word on that, and the server its request', async () => {
  const asked: Request[] = []
  serverPassword = async (request) => {
    asked.push(request)
    return token
  }
  using scope = new DisposableStack()
  scope.defer(() => {
    serverPassword = undefined
  })
  using other = await rawSession(local(), { ...job(), database: 'warehouse' }, { tls: 'none' })
  expect(await other.ask(query('select current_database()'))).toContainEqual(expect.stringContaining('warehouse'))
  const refused = rawSession(local(), { ...job(), user: 'postgres' }, { tls: 'none' })
  await expect(refused).rejects.toThrow(/42501.*this job may not use role "postgres"/s)
  expect(asked).toEqual([
    { database: 'warehouse', user: 'shop_migrator' },
    { database: 'shop-prod', user: 'postgres' },
  ])
  expect(said).toContainEqual(expect.stringMatching(/^refused access to "shop-prod" denied/))
})

test('a cancel key works by the local port, an invented one makes no connection', async () => {
  using client = await session({ minor: 2 })
  const answer = client.ask(query('select pg_sleep(60)'))
  const sleeping = `select from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'`
  await eventually(async () => (await stage.admin(sleeping)).length === 1)
  const send = async (processId: number, key: Buffer): Promise<void> => {
    const socket = await dial(local())
    socket.resume().end(cancelRequest(processId, key))
    await once(socket, 'close')
  }
  const { accepted } = await counted(() => send(client.key.processId, Buffer.alloc(client.key.secret.length)))
  expect(accepted).toBe(0)
  await send(client.key.processId, client.key.secret)
  expect(await answer).toContainEqual(expect.stringContaining('57014'))
  await stage.waitForEvent('session.cancel_requested')
})

test('half-close: who has sent its last byte still gets every answer', async () => {
  using client = await session()
  client.send(query(`select repeat('x', 100000) from generate_series(1, 50)`))
  client.finish()
  expect((await client.skipUntil('Z')).counts).toMatchObject({ D: 50, C: 1 })
})

test('a client that does not read stops the server, and gets everything in the end', async () => {
  using client = await session()
  client.send(query(`select repeat('x', 1000000) from generate_series(1, 40)`))
  await eventually(async () => {
    const [row] = await stage.admin<{ waiting: boolean }>(
      `select wait_event = 'ClientWrite' as waiting from pg_stat_activity where query like 'select repeat(''x'', 1000000)%'`,
    )
    return row?.waiting === true
  })
  expect(await client.skipUntil('Z')).toMatchObject({ counts: { D: 40 } })
})

test('the server’s last words come before the end', async () => {
  using client = await session()
  client.send(query('select pg_sleep(60)'))
  const [login] = await eventually(async () => {
    const found = await stage.admin<{ pid: number }>(
      `select pid from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'`,
    )
    return found.length > 0 && found
  })
  await stage.admin(`select pg_terminate_backend(${login?.pid})`)
  expect(await client.rest()).toContainEqual(expect.stringContaining('57P01'))
})

test('a client that goes away ends its session', async () => {
  const ended = async () => (await stage.events('session.ended')).length
  const before = await ended()
  using client = await session()
  client.reset()
  await eventually(async () => (await ended()) > before)
  using other = await session()
  other.send(terminate)
  expect(await other.rest()).toEqual([])
})

test('a server that is not the one of the CA gets no token', async () => {
  const [wrong, file] = [await createCa(), join(stage.directory, 'wrong.crt')]
  await writeFile(file, wrong.cert)
  const mistrusting = await startLocalListener(options(file))
  await expect(rawSession(local(mistrusting), { token: mistrusting.password }, { tls: 'none' })).rejects.toThrow(
    /08006.*the certificate of 127\.0\.0\.1:\d+ comes from a CA that is not the configured one \(expected: one signed by the CA of --ca/s,
  )
  await mistrusting.close()
})

test('no token: the command is told why', async () => {
  serverPassword = async () => {
    throw new AccessError('token_missing', 'the CI gave none', { hint: 'Ask it nicely.' })
  }
  using scope = new DisposableStack()
  scope.defer(() => {
    serverPassword = undefined
  })
  await expect(session()).rejects.toThrow(/28P01.*the CI gave none/s)
  expect(said).toContain('failed the CI gave none')
})

test('bytes that are no PostgreSQL are answered in words or not at all', async () => {
  using web = await approach(local(), 'none')
  web.send(Buffer.from('GET / HTTP/1.1\r\n\r\n'))
  expect(await web.rest()).toEqual([expect.stringContaining('another protocol')])
  using tls = await approach(local(), 'none')
  tls.send(Buffer.from([0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]))
  expect((await tls.rest()).filter((text) => text !== 'reset')).toEqual([])
  using twice = await approach(local(), 'none')
  twice.send(startupPacket(0x30000, 'user', 'a', 'user', 'b', ''))
  expect(await twice.rest()).toEqual([expect.stringContaining('names the parameter "user" twice')])
})

test('strangers that show no password: the oldest make room for newer ones, and the command is served all the while', async () => {
  const crowded = await startLocalListener({ ...options(stage.caFile), handshakeTimeout: 120_000 })
  const oldest = await dial(local(crowded))
  const gone = once(oldest.resume(), 'end')
  const strangers: Awaited<ReturnType<typeof dial>>[] = []
  for (let hundred = 0; hundred < 5; hundred++)
    strangers.push(...(await Promise.all(Array.from({ length: 100 }, () => dial(local(crowded))))))
  using first = await rawSession(local(crowded), { token: crowded.password }, { tls: 'none' })
  await gone
  // Whoever has shown the password is nobody's oldest.
  strangers.push(...(await Promise.all(Array.from({ length: 600 }, () => dial(local(crowded))))))
  using second = await rawSession(local(crowded), { token: crowded.password }, { tls: 'none' })
  for (const client of [first, second]) expect(await client.ask(query('select 1'))).toContain('D 1')
  for (const stranger of strangers) stranger.destroy()
  await crowded.close()
})

test('who shows no password in time is hung up, and a session is not', async () => {
  const short = await startLocalListener({ ...options(stage.caFile), handshakeTimeout: 500 })
  using client = await rawSession(local(short), { token: short.password }, { tls: 'none' })
  using waiting = await approach(local(short), 'none')
  const silent = await dial(local(short))
  waiting.send(startupPacket(0x30000, 'user', 'a', ''))
  const hungUp = once(silent.resume(), 'end')
  expect(await waiting.rest()).toEqual(['R 3'])
  await hungUp
  expect(await client.ask(query('select 1'))).toContain('D 1')
  silent.destroy()
  await short.close()
})

test('close ends sessions, and a port of which nothing is left', async () => {
  const short = await startLocalListener(options(stage.caFile))
  using client: RawClient = await rawSession(local(short), { token: short.password }, { tls: 'none' })
  const silent = await dial(local(short))
  const hungUp = once(silent.resume(), 'end')
  client.send(query('select pg_sleep(60)'))
  await short.close()
  await hungUp
  silent.destroy()
  expect(await client.rest()).not.toContainEqual(expect.stringMatching(/^Z/))
  const [error] = await once(connect(short.port, '127.0.0.1'), 'error')
  expect(error).toMatchObject({ code: 'ECONNREFUSED' })
})
