import { loadModule } from 'libpg-query'
import { beforeAll, describe, expect, test } from 'vitest'
import { analyze } from '../../src/audit/sql-analysis.ts'

beforeAll(loadModule)

const facts = (sql: string) => analyze(sql).statements[0]

describe('invariant 23: statements count as what they can do', () => {
  test.each([
    ['select * from public.orders', 'READ'],
    ["select count(*), lower(a), coalesce(b, now()), pg_catalog.length('x') from t", 'READ'],
    ['select my_function(1)', 'FUNCTION'],
    ['select other.lower(a) from t', 'FUNCTION'],
    ["select set_config('a.b', 'c', false)", 'FUNCTION'],
    ['select a operator(other.=) b from t', 'FUNCTION'],
    ['select a operator(pg_catalog.=) b from t', 'READ'],
    ['select a operator(other.=) any (select b) from t', 'FUNCTION'],
    ["select ('s'::regclass).nextval", 'FUNCTION'],
    ['select (a).lower, (aclexplode(b)).grantee from t', 'FUNCTION'],
    ['select (a).lower from t', 'READ'],
    ['with d as (delete from t returning *) select * from d', 'WRITE'],
    ['with a as (select 1), b as (insert into t values (1)) select * from a', 'WRITE'],
    ['select * into n from o', 'DDL'],
    ['insert into t select * from u', 'WRITE'],
    ['merge into t using u on true when matched then delete', 'WRITE'],
    ['truncate t', 'WRITE'],
    ['copy (delete from t returning *) to stdout', 'WRITE'],
    ['copy (select f(1)) to stdout', 'FUNCTION'],
    ['copy t to stdout', 'READ'],
    ['copy t from stdin', 'WRITE'],
    ["copy t to program 'x'", 'FUNCTION'],
    ['explain delete from t', 'MISC'],
    ['explain analyze delete from t', 'WRITE'],
    ['explain (analyze) select f(1)', 'FUNCTION'],
    ['explain (analyze off) delete from t', 'MISC'],
    ['explain (analyze 0, costs) delete from t', 'MISC'],
    ['explain (analyze 1) delete from t', 'WRITE'],
    ['do $$ begin end $$', 'FUNCTION'],
    ['call p()', 'FUNCTION'],
    ["load 'x'", 'FUNCTION'],
    ['prepare p as delete from t', 'WRITE'],
    ['execute p', 'unknown'],
    ['declare c cursor for select * from t', 'READ'],
    ['create table t ()', 'DDL'],
    ['create view v as select 1', 'DDL'],
    ['alter system set a = b', 'DDL'],
    ['grant select on t to bob', 'ROLE'],
    ['alter role a rename to b', 'ROLE'],
    ['alter default privileges grant select on tables to bob', 'ROLE'],
    ['set role bob', 'MISC_SET'],
    ['reset all', 'MISC_SET'],
    ['begin', 'MISC'],
    ['vacuum t', 'MISC'],
    ['notify x', 'MISC'],
  ])('%s: %s', (sql, expected) => {
    expect(facts(sql)?.class).toBe(expected)
  })

  test('invariant 24: what does not parse has no class', () => {
    expect(analyze('selec 1')).toMatchObject({ parsed: false, statements: [], text: 'selec 1' })
    expect(analyze('select 1\0; drop table t')).toMatchObject({ parsed: false, statements: [] })
    expect(analyze(`select ${'1,'.repeat(40_000)}1`)).toMatchObject({ parsed: false, statements: [] })
  })
})

