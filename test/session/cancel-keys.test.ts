import { expect, test } from 'vitest'
import { createCancelKeys } from '../../src/session/cancel-keys.ts'

test('invariant 18: a key opens its own session and no other, and none once it is forgotten', () => {
  const keys = createCancelKeys<string>()
  const one = keys.issue('one', 0)
  const two = keys.issue('two', 2)
  expect(one.key.length).toBe(4)
  expect(two.key.length).toBe(32)
  expect(keys.find('10.0.0.1', one)).toEqual({ session: 'one' })
  expect(keys.find('10.0.0.1', two)).toEqual({ session: 'two' })
  expect(keys.find('10.0.0.1', { processId: one.processId, key: two.key })).toEqual({ refused: 'unknown' })
  expect(keys.find('10.0.0.1', { processId: one.processId, key: Buffer.alloc(4) })).toEqual({ refused: 'unknown' })
  one.forget()
  expect(keys.find('10.0.0.1', one)).toEqual({ refused: 'unknown' })
})

test('invariant 18: an address that guesses is ignored for a while, others are not', () => {
  let now = 0
  const keys = createCancelKeys<string>(() => now)
  const real = keys.issue('session', 2)
  for (let i = 0; i < 20; i++)
    expect(keys.find('evil', { processId: i, key: Buffer.alloc(32) })).toEqual({ refused: 'unknown' })
  expect(keys.find('evil', real)).toEqual({ refused: 'too_many' })
  expect(keys.find('good', real)).toEqual({ session: 'session' })
  now += 60_000
  expect(keys.find('evil', real)).toEqual({ session: 'session' })
})
