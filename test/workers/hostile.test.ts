/** Workers and a primary that hang, die at bad moments or send what is none of ours, with processes that the test plays. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { Recorder } from '../../src/audit/recorder.ts'
import type { ListenAddress } from '../../src/config/scalars.ts'
import { createAdmission } from '../../src/session/admission.ts'
import { createBars } from '../../src/session/bars.ts'
import type { Front, FrontParts } from '../../src/session/front.ts'
import { createJobWindows } from '../../src/session/job-windows.ts'
import type { Snapshot } from '../../src/session/proxy-context.ts'
import type { OwnState } from '../../src/session/shared-state.ts'
import { createLog } from '../../src/telemetry/log.ts'
import { createMetrics } from '../../src/telemetry/metrics.ts'
import { type Channel, createChannel } from '../../src/workers/channel.ts'
import { openCrew } from '../../src/workers/crew.ts'
import { createCredentialNumbers, createDesk } from '../../src/workers/desk.ts'
import type { ToPrimary, ToWorker, WorkerSettings } from '../../src/workers/protocol.ts'
import { createRemoteState } from '../../src/workers/remote-state.ts'
import type { WorkerProcess } from '../../src/workers/slot.ts'
import { grantOf, principalOf } from '../support/mint.ts'
import { portPair } from './ports.ts'

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance'] })
})
afterEach(() => {
  vi.useRealTimers()
})

const settled = async (): Promise<void> => {
  for (let turn = 0; turn < 12; turn++) await new Promise((resolve) => setImmediate(resolve))
}
async function pass(milliseconds: number): Promise<void> {
  await settled()
  await vi.advanceTimersByTimeAsync(milliseconds)
  await settled()
}

interface Played extends WorkerProcess {
  /** What the worker asks of the primary. */
  asks: Channel<ToPrimary>
  /** Anything, as it is. */
  send(message: unknown): void
  /** Answers nothing any more, and does not end when it is told to. */
  hangs: boolean
  dies(how: string): void
  /** The channel is closed, and the process lives on. */
  disconnect(): void
  killed: boolean
  heard: string[]
  settings: WorkerSettings | undefined
}

function play(pid: number): Played {
  const { ports, cut } = portPair()
  const exited = Promise.withResolvers<string>()
  const dies = (how: string): void => {
    exited.resolve(how)
    cut()
  }
  const hear = (name: string, answer: unknown) => (argument: unknown) => {
    one.heard.push(name)
    if (name === 'open') one.settings = argument as WorkerSettings
    return one.hangs ? new Promise(() => {}) : answer
  }
  const handlers = {
    ...{ open: hear('open', undefined), ping: hear('ping', undefined), replace: hear('replace', 1) },
    ...{
      bar: hear('bar', undefined),
      sessions: hear('sessions', []),
      metrics: hear('metrics', [{ name: `of_${pid}` }]),
    },
    ...{ ticketKeys: hear('ticketKeys', undefined), cancel: hear('cancel', true) },
    drain() {
      if (!one.hangs) dies('exit code 0')
    },
  }
  const asks = createChannel<ToPrimary, ToWorker>(ports[1], handlers as never, () => {})
  const one: Played = {
    ...{ pid, port: ports[0], exited: exited.promise, asks, send: ports[1].send, dies },
    ...{ hangs: false, killed: false, heard: [], settings: undefined, disconnect: cut },
    kill() {
      one.killed = true
      dies('SIGKILL')
    },
  }
  return one
}

const LISTEN = { handshake_timeout: 15_000, max_unauthenticated: 3 }

function partsOf() {
  const limits = { maxUnauthenticated: 3, maxUnauthenticatedPerAddress: 3, maxSessions: 4 }
  const minted: string[] = []
  const leases: OwnState['leases'] = {
    acquire({ jobKey }) {
      minted.push(jobKey)
      return new Promise(() => {})
    },
  }
  const shared = {
    ...{ admission: createAdmission(() => limits), windows: createJobWindows(), bars: createBars(), leases },
    cancel: async () => 'unknown',
  } as unknown as OwnState
  const logged: string[] = []
  const audit = { file: { path: '/audit.jsonl' }, stdout: false }
  const snapshot = { config: { audit, listen: LISTEN }, policy: { version: 'v1' } } as unknown as Snapshot
  const parts = {
    ...{ shared, current: () => snapshot, recorder: { accepting: true } as Recorder, metrics: createMetrics({}) },
    log: createLog({ level: 'error', destination: { write: (line: string) => void logged.push(line) } }),
    first: { snapshot, source: {}, locate: () => ({ file: '', line: 1, column: 1 }) },
  } as unknown as FrontParts
  return { parts, shared, minted, logged }
}

async function crewOf(count: number) {
  const forked: Played[] = []
  const made = partsOf()
  const crew: Front = openCrew(count, 'stage', made.parts, () => {
    const one = play(forked.length + 1)
    forked.push(one)
    return one
  })
  const address: ListenAddress = { kind: 'tcp', host: '127.0.0.1', port: 0 }
  await crew.listen(address)
  return { ...made, crew, forked, stop: () => crew.drain(0) }
}

