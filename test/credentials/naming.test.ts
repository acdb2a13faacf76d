import fc from 'fast-check'
import { expect, test } from 'vitest'
import { applicationName, bootTag, isLoginName, loginName, tagOfApplication } from '../../src/credentials/naming.ts'
import { commentFor, formatComment, parseComment } from '../../src/credentials/role-comment.ts'
import { grantOf, principalOf } from '../support/mint.ts'

const prefix = fc.stringMatching(/^[a-z][a-z0-9_]{1,15}_$/)

test('a login is recognised by its prefix and form, whatever the job; and never twice the same', () => {
  fc.assert(
    fc.property(prefix, fc.string(), (prefix, jobKey) => {
      const login = loginName(prefix, jobKey)
      expect(isLoginName(prefix, login)).toBe(true)
      expect(Buffer.byteLength(login)).toBeLessThanOrEqual(63)
      expect(login).toBe(login.toLowerCase())
      expect(loginName(prefix, jobKey)).not.toBe(login)
      expect(loginName(prefix, jobKey).slice(0, prefix.length + 9)).toBe(login.slice(0, prefix.length + 9))
      expect(isLoginName(`${prefix}x_`, login)).toBe(false)
    }),
  )
})

test.each([
  'pgu_',
  'pgu_reports',
  'pgu_aaaaaaaa_bbbbbbb',
  'pgu_aaaaaaaa_bbbbbbbbb',
  'pgu_AAAAAAAA_bbbbbbbb',
  'xpgu_aaaaaaaa_bbbbbbbb',
])('not made by pgusher: %s', (name) => {
  expect(isLoginName('pgu_', name)).toBe(false)
})

test('a process is told from another by the application_name of its connections', () => {
  const tag = bootTag('boot 1')
  expect(tagOfApplication(applicationName(tag))).toBe(tag)
  expect(bootTag('boot 2')).not.toBe(tag)
  expect(tagOfApplication('psql')).toBeUndefined()
  expect(applicationName(tag).length).toBeLessThanOrEqual(63)
})

test('a comment comes back as it went in, bounded, whatever the claims hold', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 2_000 }), fc.string({ unit: 'binary' }), (subject, runId) => {
      const principal = { ...principalOf('1'), subject, job: { runId } }
      const comment = commentFor({ instance: 'one', boot: 'tag' }, principal, grantOf(), 0)
      const text = formatComment(comment)
      expect(parseComment(text)).toEqual(comment)
      expect(text).not.toContain('\0')
      expect(comment.subject.length).toBeLessThanOrEqual(500)
      // A database in LATIN1 takes it too.
      expect(text).toMatch(/^[\x20-\x7e]*$/)
    }),
  )
})

test.each([null, '', '{', 'null', '[]', '{"pgusher":2}', '{"pgusher":1}', 'made by hand'])(
  "somebody else's comment: %s",
  (text) => {
    expect(parseComment(text)).toBeUndefined()
  },
)
