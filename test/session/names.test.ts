import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseCommandTag } from '../../src/session/command-tag.ts'
import { NameMap, type StatementText } from '../../src/session/name-map.ts'

const textOf = (text: string): StatementText => ({ text, bytes: text.length, sha256: undefined, truncated: false })
const tagOf = (tag: string, copy?: 'copy_in' | 'copy_out') =>
  parseCommandTag(Buffer.from(`xx${tag}\0yy`), 2, tag.length + 3, copy)

test.each([
  ['SELECT 5', undefined, false],
  ['INSERT 0 12', 12, false],
  ['UPDATE 3', 3, false],
  ['MERGE 2', 2, false],
  ['DELETE 0', 0, false],
  ['MOVE 7', 7, false],
  ['FETCH 7', undefined, false],
  ['CREATE TABLE', undefined, true],
  ['CREATE TABLE AS', undefined, true],
  ['DROP OWNED', undefined, true],
  ['BEGIN', undefined, false],
  ['', undefined, false],
])('the tag %s', (tag, affectedRows, ddl) => {
  expect(tagOf(tag)).toMatchObject({ affectedRows, ddl })
})

test('COPY counts rows that came in, not those that went out', () => {
  expect(tagOf('COPY 9', 'copy_in').affectedRows).toBe(9)
  expect(tagOf('COPY 9', 'copy_out').affectedRows).toBeUndefined()
})

test('no tag makes it throw', () => {
  fc.assert(
    fc.property(fc.string(), (tag) => void parseCommandTag(Buffer.from(tag), 0, Buffer.byteLength(tag), undefined)),
  )
})

test('an identifier of SQL names what the protocol calls by the same name', () => {
  // \w names a PREPARE; what is quoted keeps its case and its quotes are doubled.
  const identifier = fc.oneof(
    fc.stringMatching(/^[a-z_][a-z0-9_]{0,10}$/).map((name) => ({ sql: name.toUpperCase(), name })),
    fc
      .string({ minLength: 1, maxLength: 10 })
      .filter((name) => !name.includes('\0'))
      .map((name) => ({ sql: `"${name.replaceAll('"', '""')}"`, name })),
  )
  fc.assert(
    fc.property(identifier, ({ sql, name }) => {
      const names = new NameMap()
      names.addFromSql(textOf(`PREPARE ${sql} AS SELECT 1`), 'prepare')
      expect(names.get(name)?.text.text).toBe(`PREPARE ${sql} AS SELECT 1`)
      names.removeFromSql(textOf(`DEALLOCATE PREPARE ${sql}`), 'deallocate')
      expect(names.get(name)).toBeUndefined()
    }),
  )
})

test('a session that prepares without end keeps the newest names and a bounded amount of text', () => {
  const names = new NameMap()
  const long = textOf('x'.repeat(64 * 1024))
  for (let i = 0; i < 10_100; i++) names.set(`p${i}`, { text: long, statement: `p${i}`, bindBytes: 0, executed: false })
  expect(names.get('p0')).toBeUndefined()
  expect(names.get('p10099')).toBeDefined()
  let chars = 0
  for (let i = 0; i < 10_100; i++) chars += names.get(`p${i}`)?.text.text?.length ?? 0
  expect(chars).toBeLessThanOrEqual(8 * 1024 * 1024)
  names.clear()
  names.set('again', { text: long, statement: 'again', bindBytes: 0, executed: false })
  expect(names.get('again')?.text.text).toBe(long.text)
})

test.each([
  'prepare /* x */ s as select 2',
  '-- x\nprepare s as select 2',
  'prepare U&"\\0073" as select 2',
  `prepare ${'x'.repeat(64)} as select 2`,
  'prepare größe as select 2',
])('all names are forgotten where nobody can say which one a text gives away: %s', (sql) => {
  const names = new NameMap()
  names.set('s', { text: textOf('select 1'), statement: 's', bindBytes: 0, executed: false })
  names.addFromSql(textOf(sql), 'prepare')
  expect(names.get('s')).toBeUndefined()
  names.set('s', { text: textOf('select 1'), statement: 's', bindBytes: 0, executed: false })
  names.removeFromSql(textOf(sql.replace('prepare', 'deallocate')), 'deallocate')
  expect(names.get('s')).toBeUndefined()
})
