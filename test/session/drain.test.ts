import { expect, test, vi } from 'vitest'
import { drainSessions } from '../../src/session/drain.ts'
import type { LiveSession, Registry } from '../../src/session/registry.ts'

test('a session that takes its time to close puts off no other’s end', async () => {
  const live = new Set<LiveSession>()
  const fake = (busy: boolean) => {
    const { promise: ended, resolve } = Promise.withResolvers<void>()
    const end = vi.fn()
    const session = { busy, ended, end } as unknown as LiveSession
    live.add(session)
    const close = (): void => {
      live.delete(session)
      resolve()
    }
    return { end, close }
  }
  const [idle, busy] = [fake(false), fake(true)]
  const registry = { all: () => [...live], size: 0 } as unknown as Registry
  Object.defineProperty(registry, 'size', { get: () => live.size })
  const drained = drainSessions(registry, 100)
  expect(idle.end).toHaveBeenCalledOnce()
  expect(busy.end).not.toHaveBeenCalled()
  await vi.waitUntil(() => busy.end.mock.calls.length > 0, { timeout: 20_000 })
  idle.close()
  busy.close()
  await drained
})
