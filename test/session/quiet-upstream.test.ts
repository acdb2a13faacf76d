import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createQuietUpstream } from '../../src/session/quiet-upstream.ts'
import { noticeResponse, parameterStatus, readyForQuery } from '../../src/wire/backend.ts'
import { cstring, frame, int16, int32 } from '../../src/wire/writer.ts'

let server: Server
let accepted: Promise<Socket>

beforeAll(async () => {
  server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
})

afterAll(() => void server.close())

async function upstream(rest: Buffer = Buffer.alloc(0)) {
  accepted = once(server, 'connection').then(([socket]) => socket as Socket)
  const { port } = server.address() as { port: number }
  const socket = connect({ port, host: '127.0.0.1' })
  socket.on('error', () => {}).pause()
  await once(socket, 'connect')
  const backend = await accepted
  backend.on('error', () => {})
  const quiet = createQuietUpstream({
    ...{ socket, rest, transactionStatus: 'I', notices: [], address: { host: '127.0.0.1', port } },
    parameterStatus: new Map([['TimeZone', 'UTC']]),
    backendKey: { processId: 1, secret: Buffer.alloc(4) },
  })
  return { socket, backend, quiet }
}

const tag = (text: string) => frame(0x43, cstring(text))
const row = (text: string) => frame(0x44, int16(1), int32(text.length), Buffer.from(text))
const ready = readyForQuery('I')
const QUERIES = [
  { sql: 'DISCARD ALL', tags: ['DISCARD ALL'] },
  { sql: 'SELECT 1; SELECT 2', tags: ['SELECT ', 'SELECT '] },
]
const ANSWER = [
  parameterStatus('TimeZone', 'UTC'),
  ...[
    tag('DISCARD ALL'),
    ready,
    frame(0x54, int16(0)),
    row('one'),
    tag('SELECT 1'),
    row('two'),
    tag('SELECT 1'),
    ready,
  ],
]
const bodies = [row('one').subarray(5), row('two').subarray(5)]

async function asked(bytes: Buffer, cuts: readonly number[] = []) {
  const { socket, backend, quiet } = await upstream()
  const rows = quiet.run(QUERIES, 5_000)
  let from = 0
  for (const cut of [...cuts].sort((a, b) => a - b)) {
    backend.write(bytes.subarray(from, cut))
    from = cut
    await new Promise(setImmediate)
  }
  backend.end(bytes.subarray(from))
  const result = await rows
  const lost = socket.destroyed
  socket.destroy()
  backend.destroy()
  return { result, lost }
}

test('the expected answers, wherever they are cut, give their rows', async () => {
  const bytes = Buffer.concat(ANSWER)
  const cut = fc.array(fc.nat({ max: bytes.length }), { maxLength: 4 })
  await fc.assert(
    fc.asyncProperty(cut, async (cuts) => {
      expect((await asked(bytes, cuts)).result).toEqual(bodies)
    }),
    { numRuns: 40 },
  )
})

test('a message more, less, or another, and the connection is gone', async () => {
  const odd = [
    noticeResponse({ severity: 'NOTICE', sqlstate: '00000', message: 'left over' }),
    frame(0x41, int32(1), cstring('channel'), cstring('payload')),
    frame(0x45, Buffer.from('SERROR\0C25001\0Mno\0\0')),
    parameterStatus('TimeZone', 'Asia/Tokyo'),
    ...[parameterStatus('new', ''), readyForQuery('T'), ready, tag('INSERT 0 1'), Buffer.from('garbage'), frame(0x31)],
  ]
  const change = fc.oneof(
    fc.record({ at: fc.nat({ max: ANSWER.length }), put: fc.constantFrom(...odd), drop: fc.constantFrom(0, 1) }),
    // Neither a row nor its description is missed here: whoever asked counts the rows.
    fc.record({ at: fc.constantFrom(1, 2, 5, 7, 8), put: fc.constant(Buffer.alloc(0)), drop: fc.constant(1) }),
  )
  await fc.assert(
    fc.asyncProperty(change, async ({ at, put, drop }) => {
      const { result, lost } = await asked(Buffer.concat(ANSWER.toSpliced(at, drop, put)))
      const same = Buffer.concat(ANSWER.toSpliced(at, drop, put)).equals(Buffer.concat(ANSWER))
      if (same) return
      expect({ result, lost }).toEqual({ result: undefined, lost: true })
    }),
    { numRuns: 120 },
  )
})

test('whatever is said while nobody asks ends it, and so does silence', async () => {
  const { socket, backend, quiet } = await upstream()
  const lost = new Promise<void>((resolve) => quiet.watch(resolve))
  backend.write(noticeResponse({ severity: 'NOTICE', sqlstate: '00000', message: 'hello' }))
  await lost
  expect(socket.destroyed).toBe(true)
  const silent = await upstream()
  expect(await silent.quiet.run(QUERIES, 20)).toBeUndefined()
  expect(silent.socket.destroyed).toBe(true)
  const begun = await upstream(ready)
  expect(await begun.quiet.run(QUERIES, 5_000)).toBeUndefined()
})
