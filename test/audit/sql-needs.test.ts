import { loadModule } from 'libpg-query'
import { beforeAll, describe, expect, test } from 'vitest'
import { analyze } from '../../src/audit/sql-analysis.ts'
import { isPlainEncoding } from '../../src/audit/sql-settings.ts'
import { shapeOf } from '../../src/audit/sql-shape.ts'

beforeAll(loadModule)

/** `WRITE, MISC|DDL !read_only`: all of these, of alternatives one, and what it does to the settings that a rule relies on. */
function needs(sql: string): string {
  const [only] = analyze(sql).statements
  if (only?.needs === undefined) return 'nobody can tell'
  const guards = only.guards.map((guard) => `!${guard}`)
  return [only.needs.map(({ classes }) => classes.join('|')).join(', '), ...guards].filter(Boolean).join(' ')
}

describe('invariant 23: a rule asks for what a statement can do', () => {
  test.each([
    ['select * from t', 'READ'],
    ['values (1)', 'READ'],
    ['table t', 'READ'],
    ['select lower(a), pg_catalog.count(*) from t', 'READ'],
    ['select f(1)', 'READ, FUNCTION'],
    ['select other.lower(a) from t', 'READ, FUNCTION'],
    ['select a operator(other.=) b from t', 'READ, FUNCTION'],
    ['select * from g(1)', 'READ, FUNCTION'],
    ['select * from rows from (now(), g(1)) as x', 'READ, FUNCTION'],
    ['select (select f(1))', 'READ, FUNCTION'],
    ['select sum(a) filter (where f(a)) over (order by f(b)) from t', 'READ, FUNCTION'],
    ["select nextval('s')", 'READ, WRITE'],
    ["select ('s'::regclass).nextval", 'READ, WRITE'],
    ["select ('/etc/passwd').pg_read_file", 'READ, FUNCTION'],
    ['select (a).f from t', 'READ, FUNCTION'],
    ['select 1 from t where (a[1]).f', 'READ, FUNCTION'],
    ['select ($1).f', 'READ, FUNCTION'],
    ['select ((a).lower).f from t', 'READ, FUNCTION'],
    ['select (lower(a)).n from t', 'READ, FUNCTION'],
    ['select (aclexplode(a)).n from t', 'READ, FUNCTION'],
    ['select (aclexplode(a)).grantee[1].f from t', 'READ, FUNCTION'],
    [
      'select (a).lower, (a).*, (a)[1], (aclexplode(b)).grantee, (information_schema._pg_expandarray(c)).n from t',
      'READ',
    ],
    ['select (result.keys).x from (select information_schema._pg_expandarray(a) as keys from t) result', 'READ'],
    ['select 1 operator(other.=) any (select 2)', 'READ, FUNCTION'],
    ['select 1 operator(pg_catalog.=) any (select 2)', 'READ'],
    ['select a from t order by a using operator(other.<)', 'READ, FUNCTION'],
    ['select pg_catalog.lo_unlink(1)', 'READ, WRITE'],
    ['select other.nextval(1)', 'READ, FUNCTION'],
    ['select pg_advisory_lock(1)', 'READ, MISC|WRITE|DDL'],
    ["select pg_notify('a', 'b')", 'READ, MISC|WRITE'],
    [
      'select pg_get_statisticsobjdef_columns(1), information_schema._pg_expandarray(a), acldefault(b, c) from t',
      'READ',
    ],
    ['select other.pg_get_viewdef(1)', 'READ, FUNCTION'],
    ['select x._pg_expandarray(1)', 'READ, FUNCTION'],
    ['select pg_terminate_backend(1)', 'READ, FUNCTION'],
    ["select query_to_xml('delete from t', true, true, '')", 'READ, FUNCTION'],
    ['select * from t for update', 'READ, WRITE'],
    ['select * from (select * from t for key share) x', 'READ, WRITE'],
    ['select 1 union (select 2 from t for share)', 'READ, WRITE'],
    ['with d as (delete from t returning *) select * from d', 'READ, WRITE'],
    ['with a as (with b as (insert into t values (1) returning 1) select * from b) select 1', 'READ, WRITE'],
    ['select * into n from o', 'READ, DDL'],
    ['select 1 as a into n union select 2', 'READ, DDL'],
    ['(select 1 as a into n union all select 2) union select 3', 'READ, DDL'],
    ['insert into t select * from u', 'WRITE'],
    ['insert into t values (f(1))', 'WRITE, FUNCTION'],
    ['insert into t values (1) on conflict (a) do update set b = f(1)', 'WRITE, FUNCTION'],
    ['update t set a = 1 returning f(a)', 'WRITE, FUNCTION'],
    ["update pg_settings set setting = 'off'", 'WRITE, FUNCTION'],
    ["with u as (update pg_catalog.pg_settings set setting = 'off' returning 1) select 1", 'READ, WRITE, FUNCTION'],
    ['delete from t', 'WRITE'],
    ['merge into t using u on true when matched then delete', 'WRITE'],
    ['truncate t', 'WRITE'],
    ['copy t to stdout', 'READ'],
    ['copy (select 1) to stdout', 'READ'],
    ['copy (delete from t returning *) to stdout', 'WRITE'],
    ['copy (select f(1)) to stdout', 'READ, FUNCTION'],
    ['copy t from stdin', 'WRITE'],
    ['copy t from stdin where f(a)', 'WRITE, FUNCTION'],
    ["copy t to program 'x'", 'FUNCTION, READ'],
    ["copy t from program 'x'", 'FUNCTION, WRITE'],
    ["copy t to '/tmp/x'", 'FUNCTION, READ'],
    ["copy t from '/etc/passwd'", 'FUNCTION, WRITE'],
    ['explain delete from t', ''],
    ['explain select f(1)', 'FUNCTION'],
    ['explain (costs, analyze) delete from t', 'WRITE'],
    ['explain analyze select 1', 'READ'],
    ['explain analyze execute p', ''],
    ['explain analyze create table n as select 1', 'DDL'],
    ['prepare p as delete from t', 'WRITE'],
    ['prepare p as select f(1)', 'READ, FUNCTION'],
    ['execute p', ''],
    ['execute p(1, now())', ''],
    ['execute p(f(1))', 'FUNCTION'],
    ['declare c cursor for select * from t', 'READ'],
    ['declare c cursor for select * from t for update', 'READ, WRITE'],
    ['fetch all from c', ''],
    ['create table n as select 1', 'DDL'],
    ['create table n as execute p', 'DDL'],
    ['create table n as with d as (delete from t returning 1) select * from d', 'DDL, WRITE'],
    ['create materialized view n as select f(1)', 'DDL, FUNCTION'],
    ['create function f() returns int language sql as $$ delete from t returning 1 $$', 'DDL'],
    ['create rule r as on insert to t do also delete from u', 'DDL'],
    ['alter table t add column d int default f(1)', 'DDL'],
    ["alter table t add column d text default set_config('role', 'bob', false)", 'DDL, MISC_SET'],
    ["alter table t alter d type text using set_config('client_encoding', 'SJIS', false)", 'DDL !encoding'],
    ["alter table t add check (set_config(a, 'off', false) <> '')", 'DDL, FUNCTION'],
    ["create function f() returns text begin atomic select set_config('role', 'bob', false); end", 'DDL'],
    ['create schema s create table t (a int) create view v as select f(1)', 'DDL'],
    ['create schema s create table t (a int) grant select on t to bob', 'DDL, ROLE'],
    ['drop table t', 'DDL'],
    ['alter system set a = b', 'DDL'],
    ['grant select on t to bob', 'ROLE'],
    ['alter role bob set default_transaction_read_only = off', 'ROLE'],
    ['reassign owned by a to b', 'ROLE'],
    ['drop owned by a', 'DDL'],
    ['do $$ begin end $$', 'FUNCTION'],
    ['call p()', 'FUNCTION'],
    ["load 'x'", 'FUNCTION'],
    ['lock t in access share mode', 'READ'],
    ['lock t', 'MISC|WRITE|DDL'],
    ['notify x', 'MISC|WRITE'],
    ['vacuum t', 'MISC|DDL'],
    ['analyze t', 'MISC|DDL'],
    ['reindex table t', 'MISC|DDL'],
    ['cluster t', 'MISC|DDL'],
    ['checkpoint', 'MISC'],
  ])('%s: %s', (sql, expected) => {
    expect(needs(sql)).toBe(expected)
  })

  test.each([
    ...['begin', 'start transaction read only', 'commit', 'rollback to a', 'savepoint a', 'release a', 'end', 'abort'],
    ...[
      'set search_path = a',
      'set local statement_timeout = 1',
      'reset all',
      'discard all',
      'show all',
      "set names 'utf8'",
    ],
    ...['set constraints all deferred', 'deallocate all', 'close all', 'listen a', 'unlisten *', 'set time zone local'],
    ...['reset role', 'set session authorization default', 'set transaction isolation level serializable'],
  ])('every session needs: %s', (sql) => {
    expect(needs(sql)).toBe('')
  })

  test.each([
    ['prepare transaction $$a$$', 'WRITE'],
    ["commit prepared 'a'", 'WRITE'],
    ['set role bob', 'MISC_SET'],
    ['set "ROLE" = bob', 'MISC_SET'],
    ['set session authorization bob', 'MISC_SET'],
    ['set session_replication_role = replica', 'MISC_SET'],
    ["select set_config('role', 'bob', false)", 'READ, MISC_SET'],
    ["select set_config('search_path', '', false)", 'READ'],
    ["select pg_catalog.set_config('a.b', f(1), false)", 'READ, FUNCTION'],
    ["select set_config('default_transaction_' || 'read_only', 'off', false)", 'READ, FUNCTION'],
    ["select set_config(setting_name => 'a', new_value => 'b', is_local => true)", 'READ, FUNCTION'],
    ["select other.set_config('a', 'b', false)", 'READ, FUNCTION'],
  ])('%s: %s', (sql, expected) => {
    expect(needs(sql)).toBe(expected)
  })

  test.each([
    ["select set_config(name, 'a', false) from pg_settings where name = 'restrict_nonsystem_relation_kind'", 'READ'],
    [
      "select pg_catalog.set_config(name, 'off', false) from pg_catalog.pg_settings where name = 'DEFAULT_transaction_read_only'",
      'READ !read_only',
    ],
    ["select set_config(name, 'bob', false) from pg_settings where name = 'role'", 'READ, MISC_SET'],
    ["select set_config(name, 'a', false) from pg_settings where name <> 'b'", 'READ, FUNCTION'],
    ["select set_config(name, 'a', false) from pg_settings where name = 'b' or true", 'READ, FUNCTION'],
    ["select set_config(name, 'a', false) from other.pg_settings where name = 'b'", 'READ, FUNCTION'],
    ["select set_config(name, 'a', false) from pg_settings, names where name = 'b'", 'READ, FUNCTION'],
    ["select set_config(name, 'a', false) from pg_settings x(setting, name) where name = 'b'", 'READ, FUNCTION'],
    ["select set_config(name, f(1), false) from pg_settings where name = 'b'", 'READ, FUNCTION'],
    ["select (select set_config(name, 'a', false) from n) from pg_settings where name = 'b'", 'READ, FUNCTION'],
    [
      "with pg_settings as (select 1 as name) select set_config(name, 'a', false) from pg_settings where name = 'b'",
      'READ, FUNCTION',
    ],
    ["select lower(name) from pg_settings where name = 'b'", 'READ'],
  ])('pg_dump sets what may not be there, by a row of pg_settings: %s: %s', (sql, expected) => {
    expect(needs(sql)).toBe(expected)
  })

  test.each([
    ...['begin read write', 'start transaction isolation level serializable, read write', 'set transaction read write'],
    ...['begin read only, read write', 'set session characteristics as transaction read write'],
    ...[
      'set transaction_read_only = off',
      'set local transaction_read_only to 0',
      'set transaction_read_only = default',
    ],
    ...[
      'set default_transaction_read_only = no',
      'set "Default_Transaction_Read_Only" to false',
      'reset transaction_read_only',
    ],
    ...["set default_transaction_read_only = 'of'"],
  ])('switches read-only transactions off: %s', (sql) => {
    expect(needs(sql)).toBe('!read_only')
  })

  test.each([
    ["select set_config('transaction_read_only', 'off', true)", 'READ !read_only'],
    ["select set_config('TRANSACTION_read_only', a, true) from t", 'READ !read_only'],
    ["select set_config('client_encoding', 'SJIS', false)", 'READ !encoding'],
    ["select set_config('standard_conforming_strings', 'off', false)", 'READ !strings'],
    ["set names 'SJIS'", '!encoding'],
    ['set client_encoding to gb18030', '!encoding'],
    ['set client_encoding = "shift-jis"', '!encoding'],
    ['set standard_conforming_strings = off', '!strings'],
    ['set standard_conforming_strings to 0', '!strings'],
    ['set standard_conforming_strings = on', ''],
    ['set default_transaction_read_only = on', ''],
    ['reset default_transaction_read_only', ''],
  ])('%s: %s', (sql, expected) => {
    expect(needs(sql)).toBe(expected)
  })

  test('a need is told by what it is for', () => {
    const [only] = analyze('with d as (delete from t returning f(1), "G".h(2)) select * from d').statements
    expect(only?.needs).toEqual([
      { classes: ['READ'], what: 'SELECT' },
      { classes: ['WRITE'], what: 'DELETE' },
      { classes: ['FUNCTION'], what: 'function f' },
    ])
  })

  test.each<[string, string, { of: string; name: string } | undefined]>([
    ['select (a).b', '(a).b as a call of b(a)', { of: 'a', name: 'b' }],
    ['select ("A".b.c)."D e"', '("A".b.c)."D e" as a call of "D e"("A".b.c)', { of: '"A".b.c', name: 'D e' }],
    ['select ($2).b', '($2).b as a call of b($2)', { of: '$2', name: 'b' }],
    ['select (a.b.c.d).e', '(…).e as a call of e(…)', { of: '…', name: 'e' }],
    ['select a[1].b, (a).*', '(…).b as a call of b(…)', { of: '…', name: 'b' }],
    ['select (aclexplode(a)).grantee.b', '(…).b as a call of b(…)', { of: '…', name: 'b' }],
    ['select (a).b, (c).d', '(a).b as a call of b(a)', { of: 'a', name: 'b' }],
    ["select ('a').b", 'function b', undefined],
    ['select (a).b, f(1)', 'function f', undefined],
    ['select f(1), (a).b', 'function f', undefined],
    ['select (f(1)).b', 'function f', undefined],
  ])('a field that may be a column is told as it is written: %s', (sql, what, field) => {
    const [, need] = analyze(sql).statements[0]?.needs ?? []
    expect(need).toEqual({ classes: ['FUNCTION'], what, ...(field && { field }) })
  })
})

