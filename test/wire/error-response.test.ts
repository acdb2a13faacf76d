import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseErrorFields, sqlstateOf } from '../../src/wire/error-response.ts'

const response = (text: string): Buffer => Buffer.from(text.replaceAll('|', '\0'), 'utf8')

test('an ErrorResponse of PostgreSQL', () => {
  const fields = parseErrorFields(response('SERROR|VERROR|C42P01|Mrelation "x" does not exist|P15||'))
  expect(Object.fromEntries(fields)).toEqual({
    S: 'ERROR',
    V: 'ERROR',
    C: '42P01',
    M: 'relation "x" does not exist',
    P: '15',
  })
  expect(sqlstateOf(fields)).toBe('42P01')
})

test.each([
  ['nothing', ''],
  ['no SQLSTATE', 'SFATAL|Moops||'],
  ['an SQLSTATE that is none', 'C<script>|Moops||'],
  ['a cut field', 'SFATAL|Moo'],
])('invariant 7: %s leaves the SQLSTATE undefined', (_, text) => {
  expect(sqlstateOf(parseErrorFields(response(text)))).toBeUndefined()
})

test('the first of two fields counts, and what lies behind the terminator does not', () => {
  expect(Object.fromEntries(parseErrorFields(response('C42501|C00000||C57P01|')))).toEqual({ C: '42501' })
})

test('invariant 7: random bytes are read into bounded fields', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
      const fields = parseErrorFields(Buffer.from(bytes))
      expect(fields.size).toBeLessThanOrEqual(32)
    }),
  )
  const long = parseErrorFields(Buffer.concat([Buffer.from('M'), Buffer.alloc(1_000_000, 'x')]))
  expect(long.get('M')).toHaveLength(8 * 1024)
})

test('an upstream that does not speak UTF-8 gets replacement characters, not an exception', () => {
  expect(parseErrorFields(Buffer.from('Mgr\xfcn\0\0', 'latin1')).get('M')).toBe('gr\ufffdn')
})
