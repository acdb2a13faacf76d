import { expect, test } from 'vitest'
import { createCancelDesk, createKeyTable, PLACES, placeOf } from '../../src/session/cancel-keys.ts'

test('invariant 18: a key opens its own session and no other, and none once it is forgotten', () => {
  const keys = createKeyTable<string>()
  const one = keys.issue('one', 0)
  const two = keys.issue('two', 2)
  expect(one.key.length).toBe(4)
  expect(two.key.length).toBe(32)
  expect(keys.find(one)).toBe('one')
  expect(keys.find(two)).toBe('two')
  expect(keys.find({ processId: one.processId, key: two.key })).toBeUndefined()
  expect(keys.find({ processId: one.processId, key: Buffer.alloc(4) })).toBeUndefined()
  one.forget()
  expect(keys.find(one)).toBeUndefined()
})

test('a process id says which process has the key, and fits into 31 bits', () => {
  for (const place of [0, 1, PLACES - 1]) {
    const keys = createKeyTable<string>(place)
    for (let i = 0; i < 200; i++) {
      const { processId } = keys.issue('session', 0)
      expect(placeOf(processId)).toBe(place)
      expect(processId > 0 && processId <= 0x7fffffff).toBe(true)
    }
  }
  // What a client makes up has a place too, which nobody may have.
  expect(placeOf(-1)).toBe(PLACES - 1)
})

test('invariant 18: an address that guesses is ignored for a while, others are not', async () => {
  let now = 0
  const keys = createKeyTable<string>()
  const real = keys.issue('session', 2)
  const ask = createCancelDesk(
    async (request) => keys.find(request) !== undefined,
    () => now,
  )
  for (let i = 0; i < 20; i++) expect(await ask('evil', { processId: i, key: Buffer.alloc(32) })).toBe('unknown')
  expect(await ask('evil', real)).toBe('too_many')
  expect(await ask('good', real)).toBe('cancelled')
  now += 60_000
  expect(await ask('evil', real)).toBe('cancelled')
})
