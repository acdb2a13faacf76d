import { expect, test } from 'vitest'
import { beforeDeadline } from '../../src/session/deadline.ts'

test('what comes in time is given on', async () => {
  const { signal } = new AbortController()
  await expect(beforeDeadline(Promise.resolve(7), signal, () => {})).resolves.toBe(7)
  await expect(beforeDeadline(Promise.reject(new Error('no')), signal, () => {})).rejects.toThrow('no')
})

test('what comes late is handed to the one who gives it back', async () => {
  const controller = new AbortController()
  const work = Promise.withResolvers<string>()
  const late = Promise.withResolvers<string>()
  const waiting = beforeDeadline(work.promise, controller.signal, late.resolve)
  controller.abort(new Error('too late'))
  await expect(waiting).rejects.toThrow('too late')
  work.resolve('lease')
  await expect(late.promise).resolves.toBe('lease')
  // And so where the signal had fired before.
  const again = Promise.withResolvers<string>()
  await expect(beforeDeadline(Promise.resolve('second'), controller.signal, again.resolve)).rejects.toThrow('too late')
  await expect(again.promise).resolves.toBe('second')
})
