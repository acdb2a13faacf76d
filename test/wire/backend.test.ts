import fc from 'fast-check'
import type { BackendMessage } from 'pg-protocol/dist/messages.js'
import { Parser } from 'pg-protocol/dist/parser.js'
import { describe, expect, test } from 'vitest'
import {
  authenticationCleartextPassword,
  authenticationOk,
  authenticationSASL,
  authenticationSASLContinue,
  authenticationSASLFinal,
  backendKeyData,
  errorResponse,
  negotiateProtocolVersion,
  noticeResponse,
  parameterStatus,
  readyForQuery,
} from '../../src/wire/backend.ts'
import { parseErrorFields } from '../../src/wire/error-response.ts'

/** What node-postgres makes of a frame; fails unless it is exactly one message. */
function parsed(frame: Buffer): BackendMessage {
  const messages: BackendMessage[] = []
  new Parser().parse(frame, (message) => messages.push(message))
  expect(messages).toHaveLength(1)
  expect(frame.readInt32BE(1)).toBe(frame.length - 1)
  return messages[0] as BackendMessage
}

const printable = fc.string({ unit: 'grapheme-ascii', maxLength: 200 })
const anyText = fc.string({ unit: 'binary', maxLength: 3_000 })

describe('round trips through pg-protocol', () => {
  test('authentication requests', () => {
    expect(parsed(authenticationOk())).toMatchObject({ name: 'authenticationOk' })
    expect(parsed(authenticationCleartextPassword())).toMatchObject({ name: 'authenticationCleartextPassword' })
    expect(parsed(authenticationSASL(['A', 'B']))).toMatchObject({ name: 'authenticationSASL', mechanisms: ['A', 'B'] })
    fc.assert(
      fc.property(printable, (data) => {
        const bytes = Buffer.from(data)
        expect(parsed(authenticationSASLContinue(bytes))).toMatchObject({ name: 'authenticationSASLContinue', data })
        expect(parsed(authenticationSASLFinal(bytes))).toMatchObject({ name: 'authenticationSASLFinal', data })
      }),
    )
  })

  test('ParameterStatus, BackendKeyData, ReadyForQuery', () => {
    const text = fc.string({ unit: 'grapheme' }).filter((value) => !value.includes('\0') && value.isWellFormed())
    fc.assert(
      fc.property(text, text, fc.integer(), fc.integer(), (parameterName, parameterValue, processID, secretKey) => {
        expect(parsed(parameterStatus(parameterName, parameterValue))).toMatchObject({ parameterName, parameterValue })
        const key = Buffer.alloc(4)
        key.writeInt32BE(secretKey)
        expect(parsed(backendKeyData(processID, key))).toMatchObject({ processID, secretKey })
      }),
    )
    for (const status of ['I', 'T', 'E'] as const) expect(parsed(readyForQuery(status))).toMatchObject({ status })
  })

  test('ErrorResponse and NoticeResponse with printable text', () => {
    const one = fc.string({ unit: 'grapheme-ascii', minLength: 1, maxLength: 200 })
    fc.assert(
      fc.property(one, fc.option(one), fc.option(one), (message, d, h) => {
        const detail = d ?? undefined
        const hint = h ?? undefined
        const fields = { sqlstate: '28P01', message, detail, hint }
        expect(parsed(errorResponse({ severity: 'FATAL', ...fields }))).toMatchObject({
          name: 'error',
          severity: 'FATAL',
          code: '28P01',
          message,
          detail,
          hint,
        })
        expect(parsed(noticeResponse({ severity: 'WARNING', ...fields }))).toMatchObject({ name: 'notice', message })
      }),
    )
  })
})

describe('ErrorResponse', () => {
  const fieldsOf = (frame: Buffer) => parseErrorFields(frame.subarray(5))

  test('any text makes one message whose text is harmless and bounded', () => {
    fc.assert(
      fc.property(anyText, anyText, (message, detail) => {
        const frame = errorResponse({ severity: 'FATAL', sqlstate: '42501', message, detail })
        parsed(frame)
        const fields = fieldsOf(frame)
        expect([...fields.keys()]).toEqual(['S', 'V', 'C', 'M', 'D'])
        expect(fields.get('M')).not.toMatch(/\p{Cc}|\p{Bidi_Control}/u)
        expect(fields.get('D')).not.toMatch(/(?![\n\t])\p{Cc}|\p{Bidi_Control}/u)
        expect(Buffer.byteLength(fields.get('M') ?? '')).toBeLessThanOrEqual(2 * 1024 + 3)
      }),
    )
  })

  test('a NUL does not smuggle a field, an escape does not reach the terminal', () => {
    const frame = errorResponse({
      severity: 'FATAL',
      sqlstate: '42501',
      message: 'a\0Hforged\x1b[2J',
      detail: 'x\u202ey',
    })
    expect(Object.fromEntries(fieldsOf(frame))).toEqual({
      S: 'FATAL',
      V: 'FATAL',
      C: '42501',
      M: 'a\ufffdHforged\ufffd[2J',
      D: 'x\ufffdy',
    })
  })

  test('MESSAGE is one line, so that it cannot imitate another message; DETAIL may have several', () => {
    const frame = errorResponse({ severity: 'ERROR', sqlstate: '42501', message: 'a\r\nFATAL:\tb', detail: 'a\nb' })
    expect(fieldsOf(frame).get('M')).toBe('a FATAL: b')
    expect(fieldsOf(frame).get('D')).toBe('a\nb')
  })

  test('text is cut between characters', () => {
    for (let pad = 0; pad < 4; pad++) {
      const frame = errorResponse({ severity: 'FATAL', sqlstate: '42501', message: 'x'.repeat(pad) + '😀'.repeat(600) })
      expect(fieldsOf(frame).get('M')).toMatch(/^x{0,3}😀+…$/u)
    }
  })

  test('what is not an SQLSTATE is sent as XX000', () => {
    for (const sqlstate of ['', '4250', '42501x', 'abcde', '42\x0001']) {
      expect(fieldsOf(errorResponse({ severity: 'FATAL', sqlstate, message: 'm' })).get('C')).toBe('XX000')
    }
  })
})

test('invariant 25: NegotiateProtocolVersion carries the whole version, as libpq reads it, and the options', () => {
  const frame = negotiateProtocolVersion(2, ['_pq_.a', '_pq_.bc'])
  expect(frame.toString('latin1', 0, 1)).toBe('v')
  expect(frame.readInt32BE(1)).toBe(frame.length - 1)
  expect(frame.readInt32BE(5)).toBe(0x00030002)
  expect(frame.readInt32BE(9)).toBe(2)
  expect(frame.toString('latin1', 13)).toBe('_pq_.a\0_pq_.bc\0')
})

test('a string with a NUL is never framed', () => {
  expect(() => parameterStatus('a\0b', 'c')).toThrow(RangeError)
})
