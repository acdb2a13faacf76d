import fc from 'fast-check'
import { expect, test } from 'vitest'
import { didYouMean, editDistance, suggestion } from '../../src/config/suggest.ts'
import { cpuOf } from '../support/cpu-time.ts'

/** The textbook definition, by recursion: too slow for anything but short words. */
function naiveDistance(a: string, b: string): number {
  if (a === '' || b === '') return a.length + b.length
  const change = a.at(-1) === b.at(-1) ? 0 : 1
  let best = Math.min(
    naiveDistance(a.slice(0, -1), b) + 1,
    naiveDistance(a, b.slice(0, -1)) + 1,
    naiveDistance(a.slice(0, -1), b.slice(0, -1)) + change,
  )
  if (a.length > 1 && b.length > 1 && a.at(-1) === b.at(-2) && a.at(-2) === b.at(-1)) {
    best = Math.min(best, naiveDistance(a.slice(0, -2), b.slice(0, -2)) + 1)
  }
  return best
}

const WORD = fc.stringMatching(/^[abc]{0,6}$/)

test('the distance is the naive one, cut at the limit', () => {
  fc.assert(
    fc.property(WORD, WORD, fc.integer({ min: 0, max: 7 }), (a, b, limit) => {
      expect(editDistance(a, b, limit)).toBe(Math.min(naiveDistance(a, b), limit + 1))
    }),
  )
})

test('the nearest known word is suggested, and nothing for a far one', () => {
  const keys = ['max_session', 'max_connections', 'role', 'database']
  expect(didYouMean('max_sesion', keys)).toBe('max_session')
  expect(didYouMean('max-Session', keys)).toBe('max_session')
  expect(didYouMean('rloe', keys)).toBe('role')
  expect(didYouMean('timeout', keys)).toBeUndefined()
  expect(didYouMean('', keys)).toBeUndefined()
})

test('a long word costs no more than a short one', async () => {
  const word = 'a'.repeat(1_000_000)
  expect(await cpuOf(() => expect(didYouMean(word, [`${word}b`, 'role'])).toBeUndefined())).toBeLessThan(500)
})

test('without a near word the known ones are listed, if they are few', () => {
  expect(suggestion('zzzzzz', ['b', 'a'], 'known keys')).toBe('known keys: a, b')
  expect(suggestion('zzzzzz', [], 'known keys')).toBeUndefined()
})
