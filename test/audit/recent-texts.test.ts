import fc from 'fast-check'
import { expect, test } from 'vitest'
import { recentTexts } from '../../src/audit/recent-texts.ts'

test('a text that comes again is told from one that came once, and has what was put with it', () => {
  const recent = recentTexts<number>()
  const first = 'select 1 where id = 7'
  expect(recent.get(first)).toBeUndefined()
  recent.put(first, 1)
  recent.put('select 2', 2)
  expect(recent.get(first)).toMatchObject({ value: 1, uses: 2 })
  expect(recent.get(first)?.uses).toBe(3)
  expect(recent.get('select 1 where id = 8')).toBeUndefined()
})

test('never gives what belongs to another text, and a long text is not held', () => {
  const recent = recentTexts<string>()
  const text = fc.oneof(
    fc.string(),
    fc.nat({ max: 5_000 }).map((n) => `select ${n}`),
  )
  fc.assert(
    fc.property(fc.array(text, { maxLength: 50 }), (texts) => {
      for (const each of texts) {
        recent.put(each, `of ${each}`)
        for (const other of texts) expect(recent.get(other)?.value ?? `of ${other}`).toBe(`of ${other}`)
      }
    }),
  )
  expect(recent.put('x'.repeat(3_000), 'long')).toBe(false)
  expect(recent.get('x'.repeat(3_000))).toBeUndefined()
})
