import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseOptions, splitOptions } from '../../src/wire/startup-options.ts'

/** pg_split_opts of PostgreSQL's postinit.c, transcribed with its index and loops. */
function pgSplitOpts(options: string): string[] {
  const isspace = (character: string | undefined) => character !== undefined && /^[ \t\n\v\f\r]$/.test(character)
  const argv: string[] = []
  let at = 0
  while (at < options.length) {
    while (isspace(options[at])) at++
    if (at === options.length) break
    let lastWasEscape = false
    let word = ''
    while (at < options.length) {
      if (isspace(options[at]) && !lastWasEscape) break
      if (!lastWasEscape && options[at] === '\\') lastWasEscape = true
      else {
        lastWasEscape = false
        word += options[at]
      }
      at++
    }
    argv.push(word)
  }
  return argv
}

const spaced = fc.string({
  unit: fc.constantFrom(' ', '\t', '\n', '\v', '\r', '\\', 'a', '-', 'c', '=', '\u00a0', 'ä'),
})

describe('splitOptions', () => {
  test('agrees with pg_split_opts on any text', () => {
    fc.assert(
      fc.property(fc.oneof(spaced, fc.string({ unit: 'binary' })), (options) => {
        expect(splitOptions(options)).toEqual(pgSplitOpts(options))
      }),
      { numRuns: 2_000 },
    )
  })

  test.each([
    ['', []],
    ['  ', []],
    ['-c a=b', ['-c', 'a=b']],
    ['-c a=b\\ c', ['-c', 'a=b c']],
    ['a\\\\b', ['a\\b']],
    ['a\\', ['a']],
    ['\\', ['']],
    ["-c 'a b'", ['-c', "'a", "b'"]],
  ])('%j', (options, words) => {
    expect(splitOptions(options)).toEqual(words)
  })
})

describe('parseOptions', () => {
  const settingName = fc.stringMatching(/^[a-z_][a-z0-9_]{0,10}(\.[a-z_][a-z0-9_]{0,10})?$/)
  const escaped = (value: string) => value.replace(/[\s\\]/g, '\\$&')

  test('settings in any of the three forms come back, whatever their values hold', () => {
    const setting = fc.tuple(settingName, fc.string(), fc.constantFrom('-c ', '-c', '--'))
    fc.assert(
      fc.property(fc.array(setting), (settings) => {
        const options = settings.map(([name, value, form]) => `${form}${name}=${escaped(value)}`).join(' ')
        const expected = new Map(settings.map(([name, value]) => [name, value]))
        expect(parseOptions(options)).toEqual(expected)
      }),
    )
  })

  test('names lose their case, a dash in them is an underscore, and the last of two wins', () => {
    expect(Object.fromEntries(parseOptions('-c Work_Mem=1 --statement-timeout=5 -cwork_mem=2'))).toEqual({
      work_mem: '2',
      statement_timeout: '5',
    })
  })

  test('invariant 5: escapes and joined forms do not hide a name', () => {
    for (const options of ['-c ro\\le=x', '-crole=x', '--role=x', '-c\trole=x', '--r\\ole=x', '\\-c ROLE=x']) {
      expect([...parseOptions(options)]).toEqual([['role', 'x']])
    }
    expect(parseOptions('--session-authorization=x').has('session_authorization')).toBe(true)
  })

  test.each([
    ['-d 5', 'connection option "-d" is refused'],
    ['-B 5', 'connection option "-B" is refused'],
    ['-', 'connection option "-" is refused'],
    ['--', 'connection option "--" is refused'],
    ['geqo=off', 'connection option "geqo" is refused'],
    ['-ec role=x', 'connection option "-ec" is refused'],
    ['-c', 'a name=value must follow it'],
    ['-c geqo', 'connection option "geqo" is refused: it has no value'],
    ['-c =x', 'that is not the name of a setting'],
    ['-c a\\ b=x', 'that is not the name of a setting'],
    ['-c role\\ =x', 'that is not the name of a setting'],
    ['--=x', 'that is not the name of a setting'],
    ['-c \u212aelvin=x', 'that is not the name of a setting'],
  ])('%j is refused', (options, message) => {
    expect(() => parseOptions(options)).toThrow(message)
    expect(() => parseOptions(options)).toThrow(
      expect.objectContaining({ code: 'protocol_violation', sqlstate: '42601' }),
    )
  })

  test('invariant 38: a refusal does not repeat a value', () => {
    expect(() => parseOptions('-c my\\ password=hunter2')).toThrow(expect.not.stringContaining('hunter2'))
  })

  test('random text gives settings or a protocol violation', () => {
    fc.assert(
      fc.property(fc.oneof(spaced, fc.string({ unit: 'binary' })), (options) => {
        try {
          for (const name of parseOptions(options).keys()) expect(name).toMatch(/^[a-z0-9_$.]+$/)
        } catch (error) {
          expect(error).toMatchObject({ code: 'protocol_violation' })
        }
      }),
    )
  })
})
