// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the variables of our configuration look like that
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { expandVariables } from '../../src/config/expand.ts'

const NAME = fc.stringMatching(/^[A-Za-z_][A-Za-z0-9_]{0,10}$/).filter((name) => name !== '__proto__')

test('${VAR} takes the value, ${VAR:-default} the default where it is unset or empty', () => {
  const env = { HOST: 'pg1', EMPTY: '' }
  expect(expandVariables('${HOST}:${PORT:-5432}', env)).toMatchObject({ text: 'pg1:5432', expanded: true, unset: [] })
  expect(expandVariables('${EMPTY:-x}${EMPTY}', env).text).toBe('x')
  expect(expandVariables('${HOST:-}', {}).text).toBe('')
})

test('a variable without value and default is reported by name', () => {
  expect(expandVariables('a ${ONE} ${TWO:-2} ${THREE}', {})).toMatchObject({ text: 'a  2 ', unset: ['ONE', 'THREE'] })
})

test('$VAR, $(command) and $${ stay as they are, and other forms are malformed', () => {
  expect(expandVariables('$HOME $(id) $ 5$', { HOME: '/root' }).text).toBe('$HOME $(id) $ 5$')
  expect(expandVariables('$${HOME}', { HOME: '/root' })).toMatchObject({ text: '${HOME}', expanded: false })
  for (const text of ['${}', '${A-b}', '${A:?no}', '${1A}', '${A', '${A B}']) {
    expect(expandVariables(text, { A: 'x' }).malformed, text).toEqual([text])
  }
})

test('names of Object.prototype are not variables', () => {
  expect(expandVariables('${constructor}${toString}', {}).unset).toEqual(['constructor', 'toString'])
})

test('any text without ${ comes out unchanged', () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      fc.pre(!text.includes('${'))
      expect(expandVariables(text, { A: 'x' })).toEqual({ text, expanded: false, unset: [], malformed: [] })
    }),
  )
})

test('a value is taken literally, whatever is in it', () => {
  fc.assert(
    fc.property(NAME, fc.string(), fc.string(), fc.string(), (name, value, before, after) => {
      fc.pre(!before.includes('$') && !after.includes('$'))
      expect(expandVariables(`${before}\${${name}}${after}`, { [name]: value }).text).toBe(before + value + after)
    }),
  )
})

test('escaping any text gives it back', () => {
  fc.assert(
    fc.property(fc.stringMatching(/^[${}A:-]{0,20}$/), (text) => {
      fc.pre(!text.includes('$$'))
      expect(
        expandVariables(
          text.replaceAll('${', () => '$${'),
          {},
        ).text,
      ).toBe(text)
    }),
  )
})
