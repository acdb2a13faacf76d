import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import type { MintedCredential } from '../../src/credentials/minter.ts'
import { createWarmUpstreams, type WarmConnection, type WarmKey } from '../../src/session/warm-upstreams.ts'
import type { WarmOutcome } from '../../src/telemetry/metrics.ts'
import type { UpstreamTarget } from '../../src/upstream/connect.ts'
import { readyForQuery } from '../../src/wire/backend.ts'
import { cstring, frame, int16, int32 } from '../../src/wire/writer.ts'

const body = (text: string) => Buffer.concat([int16(1), int32(text.length), Buffer.from(text)])
const NO_ROW = undefined

/** By turns of the loop, since the clock is the test's. */
async function eventually<T>(look: () => T | undefined | false): Promise<T> {
  for (;;) {
    const found = look()
    if (found !== undefined && found !== false) return found
    await new Promise(setImmediate)
  }
}

/** A backend whose answers a test sets: what it says of the moment, of its standing, its code and its session. */
interface Backend {
  socket: Socket
  says: { moment: string; standing: string | undefined; code: string | undefined; session: string }
  /** Comments of the queries so far, with how many statements each had. */
  asked: string[]
  /** Answers from now on, and what was asked while it held. */
  answer(): void
}

let server: Server
let port: number
const backends: Backend[] = []

beforeAll(async () => {
  server = createServer((socket) => {
    const backend: Backend = { socket, says: { ...FRESH }, asked: [], answer: () => {} }
    backends.push(backend)
    let pending = Buffer.alloc(0)
    let answers = false
    const go = () => {
      while (answers && pending.length >= 5 && pending.length > pending.readInt32BE(1)) {
        const length = pending.readInt32BE(1) + 1
        if (pending[0] === 0x51) socket.write(answersTo(backend, pending.toString('utf8', 5, length - 1)))
        pending = pending.subarray(length)
      }
    }
    backend.answer = () => {
      answers = true
      go()
    }
    socket
      .on('error', () => {})
      .on('data', (chunk) => {
        pending = Buffer.concat([pending, chunk])
        go()
      })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  port = (server.address() as { port: number }).port
})

afterAll(() => void server.close())
// Nobody's patience ends but where a test says so.
beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }))
afterEach(() => {
  vi.useRealTimers()
  for (const { socket } of backends.splice(0)) socket.destroy()
})

const FRESH = { moment: '7:9:', standing: 'as it was', code: '1', session: 'as it was' }

function answersTo({ says, asked }: Backend, sql: string): Buffer {
  if (sql === 'DISCARD ALL') return Buffer.concat([frame(0x43, cstring('DISCARD ALL')), readyForQuery('I')])
  const statements = sql.split(';\n')
  asked.push(`${/^\/\* (.*?) \*\//.exec(sql)?.[1]}: ${statements.length}`)
  const rowOf = (statement: string): string | undefined => {
    if (statement.includes('pg_current_snapshot')) return says.moment
    if (statement.includes('pg_show_all_settings')) return says.session
    if (statement.includes('pg_auth_members')) return says.standing
    return statement.includes('pg_extension') ? says.code : 'the job'
  }
  const answers = statements.map((statement) => {
    const row = rowOf(statement)
    const rows = row === NO_ROW ? [] : [frame(0x44, body(row))]
    return Buffer.concat([frame(0x54, int16(0)), ...rows, frame(0x43, cstring(`SELECT ${rows.length}`))])
  })
  return Buffer.concat([...answers, readyForQuery('I')])
}

const key: WarmKey = { credential: {} as MintedCredential, target: {} as UpstreamTarget, startup: '[]' }
const LIMITS = { keep: 8, life: 60_000, total: 20 }

