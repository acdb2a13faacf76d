/** `allow.statements`: what is said about it when the configuration is read, and what a grant and a running session make of it. */
import { describe, expect, test } from 'vitest'
import { allowsAsMuch, writesNothing } from '../../src/policy/statement-limit.ts'
import { HEAD } from '../config/write-config.ts'
import { diagnosticsOf } from './policy-of.ts'

const rule = (allow: string, name = 'report') =>
  `  - { name: ${name}, issuer: github, match: { repository_id: "1" }, allow: { database: shop, role: reader, ${allow} } }\n`
const told = async (...rules: string[]): Promise<string[]> =>
  (await diagnosticsOf(`${HEAD}rules:\n${rules.join('')}`)).map(
    ({ level, message, hint }) => `${level}: ${message}${hint === undefined ? '' : ` (${hint})`}`,
  )

describe('a list of classes', () => {
  test.each(['[READ]', '[READ, WRITE, FUNCTION, ROLE, DDL, MISC, MISC_SET]'])('%s is fine', async (classes) => {
    expect(await told(rule(`statements: ${classes}`))).toEqual([])
  })

  test.each([
    ['[]', /at least 1/],
    ['READ', /list|array/],
    ['[SELECT]', /"READ", "WRITE", "FUNCTION", "ROLE", "DDL", "MISC"/],
    ['[read]', /Did you mean "READ"|"READ", "WRITE"/i],
  ])('%s is an error', async (classes, text) => {
    const [first] = await told(rule(`statements: ${classes}`))
    expect(first).toMatch(/^error: /)
    expect(first).toMatch(text)
  })

  test('a class that stands there twice is a warning', async () => {
    expect(await told(rule('statements: [READ, READ]'))).toEqual([
      'warning: READ stands here twice (name each class once)',
    ])
  })

  test('what a rule cannot limit contradicts it', async () => {
    expect(await told(rule('statements: [READ], function_call: true'))).toEqual([
      expect.stringMatching(/^error: function_call runs any function, and statements leaves FUNCTION out/),
    ])
    expect(await told(rule('statements: [READ, FUNCTION], function_call: true'))).toEqual([])
    expect(await told(rule('statements: [READ], replication: true'))).toEqual([
      expect.stringMatching(/^error: the commands of the replication protocol are not SQL/),
    ])
  })

  test('a rule that only reads, with a role that another rule grants for writing, is a warning', async () => {
    const warning = expect.stringMatching(/^warning: this rule only reads, and role "reader" may write, for rule "all"/)
    expect(await told(rule('statements: [READ]'), rule('statements: [DDL]', 'all'))).toEqual([warning])
    expect(await told(rule('statements: [READ, MISC]'), rule('max_connections: 2', 'all'))).toEqual([])
    expect(await told(rule('statements: [READ]'), rule('statements: [MISC_SET]', 'all'))).toEqual([])
  })
})

test('without a class that writes, a grant is read-only; a function can write', () => {
  expect(writesNothing(['READ', 'MISC', 'MISC_SET'])).toBe(true)
  for (const one of ['WRITE', 'DDL', 'ROLE', 'FUNCTION'] as const) expect(writesNothing(['READ', one])).toBe(false)
})

test('a session goes on under a policy that allows no class less', () => {
  const limit = (...classes: ('READ' | 'WRITE')[]) => ({
    statements: { classes, readOnly: false, explain: true },
  })
  expect(allowsAsMuch({}, {})).toBe(true)
  expect(allowsAsMuch({}, limit('READ'))).toBe(true)
  expect(allowsAsMuch(limit('READ', 'WRITE'), limit('READ'))).toBe(true)
  expect(allowsAsMuch(limit('READ'), limit('READ', 'WRITE'))).toBe(false)
  expect(allowsAsMuch(limit('READ', 'WRITE'), {})).toBe(false)
})
