import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { putAscii, putBytes, putDigits, putInteger, putSeconds } from '../../src/audit/line-bytes.ts'

/** What `put` writes at a place in the middle; nothing before it or behind what it says is touched. */
function written(put: (into: Uint8Array, at: number) => number): string {
  const into = Buffer.alloc(400, 0x2a)
  const end = put(into, 7)
  expect(into.toString('latin1', 0, 7)).toBe('*******')
  expect(into.toString('latin1', end)).toBe('*'.repeat(400 - end))
  return into.toString('latin1', 7, end)
}

describe('what is written straight into a line', () => {
  test('integers are decimal, whatever their size', () => {
    const integer = fc.oneof(
      fc.nat({ max: 2_000 }),
      fc.maxSafeNat(),
      fc.maxSafeInteger(),
      fc.integer({ min: 0, max: 15 }).map((power) => 10 ** power),
      fc.integer({ min: 1, max: 15 }).map((power) => 10 ** power - 1),
    )
    fc.assert(
      fc.property(integer, (value) => {
        expect(written((into, at) => putInteger(into, at, value))).toBe(String(value))
      }),
    )
  })

  test('digits have zeros in front', () => {
    fc.assert(
      fc.property(fc.nat({ max: 999_999 }), (value) => {
        expect(written((into, at) => putDigits(into, at, value, 6))).toBe(String(value).padStart(6, '0'))
      }),
    )
  })

  test('durations are seconds as JSON numbers', () => {
    fc.assert(
      fc.property(fc.double({ min: -10, max: 1e8, noNaN: true }), (ms) => {
        const json = written((into, at) => putSeconds(into, at, ms))
        expect(JSON.parse(json)).toBeCloseTo(Math.max(0, ms) / 1_000, 6)
      }),
    )
  })

  test('bytes and ASCII are copied, short and long', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.stringMatching(/^[ -~]{0,80}$/), (bytes, text) => {
        expect(written((into, at) => putBytes(into, at, bytes))).toBe(Buffer.from(bytes).toString('latin1'))
        expect(written((into, at) => putAscii(into, at, text))).toBe(text)
      }),
    )
  })
})