function pool() {
  const counted: WarmOutcome[] = []
  const warm = createWarmUpstreams((outcome) => counted.push(outcome))
  const fresh = async (of = key): Promise<{ connection: WarmConnection; backend: Backend }> => {
    const socket = connect({ port, host: '127.0.0.1' })
    socket.on('error', () => {}).pause()
    await once(socket, 'connect')
    const backend = await eventually(() => backends.find(({ socket: other }) => other.remotePort === socket.localPort))
    const connection = {
      ...{ socket, rest: Buffer.alloc(0), transactionStatus: 'I', notices: [], address: { host: '127.0.0.1', port } },
      ...{ parameterStatus: new Map(), backendKey: { processId: 1, secret: Buffer.alloc(4) } },
    }
    const { moment, standing, session } = FRESH
    const rows = { moment: body(moment), standing: body(standing), session: body(session) }
    return { connection: { ...of, ...rows, connection, uses: 1, generation: warm.generation }, backend }
  }
  return { warm, counted, fresh }
}

const BEGINS = 'pgusher: a session begins'
const KEPT = "pgusher: kept for the job's next session"

test('while nothing has changed the catalog is not asked', async () => {
  const { warm, fresh } = pool()
  const { connection, backend } = await fresh()
  backend.answer()
  warm.park(connection, LIMITS)
  const taken = await warm.take(key, '{}')
  expect(taken?.warm).toMatchObject({ connection: connection.connection, uses: 2 })
  expect(backend.asked).toEqual([`${KEPT}: 2`, `${BEGINS}: 2`])
})

test('after a change it is, at the reset and before the next session, and a connection that stands as before stays', async () => {
  const { warm, counted, fresh } = pool()
  const { connection, backend } = await fresh()
  backend.answer()
  backend.says.moment = '7:12:'
  warm.park(connection, LIMITS)
  await eventually(() => backend.asked.length === 2)
  backend.says.moment = '7:12:10'
  expect(await warm.take(key, '{}')).toBeDefined()
  expect(backend.asked).toEqual([`${KEPT}: 2`, `${KEPT}: 3`, `${BEGINS}: 2`, `${BEGINS}: 1`])
  expect(counted).toEqual(['reused'])
})

test.each([
  ['its standing', { moment: '8', standing: 'another' }],
  ['that it would be let in', { moment: '8', standing: NO_ROW }],
  ['the code of the database', { moment: '8', code: NO_ROW }],
  ['its own settings', { session: 'another' }],
])('a reset that changes %s costs the connection', async (_, says) => {
  const { warm, counted, fresh } = pool()
  const { connection, backend } = await fresh()
  Object.assign(backend.says, says)
  backend.answer()
  warm.park(connection, LIMITS)
  expect(await warm.take(key, '{}')).toBeUndefined()
  expect(counted).toEqual(['odd'])
})

test.each(['another', NO_ROW])('and so does a standing that is %s when a session would get it', async (standing) => {
  const { warm, counted, fresh } = pool()
  const { connection, backend } = await fresh()
  backend.answer()
  warm.park(connection, LIMITS)
  await eventually(() => backend.asked.length === 1)
  Object.assign(backend.says, { moment: '8', standing })
  expect(await warm.take(key, '{}')).toBeUndefined()
  expect(counted).toEqual(['odd'])
})

test('sessions wait for as many connections as are being reset, in turn, and no longer than it is known that none comes', async () => {
  const { warm, fresh } = pool()
  const [one, two] = [await fresh(), await fresh()]
  warm.park(one.connection, LIMITS)
  warm.park(two.connection, LIMITS)
  const first = warm.take(key, '{}')
  const second = warm.take(key, '{}')
  expect(await warm.take(key, '{}')).toBeUndefined()
  two.backend.answer()
  expect((await first)?.warm.connection).toBe(two.connection.connection)
  one.backend.says.session = 'another'
  one.backend.answer()
  expect(await second).toBeUndefined()
})

test('a session does not wait for a connection with other settings, nor for long', async () => {
  const { warm, fresh } = pool()
  const other = await fresh({ ...key, startup: '["other"]' })
  const mine = await fresh()
  warm.park(other.connection, LIMITS)
  expect(await warm.take(key, '{}')).toBeUndefined()
  warm.park(mine.connection, LIMITS)
  const waiting = warm.take(key, '{}')
  vi.advanceTimersByTime(60)
  expect(await waiting).toBeUndefined()
  mine.backend.answer()
  await eventually(() => mine.backend.asked.length === 1)
  expect((await warm.take(key, '{}'))?.warm.connection).toBe(mine.connection.connection)
})
