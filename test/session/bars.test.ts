import fc from 'fast-check'
import { expect, test } from 'vitest'
import { AccessError } from '../../src/errors.ts'
import type { Principal } from '../../src/identity/principal.ts'
import { type Bars, createBars } from '../../src/session/bars.ts'
import { principalOf } from '../support/mint.ts'

const HOUR = 3_600_000
const WHY = { user: 'dana', reason: 'its token was in a public log' }

function job(run: string, runUrl?: string): Principal {
  const principal = principalOf(run)
  return runUrl === undefined ? principal : { ...principal, job: { ...principal.job, runUrl } }
}

function refusal(bars: Bars, principal: Principal): string | undefined {
  try {
    bars.refuse(principal)
    return undefined
  } catch (error) {
    return error instanceof AccessError ? error.message : String(error)
  }
}

test('a barred job is told by whom and why, others are let in', () => {
  const bars = createBars(() => 0)
  bars.bar({ jobKey: job('1').jobKey }, WHY, HOUR)
  expect(refusal(bars, job('1'))).toBe('the operator (dana) has ended this job: its token was in a public log')
  expect(refusal(bars, job('2'))).toBeUndefined()
})

test.each([
  ['the attempt as it is', 'https://github.com/acme/shop/actions/runs/1/attempts/2', true],
  ['the run without its attempt', 'https://github.com/acme/shop/actions/runs/1', true],
  ['a job of the run', 'https://github.com/acme/shop/actions/runs/1/job/55?pr=3', true],
  ['the run with a slash', 'https://github.com/acme/shop/actions/runs/1/', true],
  ['another attempt', 'https://github.com/acme/shop/actions/runs/1/attempts/1', false],
  ['another run that begins alike', 'https://github.com/acme/shop/actions/runs/11', false],
])('a run is barred by %s', (_name, runUrl, barred) => {
  const bars = createBars(() => 0)
  bars.bar({ runUrl }, WHY, HOUR)
  const found = refusal(bars, job('1', 'https://github.com/acme/shop/actions/runs/1/attempts/2'))
  expect(found !== undefined).toBe(barred)
})

test("a Buildkite build is barred by its URL with or without a job of it, a Jenkins build with or without its URL's slash", () => {
  const bars = createBars(() => 0)
  bars.bar({ runUrl: 'https://buildkite.com/acme/shop/builds/7#one' }, WHY, HOUR)
  bars.bar({ runUrl: 'https://ci.acme.example/job/shop/7' }, WHY, HOUR)
  expect(refusal(bars, job('1', 'https://buildkite.com/acme/shop/builds/7#other'))).toBeDefined()
  expect(refusal(bars, job('1', 'https://ci.acme.example/job/shop/7/'))).toBeDefined()
  expect(refusal(bars, job('1', 'https://ci.acme.example/job/shop/71/'))).toBeUndefined()
})

test('a bar lasts a day at least, as long as anything can be good, and as long as the job keeps trying', () => {
  let now = 0
  const bars = createBars(() => now)
  bars.bar({ jobKey: job('short').jobKey }, WHY, HOUR)
  bars.bar({ jobKey: job('long').jobKey }, WHY, 30 * HOUR)
  now = 24 * HOUR - 1
  expect(refusal(bars, job('short'))).toBeDefined()
  now = 30 * HOUR - 1
  expect(refusal(bars, job('long'))).toBeDefined()
  now = 48 * HOUR - 2
  expect(refusal(bars, job('short'))).toBeDefined()
  now = 73 * HOUR
  expect(refusal(bars, job('short'))).toBeUndefined()
  expect(refusal(bars, job('long'))).toBeUndefined()
  expect(bars.size).toBe(0)
})

test('memory is bounded: what is over goes first, then the oldest', () => {
  const steps = fc.array(fc.record({ run: fc.nat(20), hours: fc.nat(10) }), { maxLength: 60, size: 'max' })
  fc.assert(
    fc.property(steps, (all) => {
      let now = 0
      const bars = createBars(() => now, 8)
      const made = new Map<number, number>()
      for (const { run, hours } of all) {
        now += hours * HOUR
        bars.bar({ jobKey: job(String(run)).jobKey }, WHY, HOUR)
        made.delete(run)
        made.set(run, now)
        expect(bars.size).toBeLessThanOrEqual(8)
        const newest = [...made].filter(([, at]) => now < at + 24 * HOUR).slice(-8)
        expect(newest.filter(([one]) => refusal(bars, job(String(one))) === undefined)).toEqual([])
        // Each of them has just been renewed by trying.
        for (const [one] of newest) made.set(one, now)
      }
    }),
    { numRuns: 200 },
  )
})
