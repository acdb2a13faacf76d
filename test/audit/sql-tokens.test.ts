import fc from 'fast-check'
import { loadModule, scanSync } from 'libpg-query'
import { beforeAll, describe, expect, test } from 'vitest'
import { normalizedText, tokens } from '../../src/audit/sql-tokens.ts'
import { cpuOf } from '../support/cpu-time.ts'

beforeAll(loadModule)

/** Pieces that make every kind of token, ended and not. */
const pieces = fc.constantFrom(
  ...[
    "'",
    '"',
    '$$',
    '$a$',
    '$1',
    "e'",
    "U&'",
    "x'",
    '\\',
    '--',
    '/*',
    '*/',
    '\n',
    ' ',
    'select',
    'é',
    ';',
    '1.5e-3',
    '1..2',
    '||',
    '->>',
  ],
)
const anySql = fc.array(fc.oneof(pieces, fc.string({ unit: 'binary', maxLength: 3 }))).map((parts) => parts.join(''))

/** Text that PostgreSQL's scanner takes as well. */
const goodPiece = fc.constantFrom(
  'select',
  'a_b$c',
  '"x ""y"" z"',
  "'it''s'",
  "E'it\\'s'",
  "U&'d\\0061t'",
  "X'1F'",
  '$$ ; -- $$',
  "$t$ $$ ' $t$",
  '$12',
  '42',
  '1.5e-3',
  '.5',
  '0x1F',
  '1_000',
  '-- c\n',
  '/* a /* b */ c */',
  '(',
  ')',
  ',',
  ';',
  '.',
  '::',
  '->>',
  '||',
  '=',
  '<>',
  '@',
  'é',
  '\n',
)

describe('tokens of SQL', () => {
  test('cover everything but white space, in order, for any text', () => {
    fc.assert(
      fc.property(anySql, (sql) => {
        let at = 0
        for (const { start, end } of tokens(sql)) {
          expect(sql.slice(at, start).trim()).toBe('')
          expect(end).toBeGreaterThan(start)
          at = end
        }
        expect(sql.slice(at).trim()).toBe('')
      }),
    )
  })

  test('begin and end literals and comments where PostgreSQL does', () => {
    const kinds: Record<string, string> = {
      '261': 'literal',
      '262': 'literal',
      '263': 'literal',
      '264': 'literal',
      '275': 'comment',
      '276': 'comment',
    }
    fc.assert(
      fc.property(fc.array(goodPiece, { maxLength: 12 }), (parts) => {
        const sql = parts.join(' ')
        const theirs = scanSync(`${sql} `).tokens.flatMap(({ start, end, tokenType }) => {
          const kind = kinds[String(tokenType)]
          return kind === undefined ? [] : [{ kind, text: Buffer.from(sql).toString('utf8', start, end) }]
        })
        const ours = tokens(sql).flatMap(({ kind, start, end }) => {
          const text = sql.slice(start, end)
          if (kind === 'comment') return [{ kind, text }]
          return kind === 'string' || kind === 'dollar' ? [{ kind: 'literal', text }] : []
        })
        // 'a' on one line and 'b' on the next are one literal for PostgreSQL and two for us.
        const joined = (list: { kind: string; text: string }[]): string =>
          list
            .map(({ text }) => text)
            .join('')
            .replaceAll(/\s+/g, '')
        expect(joined(ours)).toBe(joined(theirs))
      }),
    )
  })

  test('take time in proportion to the text, whatever it is', async () => {
    for (const piece of ["'", '"', '$a$', '/*', '1.', "e'\\", '(', '||', '--']) {
      expect(await cpuOf(() => normalizedText(piece.repeat(64 * 1024)))).toBeLessThan(1_500)
    }
  })
})

describe('normalised text', () => {
  test.each([
    ["select * from t where a = 'x' and b in (1, 2.5) -- why", 'select * from t where a = ? and b in (?, ?)'],
    ["select /* c */ $1,\n\t E'a\\'b'||$q$ x $q$", 'select $1, ?||?'],
    ["select '<redacted>', 'x'", "select '<redacted>', ?"],
    ["select 'never ends", 'select ?'],
    ['a/**/b', 'a b'],
  ])('%s', (sql, expected) => {
    expect(normalizedText(sql)).toBe(expected)
  })

  test('is its own normal form', () => {
    fc.assert(
      fc.property(fc.array(goodPiece), (parts) => {
        const once = normalizedText(parts.join(' '))
        expect(normalizedText(once).replaceAll(/\s/g, '')).toBe(once.replaceAll(/\s/g, ''))
      }),
    )
  })
})
