/** A few cases of each part of `npm run fuzz`, so that it runs when it is wanted, and finds at once what is broken at large. */
import { expect, test } from 'vitest'
import { mutateFrames } from '../fuzz/mutate.ts'
import { PARSERS } from '../fuzz/parsers.ts'
import { type Budget, playCases } from '../fuzz/part.ts'
import { fuzzPolicies } from '../fuzz/policies.ts'
import { createRandom } from '../fuzz/random.ts'
import { RECORDED } from '../fuzz/recordings.ts'
import { fuzzSessions } from '../fuzz/sessions.ts'

const budget = (count: number): Budget => ({ seed: 1, count, deadline: performance.now() + 10_000, only: undefined })

test('damaged sessions, in pieces down to single bytes', async () => {
  const { violations, figures } = await fuzzSessions(budget(10_000))
  expect(violations).toEqual([])
  expect(figures['frames from clients']).toBeGreaterThan(0)
})

test.each(Object.keys(PARSERS))('damaged input: %s', async (part) => {
  const { violations, cases } = await PARSERS[part]!(budget(3_000))
  expect(violations).toEqual([])
  expect(cases).toBeGreaterThan(0)
})

test('damaged policies', async () => {
  expect((await fuzzPolicies(budget(3_000))).violations).toEqual([])
})

test('a case that fails is told with its seed, its number and what it was given', async () => {
  const play = (_random: unknown, input: (text: string) => void): void => {
    input('given')
    throw new Error('broken')
  }
  const { violations, cases } = await playCases('example', budget(1), (done) => done === 2, play)
  expect(cases).toBe(2)
  expect(violations[1]).toContain('npm run fuzz -- --only example --seed 1 --case 1')
  expect(violations[1]).toContain(Buffer.from('given').toString('base64'))
})

test('the same seed gives the same damage, and another one another', () => {
  const [recorded] = RECORDED
  const { up } = recorded!.session
  const damaged = (seed: number): string =>
    Buffer.concat([1, 2, 3, 4].flatMap((index) => mutateFrames(createRandom(seed, index), up, up))).toString('hex')
  expect(damaged(5)).toBe(damaged(5))
  expect(damaged(5)).not.toBe(damaged(6))
})