describe('invariant 22: in which encodings a statement can be read', () => {
  test.each([
    'UTF8',
    'utf-8',
    'UNICODE',
    'SQL_ASCII',
    'LATIN1',
    'iso_8859_5',
    'WIN1252',
    'windows-1251',
    'KOI8R',
    'EUC_JP',
  ])('%s: yes', (name) => expect(isPlainEncoding(name)).toBe(true))

  test.each([
    'SJIS',
    'Shift_JIS',
    'SHIFT_JIS_2004',
    'MSKANJI',
    'WIN932',
    'BIG5',
    'WIN950',
    'GBK',
    'WIN936',
    'UHC',
    'WIN949',
    'JOHAB',
    'GB18030',
    'MULE_INTERNAL',
    '',
  ])('%s: no', (name) => expect(isPlainEncoding(name)).toBe(false))
})

test('a text that names a setting is not taken for another of its shape', () => {
  expect(shapeOf("select set_config('a', 'b', false)")).toBeUndefined()
})

test('SET ROLE says which role, for sessions that have it anyway: Flyway sends it behind each migration', () => {
  const roleOf = (sql: string) => analyze(sql).statements[0]?.needs?.map(({ role }) => role)
  expect(roleOf("set role 'shop_migrator'")).toEqual(['shop_migrator'])
  expect(roleOf('set local role Shop_Migrator')).toEqual(['shop_migrator'])
  expect(roleOf("select set_config('role', 'bob', false)")).toEqual([undefined, 'bob'])
  expect(roleOf("select set_config('role', 'bob', false), set_config('role', 'shop_migrator', false)")).toEqual([
    ...[undefined, 'bob', 'shop_migrator'],
  ])
  expect(roleOf('reset role')).toEqual([])
})
