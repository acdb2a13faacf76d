import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { jsonString, jsonStringWithin, jsonValue } from '../../src/audit/json.ts'
import { anyText } from './support.ts'

const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]/

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

  test('hold no control, bidi control or line separator, and no lone surrogate', () => {
    fc.assert(
      fc.property(
        anyText,
        (text) => void expect(jsonString(text).replace(/[\ud800-\udbff][\udc00-\udfff]/g, '')).not.toMatch(UNSAFE),
      ),
    )
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
