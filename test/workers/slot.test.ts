/** A worker that ends, that does not begin, and that does not answer, with processes that the test plays. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { FrontParts } from '../../src/session/front.ts'
import { createLog } from '../../src/telemetry/log.ts'
import { createChannel } from '../../src/workers/channel.ts'
import { createCredentialNumbers } from '../../src/workers/desk.ts'
import type { ToPrimary, ToWorker, WorkerSettings } from '../../src/workers/protocol.ts'
import { createSlot, type WorkerProcess } from '../../src/workers/slot.ts'
import { createSpare } from '../../src/workers/spare.ts'
import { portPair } from './ports.ts'

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'performance'] })
})
afterEach(() => {
  vi.useRealTimers()
})

interface Played extends WorkerProcess {
  end(how: string): void
  silent: boolean
  opened: number
}

function played() {
  const forked: Played[] = []
  let refuses = false
  const fork = (): Played => {
    const { ports, cut } = portPair()
    const exited = Promise.withResolvers<string>()
    const end = (how: string): void => {
      cut()
      exited.resolve(how)
    }
    const one: Played = {
      pid: forked.length + 1,
      port: ports[0],
      exited: exited.promise,
      silent: false,
      opened: 0,
      end,
      kill: () => end('SIGKILL'),
    }
    const handlers = {
      open() {
        if (refuses) throw new Error('no disk')
        one.opened++
      },
      ping: () => (one.silent ? new Promise<void>(() => {}) : undefined),
      replace: () => 3,
      drain: () => end('exit code 0'),
    }
    createChannel<ToPrimary, ToWorker>(ports[1], handlers as never, () => {})
    forked.push(one)
    return one
  }
  const refuse = (value: boolean): void => {
    refuses = value
  }
  return { forked, fork, refuse }
}

function stage() {
  const { forked, fork, refuse } = played()
  const log = createLog({ level: 'error', destination: { write: () => {} } })
  const parts = { log, shared: {}, current: () => ({}) } as unknown as FrontParts
  const settings = () => ({ worker: 1 }) as WorkerSettings
  const slot = createSlot(1, { parts, numbers: createCredentialNumbers(), fork, settings })
  return { slot, forked, refuse }
}

const settled = async (): Promise<void> => {
  for (let turn = 0; turn < 12; turn++) await new Promise((resolve) => setImmediate(resolve))
}

async function pass(milliseconds: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(milliseconds)
  await settled()
}

test('the first that cannot begin keeps all from it', async () => {
  const { slot, refuse } = stage()
  refuse(true)
  await expect(slot.start()).rejects.toMatchObject({ code: 'internal_error' })
  expect(slot.isOpen).toBe(false)
})

test('one that ends is replaced at once; one that ends again and again, after longer and longer times up to 10 s', async () => {
  const { slot, forked } = stage()
  await slot.start()
  expect(slot.isOpen).toBe(true)
  forked[0]!.end('SIGKILL')
  await pass(0)
  expect([forked.length, slot.isOpen]).toEqual([2, true])
  for (const wait of [250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]) {
    const before = forked.length
    forked.at(-1)!.end('exit code 1')
    await pass(wait - 1)
    expect(forked.length).toBe(before)
    await pass(1)
    expect([forked.length, slot.isOpen]).toEqual([before + 1, true])
  }
  // One that lasted is no sign of a fault that lasts.
  await pass(30_000)
  const before = forked.length
  forked.at(-1)!.end('SIGKILL')
  await pass(0)
  expect(forked.length).toBe(before + 1)
})

test('one that cannot begin later is tried again', async () => {
  const { slot, forked, refuse } = stage()
  await slot.start()
  refuse(true)
  forked[0]!.end('SIGKILL')
  await pass(0)
  expect(slot.isOpen).toBe(false)
  await pass(250)
  refuse(false)
  await pass(500)
  expect(slot.isOpen).toBe(true)
})

test('one that answers no more is ended after half a minute, and one that answers is not', async () => {
  const { slot, forked } = stage()
  await slot.start()
  for (let i = 0; i < 20; i++) await pass(5_000)
  expect(forked).toHaveLength(1)
  forked[0]!.silent = true
  for (let i = 0; i < 5; i++) await pass(5_000)
  expect(forked).toHaveLength(1)
  for (let i = 0; i < 3; i++) await pass(5_000)
  expect([forked.length, slot.isOpen]).toEqual([2, true])
})

test('what is stopped is not replaced, and what is about to be started never is', async () => {
  const { slot, forked } = stage()
  await slot.start()
  await slot.stop(1_000)
  await pass(60_000)
  expect([forked.length, slot.isOpen]).toEqual([1, false])
  const other = stage()
  await other.slot.start()
  other.forked[0]!.end('SIGKILL')
  await settled()
  await other.slot.stop(1_000)
  await pass(60_000)
  expect(other.forked).toHaveLength(1)
})

test('a reload while one is being opened: it is ended, and the next begins with the new configuration', async () => {
  const { slot, forked } = stage()
  const starting = slot.start().catch((error: Error) => error.message)
  expect(await slot.replace({} as never)).toBe(0)
  expect(await starting).toBe('worker 1 ended before it listened: SIGKILL')
  await pass(0)
  expect([forked.length, slot.isOpen]).toEqual([2, true])
  expect(await slot.replace({} as never)).toBe(3)
})

test('one waits for the next that dies, and another for the one after; it ends with the rest', async () => {
  const { forked, fork } = played()
  const spare = createSpare(fork)
  expect([spare.fork(), spare.fork()]).toEqual([forked[0], forked[1]])
  await pass(60_000)
  expect(forked).toHaveLength(2)
  spare.keep()
  await pass(2_000)
  expect(forked).toHaveLength(3)
  expect(spare.fork()).toBe(forked[2])
  // Two at once: the second has to load.
  expect(spare.fork()).toBe(forked[3])
  await pass(2_000)
  expect(forked).toHaveLength(5)
  forked[4]!.end('SIGKILL')
  await pass(2_000)
  expect(forked).toHaveLength(6)
  spare.close()
  expect(await forked[5]!.exited).toBe('SIGKILL')
  await pass(60_000)
  expect(forked).toHaveLength(6)
})
