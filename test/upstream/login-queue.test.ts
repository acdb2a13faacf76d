import { expect, test } from 'vitest'
import { createLoginQueue } from '../../src/upstream/login-queue.ts'

test('so many are let in at once, the others in their turn, each for one that left', async () => {
  const queue = createLoginQueue(2)
  const inside: number[] = []
  const leaves = new Map<number, () => void>()
  const enter = async (who: number): Promise<void> => {
    leaves.set(who, await queue.enter(undefined))
    inside.push(who)
  }
  const all = [1, 2, 3, 4].map(enter)
  await Promise.all(all.slice(0, 2))
  expect(inside).toEqual([1, 2])
  leaves.get(2)?.()
  // A place is given back once, however often it is said.
  leaves.get(2)?.()
  await all[2]
  expect(inside).toEqual([1, 2, 3])
  leaves.get(1)?.()
  await all[3]
  expect(inside).toEqual([1, 2, 3, 4])
})

test('who gives up while waiting is told why, and takes nobody the turn', async () => {
  const queue = createLoginQueue(1)
  const leave = await queue.enter(undefined)
  const patience = new AbortController()
  const impatient = queue.enter(patience.signal)
  const next = queue.enter(new AbortController().signal)
  patience.abort(new Error('too late'))
  await expect(impatient).rejects.toThrow('too late')
  await expect(queue.enter(patience.signal)).rejects.toThrow('too late')
  leave()
  const leaveNext = await next
  leaveNext()
  expect(await queue.enter(undefined)).toBeTypeOf('function')
})