test('what a dead worker sends behind the news of its end takes nothing', async () => {
  const { parts, shared, minted } = partsOf()
  const desk = createDesk(parts, createCredentialNumbers())
  const { ports } = portPair()
  createChannel<object, ToPrimary>(ports[0], desk.handlers, () => {})
  const worker = createChannel<ToPrimary, object>(ports[1], {}, () => {})
  const late = [
    worker.call('enter', { id: 1, address: '10.0.0.1' }),
    worker.call('acquire', { id: 1, principal: principalOf('1'), grant: grantOf() }),
  ]
  desk.clear()
  for (const one of late) await expect(one).rejects.toMatchObject({ code: 'draining' })
  expect([shared.admission.unauthenticated, shared.admission.sessions, minted]).toEqual([0, 0, []])
})

test('who is barred gets no credential by a worker that has not heard of it', async () => {
  const { crew, forked, shared, minted, stop } = await crewOf(2)
  forked[0]!.hangs = true
  const barred = principalOf('1')
  shared.bars.bar({ jobKey: barred.jobKey }, { user: 'ops', reason: 'stolen' }, 1)
  // It does not wait for the one that hangs.
  await crew.barred({ jobKey: barred.jobKey }, { user: 'ops', reason: 'stolen' }, 1)
  const asked = forked[0]!.asks.call('acquire', { id: 1, principal: barred, grant: grantOf() })
  await expect(asked).rejects.toMatchObject({ code: 'job_barred' })
  expect([shared.admission.sessions, minted]).toEqual([0, []])
  // Sessions of before are asked for behind the bar, and so none that comes in is missed.
  forked[0]!.hangs = false
  await crew.sessions()
  for (const { heard } of forked) expect(heard.slice(-2)).toEqual(['bar', 'sessions'])
  await stop()
})

test('a worker that hangs holds up no scrape and no cancel, and a reload only until it is replaced', async () => {
  const { crew, forked, stop } = await crewOf(2)
  forked[0]!.hangs = true
  const scraped = crew.metrics()
  const cancelled = crew.cancel({ processId: 64, key: Buffer.alloc(4) })
  await pass(3_000)
  expect(await scraped).toEqual([[], [{ name: 'of_2' }]])
  expect(await cancelled).toBe(false)
  const ended = crew.replaced({ verifier: { close() {} } } as never, { source: { version: 'new' } } as never)
  await pass(10_000)
  await pass(1_000)
  expect(await ended).toBe(1)
  expect([forked[0]!.killed, forked[1]!.killed]).toEqual([true, false])
  const [next] = forked.slice(2).flatMap(({ settings }) => settings ?? [])
  expect(next).toMatchObject({ worker: 1, source: { version: 'new' } })
  await stop()
})

test('a worker that hangs holds up no shutdown beyond the time of sessions', async () => {
  const { crew, forked } = await crewOf(2)
  forked[0]!.hangs = true
  let over = false
  const drained = crew.drain(2_000).then(() => {
    over = true
  })
  await pass(6_900)
  expect([over, forked[0]!.killed]).toEqual([false, false])
  await pass(200)
  expect([over, forked[0]!.killed]).toEqual([true, true])
  await drained
})

test('a worker without its channel is ended and replaced at once', async () => {
  const { forked, stop } = await crewOf(2)
  forked[0]!.disconnect()
  await pass(0)
  expect(forked[0]!.killed).toBe(true)
  expect(forked.slice(2).flatMap(({ settings }) => settings?.worker ?? [])).toEqual([1])
  await stop()
})

test('what is none of our messages costs the sender its answer, and the primary nothing', async () => {
  const { forked, logged, shared, stop } = await crewOf(2)
  for (const message of [undefined, null, 7, 'x', {}, [null], [[]], [['call']], [['result', 9]], [['error', 9]]])
    forked[0]!.send(message)
  for (const name of ['constructor', '__proto__', 'toString', 'none'])
    await expect(forked[0]!.asks.call(name as 'enter', undefined as never)).rejects.toMatchObject({
      code: 'internal_error',
    })
  await forked[0]!.asks.call('enter', { id: 1, address: '10.0.0.1' })
  await forked[1]!.asks.call('enter', { id: 1, address: '10.0.0.1' })
  expect(shared.admission.unauthenticated).toBe(2)
  expect(logged.length).toBeGreaterThan(0)
  await stop()
})

test('a primary that hangs keeps connections no longer than their deadline, and not more than may wait', async () => {
  const { ports } = portPair()
  const heard: string[] = []
  const handlers = {
    enter: ({ id }: { id: number }) => {
      heard.push(`enter ${id}`)
      return new Promise<void>(() => {})
    },
    leave: (id: number) => void heard.push(`leave ${id}`),
  }
  createChannel<object, ToPrimary>(ports[0], handlers as never, () => {})
  const primary = createChannel<ToPrimary, object>(ports[1], {}, () => {})
  const snapshot = { config: { listen: LISTEN } } as unknown as Snapshot
  const { admission } = createRemoteState(primary, createBars(), () => snapshot)
  const enter = async (): Promise<string> => {
    try {
      await admission.enter('10.0.0.1')
      return 'in'
    } catch (error) {
      return (error as { code: string }).code
    }
  }
  const all = Promise.all(Array.from({ length: 5 }, enter))
  await pass(15_000)
  expect(await all).toEqual(['draining', 'draining', 'draining', 'limit_sessions', 'limit_sessions'])
  // Where it goes on it has no more of them than there are.
  expect(heard).toEqual(['enter 1', 'enter 2', 'enter 3', 'leave 1', 'leave 2', 'leave 3'])
  const again = enter()
  await pass(15_000)
  expect(await again).toBe('draining')
})
