// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the variables of our configuration look like that
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { diagnostic, formatDiagnostic, formatDiagnostics, sortDiagnostics } from '../../src/config/diagnostics.ts'
import { quote, quoteList } from '../../src/config/quote.ts'

const at = (line: number, column: number, sourceLine: string, length = 1) => ({
  file: 'p.yaml',
  line,
  column,
  length,
  sourceLine,
})

test('a diagnostic is shown as file:line:column, the line, a caret and a hint', () => {
  const one = diagnostic('error', at(7, 5, '    rool: x', 4), 'unknown key "rool"', 'did you mean "role"?')
  expect(formatDiagnostic(one)).toBe(
    [
      'p.yaml:7:5: error: unknown key "rool"',
      '    7 |     rool: x',
      '      |     ^^^^',
      '      = hint: did you mean "role"?',
    ].join('\n'),
  )
})

test('the caret stands under its column behind tabs, and in a long line', () => {
  expect(formatDiagnostic(diagnostic('error', at(1, 3, '\t\tx'), 'm')).split('\n')[2]).toBe('      | \t\t^')
  const long = `${'a'.repeat(500)}X${'b'.repeat(500)}`
  const [, line = '', caret = ''] = formatDiagnostic(diagnostic('error', at(1, 501, long), 'm')).split('\n')
  expect(line[caret.indexOf('^')]).toBe('X')
  expect(line.length).toBeLessThan(200)
})

test('a literal password in the offending line is not shown, a variable is', () => {
  for (const line of [
    'admin: { pasword: "hunter2", user: 3 }',
    "password: 'hunter2'",
    '  password: hunter2',
    'password: "hun\\"ter2"',
    'password: ${PW:-hunter2}',
    'admin: { password: "${PW:-hunter2}", user: 3 }',
  ]) {
    const text = formatDiagnostic(diagnostic('error', at(1, 1, line), 'm'))
    expect(text).not.toMatch(/hunter2|ter2/)
  }
  expect(formatDiagnostic(diagnostic('error', at(1, 1, 'password: ${PW}'), 'm'))).toContain('${PW}')
})

test('they are sorted by file and position, equal ones stand once, and they are counted', () => {
  const inFile = (file: string, line: number, column: number) =>
    diagnostic('error', { file, line, column, length: 1, sourceLine: undefined }, 'm')
  const sorted = sortDiagnostics(
    [inFile('b', 1, 1), inFile('a', 2, 1), inFile('a', 1, 9), inFile('a', 1, 2), inFile('a', 1, 2)],
    ['b', 'a'],
  )
  expect(sorted.map(({ file, line, column }) => `${file}${line}${column}`)).toEqual(['b11', 'a12', 'a19', 'a21'])
  expect(formatDiagnostics([inFile('a', 1, 1), { ...inFile('a', 1, 2), level: 'warning' }])).toMatch(
    /1 error, 1 warning\n$/,
  )
})

test('a quoted value is one line without control characters, whatever is in it', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 400 }), (value) => {
      const shown = quote(value)
      // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not be there
      expect(shown).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069\ufeff]/)
      expect(shown.isWellFormed()).toBe(true)
      expect(shown).toMatch(/^".*"$/)
    }),
  )
  expect(quote('a"b\\c\n\u202e')).toBe('"a\\"b\\\\c\\n\\u{202e}"')
  expect(quote('x'.repeat(300))).toBe(`"${'x'.repeat(200)}…"`)
})

test('a list of values reads like a sentence', () => {
  expect(quoteList([])).toBe('none')
  expect(quoteList(['a'])).toBe('"a"')
  expect(quoteList(['a', 'b', 'c'])).toBe('"a", "b" or "c"')
  expect(quoteList(['a', 'b', 'c'], 'and', 2)).toBe('"a", "b" and 1 more')
})
