import fc from 'fast-check'
import { loadModule } from 'libpg-query'
import { beforeAll, expect, test } from 'vitest'
import { analyze } from '../../src/audit/sql-analysis.ts'
import { isExemplar, sameShape, shapeOf } from '../../src/audit/sql-shape.ts'

beforeAll(() => loadModule())

/** `?n` and `?s` stand for literals. */
const TEMPLATES = [
  'select abalance from pgbench_accounts where aid = ?n;',
  'insert into public.orders (id, name, at) values (?n, ?s, ?s), (?n, ?s, ?s)',
  '  update a.b set c = ?s where d in (?n,?n,?n) and e > -?n',
  'delete from t1 where k2 = ?s and v < ?n.5',
  'select * from a join b on a.x = b.y where a.z = ?s order by ?n limit ?n offset ?n',
  'with w as (insert into log values (?n) returning id) select id, ?s from w group by ?n having count(*) > ?n',
  'select f(?s), ?n + ?n, array[?n, ?n], (?s, ?n) from g(?n) as h(i int, j varchar(?n)) for update',
  'select cast(?s as numeric(?n, ?n)), x at time zone ?s, timestamp ?s, date ?s from c',
  "select ?s\n?s, x from t where a like ?s escape '' and b between ?n and ?n",
  'values (?n, ?s, null)',
  'select nextval(?s), ?n from a.b tablesample system (?n)',
  'select case when a = ?n then ?s else ?s end, a[?n:?n], b.c is not distinct from ?n from s.t',
  'insert into t select ?n from u where v = ?s on conflict (a) do update set b = ?n',
]
const number = fc.oneof(
  { weight: 60, arbitrary: fc.nat(999_999_999) },
  { weight: 1, arbitrary: fc.bigInt(0n, 10n ** 25n).map(String) },
)
const word = fc.string({ unit: fc.constantFrom(...'abzAZ019 _.,:+-'), maxLength: 12 }).map((text) => `'${text}'`)

const filled = fc.constantFrom(...TEMPLATES).chain((template) => {
  const kinds = [...template.matchAll(/\?[ns]/g)].map(([mark]) => mark)
  const values = fc.tuple(...kinds.map((kind): fc.Arbitrary<unknown> => (kind === '?n' ? number : word)))
  const fill = (all: readonly unknown[]): string => {
    let at = 0
    return template.replace(/\?[ns]/g, () => String(all[at++]))
  }
  return fc.tuple(values.map(fill), values.map(fill))
})

test('texts of one shape are classified as the parser does each of them', () => {
  let shaped = 0
  fc.assert(
    fc.property(filled, ([one, other]) => {
      const shape = shapeOf(one)
      const exemplar = analyze(one)
      if (shape === undefined || shape !== shapeOf(other) || !isExemplar(one, exemplar)) return
      shaped++
      expect(sameShape(other, exemplar)).toEqual(analyze(other))
    }),
    { numRuns: 700 },
  )
  expect(shaped).toBeGreaterThan(300)
})

test.each([
  ['a quoted identifier', 'select "1" from t'],
  ['a parameter', 'select $1'],
  ['a type with a precision', 'select LocalTime (3)'],
  ['another one', 'select current_timestamp(3)'],
  ['a dollar quote', 'select $$1$$'],
  ['a comment', 'select 1 -- 2'],
  ['a comment in C', 'select 1 /* 2 */'],
  ['an escape', "select '\\', 1"],
  ['an escape string', "select E'a'"],
  ['a bit string', "select B'1'"],
  ['a Unicode string', "select U&'a'"],
  ['an escape string among others', "select 'a', E'b ', 'c' , 'd'"],
  ['a literal without its end', "select 'a"],
  ['another quote in it', "select 'a=b'"],
  ['a type that its length decides', 'select cast(1 as float(24))'],
  ['a cast', "select '1'::int"],
  ['a name that is not ASCII', 'select é1 from t'],
  ['what may be a password', "select * from t where password = 'a'"],
  ['DDL', 'create table t (a varchar(10))'],
  ['COPY', "copy t from program 'a'"],
  ['a long one', `select ${'1,'.repeat(4_000)}1`],
])('%s has no shape', (_what, sql) => {
  expect(shapeOf(sql)).toBeUndefined()
})

test('literals in quotes are', () => {
  expect(shapeOf("select a from x where y = 'it''s' and z in ('a', '')")).toBe(
    shapeOf("select a from x where y = 'he''s' and z in ('', 'some other words')"),
  )
})

test('names with digits in them are not literals', () => {
  expect(shapeOf('select a from t1')).not.toBe(shapeOf('select a from t2'))
  expect(shapeOf('select a from x where y = 1e5')).not.toBe(shapeOf('select a from x where y = 2e5'))
  expect(shapeOf('select a from x where y = 15')).toBe(shapeOf('select a from x where y = 25'))
})
