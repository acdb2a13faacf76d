import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Classification } from '../../src/audit/classification.ts'
import { timeWriter, uuidv7Writer } from '../../src/audit/clock.ts'
import { identityBlock, identityFields } from '../../src/audit/identity-block.ts'
import { StatementLine } from '../../src/audit/statement-line.ts'
import { textParts } from '../../src/audit/statement-text.ts'
import { anyText, identity, statement } from './support.ts'

const known = (text: string, tables: string[]): Classification => ({
  settled: true,
  parsed: true,
  statements: [
    {
      class: 'READ',
      tables,
      tablesComplete: true,
      summary: 'SELECT',
      fingerprint: 'f0',
      secret: false,
      start: 0,
      length: Buffer.byteLength(text),
      text,
      normalized: text,
      ...{ needs: [], guards: [] },
    },
  ],
  text,
  normalized: text,
  secret: false,
})

const line = new StatementLine({ writeTime: timeWriter(), writeId: uuidv7Writer() }, '"i"')
const into = Buffer.alloc(4 * 1024 * 1024)

const clean = (value: unknown): unknown => JSON.parse(JSON.stringify(value))

describe('a statement record built by hand', () => {
  test('invariant 37: is what JSON.stringify makes of the same event, for any strings', () => {
    fc.assert(
      fc.property(
        anyText,
        anyText,
        anyText,
        anyText,
        fc.option(fc.nat(), { nil: undefined }),
        fc.option(fc.constantFrom('42P01', 'not_executed'), { nil: undefined }),
        (sql, name, table, claim, affected, error) => {
          const who = { ...identity, sessionId: claim, tlsProtocol: claim, db: { alias: claim, namespace: table } }
          const record = statement(sql, {
            statementName: name,
            affectedRows: affected,
            sqlstate: error === '42P01' ? error : undefined,
            errorType: error === 'not_executed' ? error : undefined,
            parameters: [name, null],
          })
          const part = textParts().make(record, 'full', known(sql, [table]), 1e6, true)
          line.fill({ at: Date.UTC(2026, 10, 21), seq: 7, sessionSeq: 3 }, identityBlock(who), part, record)
          const end = line.write(into, 5)
          expect(end - 5).toBeLessThanOrEqual(line.room)
          const text = into.toString('utf8', 5, end)
          expect(text.indexOf('\n')).toBe(text.length - 1)

          const fields = clean(identityFields(who)) as ReturnType<typeof identityFields>
          const read = JSON.parse(text) as Record<string, Record<string, unknown>>
          expect(read['pgusher']).toMatchObject({
            ...fields.pgusher,
            schema: '1.0',
            seq: 7,
            session_seq: 3,
            duration_s: 0.0025,
          })
          expect(read['pgusher']?.['affected_rows']).toBe(affected)
          expect(read['pgusher']?.['parameters']).toEqual([name.length <= 200 ? name : expect.any(String), null])
          expect(read).toMatchObject(fields.top)
          const response = { returned_rows: 1, ...(error === '42P01' ? { status_code: error } : {}) }
          expect(read['db']).toEqual({ ...fields.db, query: { text: sql, summary: 'SELECT' }, response })
          expect(read['error']).toEqual(error === undefined ? undefined : { type: error })
          // No name stands twice in an object: serialising what was read gives the same text again.
          expect(JSON.parse(JSON.stringify(read))).toEqual(read)
          expect(Buffer.byteLength(JSON.stringify(read))).toBeLessThanOrEqual(end - 5)
        },
      ),
    )
  })
})