describe('tables', () => {
  test.each([
    ['select * from public.orders o join public.lines using (id)', ['public.orders', 'public.lines'], true],
    ['select * from orders', ['orders'], false],
    ['select * from public.orders where f(id)', ['public.orders'], false],
    ['insert into a.b select * from c.d', ['a.b', 'c.d'], true],
    ['with t as (select * from a.b) select * from t', ['a.b'], true],
    ['with t as (select * from t) select * from t', ['t'], false],
    ['with recursive t as (select 1 union all select * from t) select * from t', [], true],
    ['drop table a.b, a.c', ['a.b', 'a.c'], true],
    ['drop trigger x on a.b', ['a.b'], true],
    ['comment on column a.b.c is $$x$$', ['a.b'], true],
    ['truncate a.b', ['a.b'], true],
    ['create index i on a.b (c)', ['a.b'], true],
    ['alter table a.b add foreign key (x) references a.c', ['a.b', 'a.c'], true],
    ['grant select on a.b to bob', ['a.b'], true],
    ['select * from "A.b"."C"', ['"A.b".C'], true],
    ['select * from public."Users"', ['public.Users'], true],
    ['do $$ begin delete from a.b; end $$', [], false],
    ['call a.b()', [], false],
    ['fetch all in c', [], false],
    // What falls on tables that are not named.
    ['drop schema a cascade', [], false],
    ['drop schema a', [], true],
    ['drop table a.b cascade', ['a.b'], false],
    ['truncate a.b cascade', ['a.b'], false],
    ['alter table a.b drop column c cascade', ['a.b'], false],
    ['alter table a.b drop column c', ['a.b'], true],
    ['drop owned by bob', [], false],
    ['reassign owned by a to b', [], false],
    ['drop database d', [], false],
    ['drop extension e', [], false],
    ['create extension e', [], false],
    ['alter extension e update', [], false],
    ['alter extension e set schema a', [], false],
    ['alter schema a rename to b', [], false],
    ['alter table all in tablespace a set tablespace b', [], false],
    ['grant select on all tables in schema a to bob', [], false],
    ['revoke select on a.b from bob cascade', ['a.b'], true],
    ['drop index a.i', [], false],
    ['alter index a.i rename to j', ['a.i'], false],
    ['comment on index a.i is $$x$$', [], false],
    ['reindex index a.i', ['a.i'], false],
    ['reindex table a.b', ['a.b'], true],
    ['reindex schema a', [], false],
    ['cluster', [], false],
    ['vacuum', [], false],
    ['vacuum a.b', ['a.b'], true],
    ['analyze', [], false],
  ])('%s', (sql, tables, complete) => {
    expect(facts(sql)).toMatchObject({ tablesComplete: complete })
    expect([...(facts(sql)?.tables ?? [])].sort()).toEqual([...tables].sort())
  })
})

describe('summaries and fingerprints', () => {
  test.each([
    ['select * from orders where id = 1', 'SELECT orders'],
    ['create unique index i on public.orders (id)', 'CREATE INDEX public.orders'],
    ['drop table if exists a.b', 'DROP TABLE a.b'],
    ['rollback to savepoint x', 'ROLLBACK TO'],
    ['explain select * from orders', 'EXPLAIN SELECT orders'],
    ['set statement_timeout = 5', 'SET statement_timeout'],
    ['revoke select on t from bob', 'REVOKE t'],
    ['call billing.close_month(1)', 'CALL billing.close_month'],
  ])('%s: %s', (sql, summary) => {
    expect(facts(sql)?.summary).toBe(summary)
  })

  test('literals do not change a fingerprint, names do', () => {
    const print = (sql: string) => facts(sql)?.fingerprint
    expect(print('select * from t where a = 1')).toMatch(/^[0-9a-f]{16}$/)
    expect(print('select * from t where a = 1')).toBe(print("select *  from t where a = 'x' -- c"))
    expect(print('select * from t where a = 1')).not.toBe(print('select * from u where a = 1'))
  })
})

test('statements of a text stand at their byte positions', () => {
  const sql =
    "select 'é€😀'; ; /* c */ create function f() returns int language sql begin atomic; select 1; end;\nselect 2"
  const { statements } = analyze(sql)
  expect(statements).toHaveLength(3)
  const bytes = Buffer.from(sql)
  expect(statements.map(({ start, length }) => bytes.toString('utf8', start, start + length))).toEqual([
    "select 'é€😀'",
    'create function f() returns int language sql begin atomic; select 1; end',
    'select 2',
  ])
})
