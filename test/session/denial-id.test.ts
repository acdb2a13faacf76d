import fc from 'fast-check'
import { expect, test } from 'vitest'
import { newDenialId, parseDenialId } from '../../src/session/denial.ts'

test.each([
  ['D-7Q2MK4', 'D-7Q2MK4'],
  ['d-7q2mk4', 'D-7Q2MK4'],
  ['7Q2MK4', 'D-7Q2MK4'],
  ['[D-7Q2MK4]', 'D-7Q2MK4'],
  [' D – 7Q2 MK4 ', 'D-7Q2MK4'],
  ['D7Q2MK4', 'D-7Q2MK4'],
  ['DQ2MK4', 'D-DQ2MK4'],
  ['D-DDDDDD', 'D-DDDDDD'],
  ['D-IL0OU2', 'D-1100V2'],
])('%j is %s', (typed, id) => {
  expect(parseDenialId(typed)).toBe(id)
})

test.each(['', 'D-', 'D-7Q2MK', 'D-7Q2MK45', 'E-7Q2MK4', 'D-7Q2MK!', 'no_matching_rule'])('%j is no id', (typed) => {
  expect(parseDenialId(typed)).toBeUndefined()
})

test('every id is found again as it may be typed', () => {
  const misread: Readonly<Record<string, readonly string[]>> = { '0': ['O', 'o'], '1': ['I', 'L', 'i', 'l'] }
  const typings = fc.array(fc.nat(), { minLength: 6, maxLength: 6 })
  fc.assert(
    fc.property(typings, fc.boolean(), (choices, prefix) => {
      const id = newDenialId()
      const typed = [...id.slice(2)].map((letter, index) => {
        const ways = [letter, letter.toLowerCase(), ...(misread[letter] ?? [])]
        return ways[(choices[index] ?? 0) % ways.length]
      })
      expect(parseDenialId(`${prefix ? 'd-' : ''}${typed.join('')}`)).toBe(id)
    }),
  )
})
