import fc from 'fast-check'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { stampText, timeWriter, uuidv7Writer, wallClock } from '../../src/audit/clock.ts'

afterEach(() => void vi.restoreAllMocks())

describe('time', () => {
  test('is RFC 3339 in UTC with microseconds, in any order of calls', () => {
    const format = stampText(timeWriter())
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 4_000_000_000_000 }), fc.integer({ min: 0, max: 999 }), (ms, micros) => {
        const expected = `${new Date(ms).toISOString().slice(0, -1)}${String(micros).padStart(3, '0')}Z`
        // Above 2^41 ms a double has no room for exact microseconds: within one of them.
        const got = format(ms + (micros + 0.5) / 1_000)
        expect(got).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
        expect(got.slice(0, 23)).toBe(expected.slice(0, 23))
        expect(Math.abs(Number(got.slice(23, 26)) - micros)).toBeLessThanOrEqual(1)
      }),
    )
  })

  test('follows the wall clock', () => {
    // The best of some: this thread may be left waiting between any two of the readings.
    const differences = Array.from({ length: 10 }, () => Math.abs(wallClock()() - Date.now()))
    expect(Math.min(...differences)).toBeLessThan(20)
  })

  test('is not put wrong where the thread is left waiting as it looks at the clock', () => {
    let tick = Math.ceil(performance.now())
    let wall = Math.ceil(performance.timeOrigin) + tick
    let waits = 0
    const pass = (ms: number): void => {
      tick += ms
      wall += ms
    }
    vi.spyOn(performance, 'now').mockImplementation(() => tick)
    vi.spyOn(Date, 'now').mockImplementation(() => {
      if (waits > 0) pass(100)
      const now = wall
      if (waits-- > 0) pass(100)
      return now
    })
    const now = wallClock()
    for (const late of [2, 0, 1, 0, 3, 0]) {
      waits = late
      const before = wall
      expect(now()).toBeGreaterThan(before - 1)
      expect(now()).toBeLessThan(wall + 1)
      pass(1_500)
    }
    // Set by an hour, each way.
    for (const change of [3_600_000, -3_600_000]) {
      wall += change
      pass(1_500)
      expect(now()).toBe(wall)
    }
  })
})

describe('event ids', () => {
  test('are UUIDv7 and strictly increasing, also when the clock stands still or goes back', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1_700_000_000_000, max: 1_700_000_000_003 }), { maxLength: 300 }),
        (times) => {
          const next = stampText(uuidv7Writer())
          let before = ''
          for (const time of times) {
            const id = next(time)
            expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
            expect(id > before).toBe(true)
            before = id
          }
        },
      ),
    )
  })

  test('begin with the milliseconds since the epoch', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 47 }), (ms) => {
        const id = stampText(uuidv7Writer())(ms)
        expect(Number.parseInt(id.replace('-', '').slice(0, 12), 16)).toBe(ms)
      }),
    )
  })

  test('increase through more than a millisecond can number', () => {
    const next = stampText(uuidv7Writer())
    const ids = Array.from({ length: 20_000 }, () => next(1_700_000_000_000))
    expect(ids).toEqual([...ids].sort())
    expect(new Set(ids).size).toBe(ids.length)
  })
})
