import { expect, test } from 'vitest'
import { createAdmission } from '../../src/session/admission.ts'

const limits = () => ({ maxUnauthenticated: 3, maxUnauthenticatedPerAddress: 2, maxSessions: 1 })

test('connections that wait for authentication are capped by address and in total', () => {
  const admission = createAdmission(limits)
  const first = admission.enter('a')
  admission.enter('a')
  expect(() => admission.enter('a')).toThrowError(
    expect.objectContaining({ code: 'limit_sessions', sqlstate: '53300', message: expect.stringContaining('from a') }),
  )
  admission.enter('b')
  expect(() => admission.enter('c')).toThrowError('too many connections are waiting for authentication')
  first()
  first()
  expect(admission.unauthenticated).toBe(2)
  admission.enter('c')
})

test('sessions are capped', () => {
  const admission = createAdmission(limits)
  const end = admission.startSession()
  expect(() => admission.startSession()).toThrowError('pgusher serves 1 sessions already, its limit')
  end()
  end()
  expect(admission.sessions).toBe(0)
  admission.startSession()
})
