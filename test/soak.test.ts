/** The soak and the tests of faults say that nothing is left and nothing is missing: each of their checks must be able to fail. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { compareWithLog, growthOf, type Sample } from '../soak/account.ts'
import { type Event, leftNow, missingEvents, missingInLog, openSockets } from './support/nothing-left.ts'

const event = (seq: number, name: string, session?: string, totals?: { statements: number }): Event => ({
  event: name,
  pgusher: { seq, outcome: 'success', ...(totals && { totals }) },
  ...(session && { session: { id: session } }),
})

const WHOLE = [
  event(1, 'audit.started'),
  event(2, 'session.started', 'a'),
  event(3, 'statement', 'a'),
  event(4, 'session.ended', 'a', { statements: 1 }),
]
const COUNTED = { pgusher_audit_events_total: 4, pgusher_statements_total: 1, pgusher_sessions_total: 1 }
const samples = (values: Readonly<Record<string, number>>) => new Map(Object.entries(values))

test('events against each other and against the metrics', () => {
  expect(missingEvents(WHOLE, samples(COUNTED))).toEqual([])
  const renumbered = [...WHOLE.slice(0, 3), { ...WHOLE[3]!, pgusher: { ...WHOLE[3]!.pgusher, seq: 5 } }]
  expect(missingEvents(renumbered, samples(COUNTED))).toEqual(['the sequence breaks at line 4: 5'])
  for (const [name, what] of [
    ['pgusher_audit_events_total', 'events: 4'],
    ['pgusher_statements_total', 'statements: 1'],
    ['pgusher_sessions_total', 'sessions: 1'],
  ] as const)
    expect(missingEvents(WHOLE, samples({ ...COUNTED, [name]: 9 }))).toEqual([`${what} in the audit, 9 in the metrics`])
  expect(missingEvents(WHOLE, samples({ ...COUNTED, pgusher_denials_total: 1 }))).toHaveLength(1)
  const open = missingEvents(
    WHOLE.slice(0, 3),
    samples({ ...COUNTED, pgusher_audit_events_total: 3, pgusher_sessions_total: 0 }),
  )
  expect(open).toEqual(['session a has no end'])
  const short = [...WHOLE.slice(0, 3), event(4, 'session.ended', 'a', { statements: 2 })]
  expect(missingEvents(short, samples(COUNTED))).toEqual(['session a has other statements than its totals say'])
})

test('a log of several processes: a killed one may leave sessions open, no one a gap', () => {
  const killed = WHOLE.slice(0, 3)
  expect(missingInLog([...killed, ...WHOLE])).toEqual([])
  expect(missingInLog([...WHOLE, ...killed])).toEqual(['session a has no end'])
  expect(missingInLog([WHOLE[0]!, WHOLE[2]!, ...WHOLE])).toEqual(['the sequence breaks at 3'])
})

test('sessions, credentials, roles, backends and sockets that are left', async () => {
  const server = createServer()
  const before = await openSockets(process.pid)
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  onTestFinished(() => void server.close())
  const zero = { pgusher_sessions: 0, pgusher_unauthenticated_connections: 0, pgusher_credentials: 0 }
  const watched = {
    pid: process.pid,
    httpAddress: { kind: 'tcp', host: '127.0.0.1', port: 0 } as const,
    auditFiles: async () => [],
    admin: async () => [] as { name: string }[],
  }
  const wide = before + 100
  expect(await leftNow(watched, wide, samples(zero))).toEqual([])
  for (const name of Object.keys(zero))
    expect(await leftNow(watched, wide, samples({ ...zero, [name]: 1 }))).toEqual([`${name} is 1`])
  const roles = { ...watched, admin: async () => [{ name: 'pgu_x' }] }
  expect(await leftNow(roles, wide, samples(zero))).toEqual(['role or backend pgu_x'])
  expect(await openSockets(process.pid)).toBeGreaterThan(before)
  expect(await leftNow(watched, 0, samples(zero))).toEqual([
    expect.stringMatching(/^\d+ sockets more than the 0 before$/),
  ])
})

test('memory that grows from the second quarter to the last', () => {
  const at = (heap: number): Sample => ({ at: 0, rss: 0, heap, sockets: 0, sessions: 0, credentials: 0, timers: 0 })
  expect(growthOf([9, 5, 5, 5].map(at))).toBe(0)
  const growing = Array.from({ length: 40 }, (_, index) => at(index))
  expect([growthOf(growing), growthOf(growing, 'rss')]).toEqual([20, 0])
})

async function compared(recorded: readonly object[], log: readonly string[]): Promise<string[]> {
  const directory = await mkdtemp(join(tmpdir(), 'pgusher-account-'))
  onTestFinished(() => rm(directory, { recursive: true }))
  const [audit, postgres] = [join(directory, 'audit.jsonl'), join(directory, 'postgres.log')]
  await writeFile(audit, recorded.map((one) => `${JSON.stringify(one)}\n`).join(''))
  await writeFile(postgres, log.map((line) => `${line}\n`).join(''))
  return (await compareWithLog([audit], postgres)).violations
}

test("the audit against PostgreSQL's log", async () => {
  const ran = '11 00000 LOG:  duration: 0.1 ms  statement: select 1 /*1*/'
  const failed = ['11 22012 ERROR:  division by zero', '11 22012 STATEMENT:  select 1/0 /*1*/']
  const record = (outcome: string, code?: string) => ({
    event: 'statement',
    pgusher: { outcome },
    db: { query: { text: 'select 1 /*1*/' }, ...(code && { response: { status_code: code } }) },
  })
  expect(await compared([record('success')], [ran])).toEqual([])
  expect(await compared([record('failure', '22012')], failed)).toEqual([])
  expect(await compared([], [ran])).toEqual(['statement 1 ran at PostgreSQL (success) and is not recorded'])
  expect(await compared([record('success'), record('success')], [ran])).toEqual(['statement 1 is recorded twice'])
  expect(await compared([record('failure', '42601')], [ran])).toEqual([
    'statement 1: "42601" in the audit, "" at PostgreSQL',
  ])
  expect(await compared([record('success')], [])).toEqual(['statement 1 is a success and did not run'])
})
