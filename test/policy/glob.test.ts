import fc from 'fast-check'
import { expect, test } from 'vitest'
import { compileGlob, globProblem } from '../../src/policy/glob.ts'
import { cpuOf } from '../support/cpu-time.ts'

/** By definition: each character of the pattern is itself, and * is any run without / and :. Exponential, but right. */
function naiveMatch(pattern: string, value: string): boolean {
  if (pattern === '') return value === ''
  if (pattern[0] !== '*') return value !== '' && pattern[0] === value[0] && naiveMatch(pattern.slice(1), value.slice(1))
  if (naiveMatch(pattern.slice(1), value)) return true
  return value !== '' && value[0] !== '/' && value[0] !== ':' && naiveMatch(pattern, value.slice(1))
}

const PATTERN = fc.stringMatching(/^[ab*/:]{1,8}$/).filter((pattern) => globProblem(pattern) === undefined)
const VALUE = fc.stringMatching(/^[ab*/:]{0,10}$/)

test('a compiled glob matches what the definition says', () => {
  fc.assert(
    fc.property(PATTERN, VALUE, (pattern, value) => {
      expect(compileGlob(pattern)(value)).toBe(naiveMatch(pattern, value))
    }),
    { numRuns: 2_000 },
  )
})

test('a glob matches every value that is made from it, and no value with another number of separators', () => {
  fc.assert(
    fc.property(PATTERN, fc.stringMatching(/^[a-z.-]{0,5}$/), (pattern, inserted) => {
      const value = pattern.replaceAll('*', () => inserted)
      expect(compileGlob(pattern)(value)).toBe(true)
      for (const separator of ['/', ':']) expect(compileGlob(pattern)(value + separator)).toBe(false)
    }),
  )
})

test('a branch pattern never takes a pull request, a tag or a deeper branch', () => {
  const matches = compileGlob('refs/heads/release-*')
  expect(['refs/heads/release-1.2', 'refs/heads/release-'].filter(matches)).toHaveLength(2)
  const others = [
    'refs/heads/release',
    'refs/heads/release-1/x',
    'refs/tags/release-1',
    'refs/pull/1/merge',
    'xrefs/heads/release-1',
    'refs/heads/release-1:x',
  ]
  expect(others.filter(matches)).toEqual([])
})

test('invariant 39: time is linear in the value, whatever the pattern', async () => {
  const matches = compileGlob(`a*${'a'.repeat(50)}b`)
  expect(await cpuOf(() => expect(matches('a'.repeat(1_000_000))).toBe(false))).toBeLessThan(500)
})

test.each([
  ['*', /matches anything/],
  ['*/*:*', /matches anything/],
  ['refs/heads/main', /without \* is an equality/],
  ['refs/**', /\*\* is not known/],
  ['refs/heads/a*b*', /at most one \*/],
  ['refs/heads/v?*', /only \* is special/],
  ['refs/heads/[a]*', /only \* is special/],
])('%s is refused', (pattern, message) => {
  expect(globProblem(pattern)?.message).toMatch(message)
})
