import fc from 'fast-check'
import { expect, test } from 'vitest'
import { mayMakeSetting } from '../../src/session/own-settings.ts'

test.each([
  "SET my.tenant = '7'",
  'set local "my"."tenant" to 7',
  'begin; set session my . tenant = 7; commit',
  'set /* why */ my.tenant = 7',
  'SET "my.tenant" = 7',
  "select set_config('my.tenant', $1, true)",
  'select pg_catalog.SET_CONFIG($1, $2, $3)',
  "do $$ begin set local my.tenant = '7'; end $$",
  'create function f() returns int language sql set my.tenant = 7 as $$ select 1 $$',
])('seen: %s', (sql) => {
  expect(mayMakeSetting(sql)).toBe(true)
})

test.each([
  'select 1.5 from public.orders',
  'update public.orders set price = 1.5 where orders.id = 7',
  'insert into a.b values (1) on conflict (id) do update set price = excluded.price',
  'set search_path to public; select a.b from a',
  "set work_mem = '9.5MB'",
  'set role none',
  'select reset.offset from dataset.reset',
])('not taken for one: %s', (sql) => {
  expect(mayMakeSetting(sql)).toBe(false)
})

test('any name of two parts behind SET is seen, whatever stands before it', () => {
  const word = fc.stringMatching(/^[a-z_][a-z0-9_]{0,20}$/)
  fc.assert(
    fc.property(fc.string(), word, word, fc.constantFrom('=', 'to'), (before, one, two, by) => {
      expect(mayMakeSetting(`${before};\nSET ${one}.${two} ${by} 'x'`)).toBe(true)
    }),
  )
})
