import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { jsonString, jsonStringWithin, jsonValue } from '../../src/audit/json.ts'
import { anyText } from './support.ts'

/** Inclusive ranges of code points: controls, zero-width, separators and bidi controls, lone surrogates. */
const UNSAFE = [
  [0, 0x1f],
  [0x7f, 0x9f],
  [0x200b, 0x200f],
  [0x2028, 0x202e],
  [0x2060, 0x2069],
  [0xfeff, 0xfeff],
  [0xd800, 0xdfff],
] as const

const unsafeIn = (text: string): string[] =>
  [...text].filter((c) => UNSAFE.some(([from, to]) => (c.codePointAt(0) ?? 0) >= from && (c.codePointAt(0) ?? 0) <= to))

describe('JSON strings', () => {
  test('read back as they were, for any text', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        const json = jsonString(text)
        expect(JSON.parse(json)).toBe(text)
        // What Buffer writes is what a reader gets: no replacement characters.
        expect(JSON.parse(Buffer.from(json).toString())).toBe(text)
      }),
    )
  })

  test('invariant 37: hold no control, bidi control or line separator, and no lone surrogate', () => {
    fc.assert(fc.property(anyText, (text) => void expect(unsafeIn(jsonString(text))).toEqual([])))
  })

  test('are those of JSON.stringify where there is nothing unsafe', () => {
    fc.assert(fc.property(fc.string(), (text) => void expect(jsonString(text)).toBe(JSON.stringify(text))))
  })

  test('any value reads back as with JSON.stringify', () => {
    fc.assert(
      fc.property(fc.jsonValue(), anyText, (value, key) => {
        const object = { [key]: value, missing: undefined }
        expect(JSON.parse(jsonValue(object))).toEqual(JSON.parse(JSON.stringify(object)))
      }),
    )
    expect(jsonValue({ id: 2n ** 60n, none: undefined })).toBe('{"id":"1152921504606846976"}')
  })

  test('are cut to a budget of bytes, as the longest prefix or nearly', () => {
    fc.assert(
      fc.property(anyText, fc.integer({ min: 2, max: 60 }), (text, budget) => {
        const { json, cut } = jsonStringWithin(text, budget)
        expect(Buffer.byteLength(json)).toBeLessThanOrEqual(budget)
        const kept = JSON.parse(json) as string
        expect(text.startsWith(kept)).toBe(true)
        expect(cut).toBe(kept !== text)
      }),
    )
    expect(jsonStringWithin('x'.repeat(100), 12)).toEqual({ json: '"xxxxxxxxxx"', cut: true })
    expect(jsonStringWithin('x😀', 6)).toEqual({ json: '"x"', cut: true })
  })
})
