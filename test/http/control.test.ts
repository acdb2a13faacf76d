import { once } from 'node:events'
import { chmod, lstat, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type ControlServer, type ControlSources, startControl, whoElseMayWrite } from '../../src/http/control.ts'
import { readKillRequest } from '../../src/http/control-request.ts'
import type { KillOrder } from '../../src/session/kill.ts'

let directory: string
let socketPath: string
let server: ControlServer | undefined
let orders: KillOrder[]
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'pgusher-control-'))
  socketPath = join(directory, 'control.sock')
  orders = []
})
afterEach(async () => {
  await stop()
  await rm(directory, { recursive: true })
})

async function stop(): Promise<void> {
  await server?.close()
  server = undefined
}

const ORDER = { target: { by: 'run', value: '1' }, user: 'dana', reason: 'leaked' }

async function start(sources: Partial<ControlSources> = {}): Promise<void> {
  server = await startControl(socketPath, {
    overview: () => ({ instance: 'one', sessions: [], windows: [], barred: 0 }),
    kill: async (order) => {
      orders.push(order)
      return { ok: true, jobs: [], sessions: 1, windows: 2, tickets: 3, problems: [] }
    },
    onFailure: () => {},
    ...sources,
  })
}

function say(method: string, path: string, body = ''): Promise<{ status: number | undefined; body: unknown }> {
  return new Promise((resolve, reject) => {
    const sent = request({ socketPath, method, path }, async (response) => {
      const text = Buffer.concat(await response.toArray()).toString()
      resolve({ status: response.statusCode, body: JSON.parse(text) })
    })
    sent.on('error', reject).end(body)
  })
}

test('it lists and kills, and does nothing else', async () => {
  await start()
  expect(await say('GET', '/v1/sessions')).toMatchObject({ status: 200, body: { sessions: [], windows: [] } })
  expect(await say('POST', '/v1/kill', JSON.stringify({ ...ORDER, sudo_user: 'eve' }))).toMatchObject({
    status: 200,
    body: { sessions: 1, windows: 2, tickets: 3 },
  })
  expect(orders).toEqual([{ target: { by: 'run', value: '1' }, user: 'dana', sudoUser: 'eve', reason: 'leaked' }])
  for (const [method, path] of [
    ['GET', '/v1/kill'],
    ['POST', '/v1/sessions'],
    ['GET', '/v1/sessions/..'],
    ['DELETE', '/v1/sessions'],
  ] as const)
    expect((await say(method, path)).status).toBe(404)
  expect(orders).toHaveLength(1)
})

test.each([
  ['no JSON', 'x', 400],
  ['nothing', '', 400],
  ['no reason', JSON.stringify({ ...ORDER, reason: ' ' }), 400],
  ['a reason with a line break', JSON.stringify({ ...ORDER, reason: 'a\nb' }), 400],
  ['a reason that turns text around', JSON.stringify({ ...ORDER, reason: 'a\u202eb' }), 400],
  ['a name with an escape', JSON.stringify({ ...ORDER, user: '\u001b[2J' }), 400],
  ['a member that is not known', JSON.stringify({ ...ORDER, all: true }), 400],
  ['a target of another kind', JSON.stringify({ ...ORDER, target: { by: 'all', value: '*' } }), 400],
  ['too much', JSON.stringify({ ...ORDER, reason: 'x'.repeat(100_000) }), 413],
])('a request with %s is refused and kills nobody', async (_name, body, status) => {
  await start()
  expect(await say('POST', '/v1/kill', body)).toMatchObject({ status, body: { error: expect.any(String) } })
  expect(orders).toEqual([])
})

test('whatever comes as a request is an order or a problem in words', () => {
  const text = fc.oneof(
    fc.string(),
    fc.json(),
    fc
      .record({ target: fc.record({ by: fc.string(), value: fc.string() }), user: fc.string(), reason: fc.string() })
      .map((value) => JSON.stringify(value)),
  )
  fc.assert(
    fc.property(text, (body) => {
      const read = readKillRequest(body)
      expect('problem' in read ? read.problem : read.order.reason).toMatch(/\S/)
    }),
  )
})

test('what is not found and what is ambiguous is said', async () => {
  await start({ kill: async () => ({ ok: false, code: 'ambiguous', message: 'several' }) })
  expect(await say('POST', '/v1/kill', JSON.stringify(ORDER))).toEqual({ status: 409, body: { error: 'several' } })
})

test('a failure is told without its reason', async () => {
  const failures: unknown[] = []
  await start({ kill: () => Promise.reject(new Error('hunter2')), onFailure: (error) => failures.push(error) })
  const { status, body } = await say('POST', '/v1/kill', JSON.stringify(ORDER))
  expect({ status, told: JSON.stringify(body).includes('hunter2') }).toEqual({ status: 500, told: false })
  expect(failures).toHaveLength(1)
})

test("the socket is its owner's alone from its first moment, whatever the umask", async () => {
  const before = process.umask(0)
  try {
    await start()
    expect((await lstat(socketPath)).mode & 0o777).toBe(0o600)
    expect(process.umask()).toBe(0)
  } finally {
    process.umask(before)
  }
})

test.each([0o775, 0o757, 0o777, 0o1777])(
  'a directory of mode %o, in which others may write, is refused',
  async (mode) => {
    await chmod(directory, mode)
    await expect(start()).rejects.toThrow(/others \(mode \d+\) may write to the directory/)
    await chmod(directory, 0o700)
  },
)

test.each([
  [1000, 0o755, undefined],
  [0, 0o755, undefined],
  [1001, 0o700, 'its owner (uid 1001)'],
  [0, 0o775, 'others (mode 775)'],
])('a directory of user %d with mode %o is safe for user 1000, or it is said who may write', (uid, mode, who) => {
  expect(whoElseMayWrite({ uid, mode }, 1000)).toBe(who)
})

test('a directory that is not there is named', async () => {
  socketPath = join(directory, 'run', 'control.sock')
  await expect(start()).rejects.toThrow(`there is no directory ${join(directory, 'run')}`)
})

test('a socket that a killed process left is replaced; one that answers and a file that is none are not', async () => {
  await start()
  await expect(startControl(socketPath, {} as ControlSources)).rejects.toThrow('EADDRINUSE')
  expect((await say('GET', '/v1/sessions')).status).toBe(200)
  await stop()
  // Closing removes the name that was listened on, so this one stays, as after a kill.
  const killed = createServer().listen(`${socketPath}.0`)
  await once(killed, 'listening')
  await rename(`${socketPath}.0`, socketPath)
  killed.close()
  await once(killed, 'close')
  await start()
  expect((await say('GET', '/v1/sessions')).status).toBe(200)
  await stop()
  await writeFile(socketPath, 'mine')
  await expect(start()).rejects.toThrow('EADDRINUSE')
})

test('closing cuts a client that says nothing, and takes the socket away', async () => {
  await start()
  const silent = connect(socketPath)
  await new Promise((resolve) => silent.once('connect', resolve))
  const gone = new Promise((resolve) => silent.once('close', resolve))
  silent.resume().on('error', () => {})
  await server?.close()
  await gone
  await expect(lstat(socketPath)).rejects.toThrow('ENOENT')
})
