import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseStrictJson, parseStrictObject } from '../../src/identity/strict-json.ts'

/** JSON with whole safe numbers, which the strict parser must read as JSON.parse does. */
const value = fc.letrec((tie) => ({
  any: fc.oneof(
    { maxDepth: 4 },
    fc.string({ unit: 'binary' }),
    fc.maxSafeInteger(),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie('any'), { maxLength: 5 }),
    fc.dictionary(fc.string({ unit: 'binary' }), tie('any'), { maxKeys: 5 }),
  ),
})).any

describe('strict JSON', () => {
  test('reads what has unique keys and whole numbers as JSON.parse does, in any layout', () => {
    fc.assert(
      fc.property(value, fc.constantFrom(0, 1, '\t'), (input, indent) => {
        const text = JSON.stringify(input, null, indent)
        expect(parseStrictJson(text)).toEqual(JSON.parse(text))
      }),
    )
  })

  test('refuses whatever JSON.parse refuses', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom(...'{}[]":,\\u0123456789.eE+- truefalsn'), maxLength: 20 }),
        (text) => {
          let valid = true
          try {
            JSON.parse(text)
          } catch {
            valid = false
          }
          if (!valid) expect(() => parseStrictJson(text)).toThrow(SyntaxError)
        },
      ),
      { numRuns: 500 },
    )
  })

  test('refuses a repeated key at any depth and in any spelling', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1 }), value, value, fc.nat(5), (key, one, two, depth) => {
        const escaped = [...Buffer.from(key, 'utf16le').swap16().toString('hex').matchAll(/..../g)].map(
          ([hex]) => `\\u${hex}`,
        )
        const inner = `{${JSON.stringify(key)}:${JSON.stringify(one)},"${escaped.join('')}":${JSON.stringify(two)}}`
        const text = `${'{"a":['.repeat(depth)}${inner}${']}'.repeat(depth)}`
        expect(() => parseStrictJson(text)).toThrow('a key occurs twice')
      }),
    )
  })

  test('the same key in two objects is no repetition', () => {
    expect(parseStrictJson('[{"a":{"a":1}},{"a":"{\\"a\\":1,\\"a\\":2}"}]')).toEqual([
      { a: { a: 1 } },
      { a: '{"a":1,"a":2}' },
    ])
  })

  test('integers beyond 2^53 keep every digit, as text', () => {
    fc.assert(
      fc.property(fc.bigInt(), (number) => {
        const exact = parseStrictJson(String(number))
        expect(BigInt(exact as string | number)).toBe(number)
        expect(typeof exact).toBe(Number.isSafeInteger(Number(number)) ? 'number' : 'string')
      }),
    )
    expect(parseStrictJson('9007199254740993')).toBe('9007199254740993')
  })

  test.each(['1.0', '1e3', '-0.5', '1E400', '{"exp":1790000000.5}', '[1e2]'])(
    'refuses the fraction or exponent %s',
    (text) => {
      expect(() => parseStrictJson(text)).toThrow(SyntaxError)
    },
  )

  test('a key named __proto__ is a key like any other', () => {
    const parsed = parseStrictObject('{"__proto__":{"admin":"yes"}}')
    expect(Object.keys(parsed)).toEqual(['__proto__'])
    expect(parsed['admin']).toBeUndefined()
    expect(() => parseStrictJson('{"__proto__":1,"__proto__":2}')).toThrow('a key occurs twice')
  })

  test('invariant 39: depth is bounded, also for texts that would overflow a recursive reader', () => {
    expect(() => parseStrictJson('['.repeat(60_000))).toThrow('nested deeper than 32')
    expect(parseStrictJson(`${'['.repeat(32)}${']'.repeat(32)}`)).toBeDefined()
  })

  test('invariant 39: the number of values is bounded', () => {
    const list = (length: number) => JSON.stringify(Array.from({ length }, () => 1))
    expect(parseStrictJson(list(2_000))).toHaveLength(2_000)
    expect(() => parseStrictJson(list(2_001))).toThrow('more than 2000')
    expect(parseStrictJson(JSON.stringify({ text: ','.repeat(10_000) }))).toBeDefined()
  })

  test.each(['[]', '"text"', '1', 'null'])('%s is not an object', (text) => {
    expect(() => parseStrictObject(text)).toThrow('not a JSON object')
  })
})
