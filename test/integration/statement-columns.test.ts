/** `(address).city` under `allow.statements`: a column or a call, which the text alone does not tell. The examples are those of docs/statements.md. */
import { readFileSync } from 'node:fs'
import type pg from 'pg'
import { beforeAll, describe, expect, test } from 'vitest'
import { onEachPostgres } from '../support/each-postgres.ts'
import { RULES, type RuleInput, type Stage } from '../support/pgusher.ts'

const page = readFileSync(new URL('../../docs/statements.md', import.meta.url), 'utf8')
const blocks = [...page.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(([, language, body = '']) => ({ language, body }))
/** Statements of the page's SQL, without their comments. */
const examples = (blocks.find(({ language }) => language === 'sql')?.body ?? '')
  .replaceAll(/^--.*$/gm, '')
  .split(';')
  .map((sql) => sql.trim())
  .filter(Boolean)
const shownRefusal = blocks.find(({ body }) => body.includes('(address).city'))?.body

const limited = (
  name: string,
  shape: number,
  statements: NonNullable<RuleInput['allow']>['statements'],
): RuleInput => ({
  ...RULES[shape]!,
  name,
  allow: { database: 'shop-prod', role: 'shop_migrator', statements },
})
const RULED: RuleInput[] = [
  { ...limited('reports', 0, ['READ']), on_deny: { message: 'Reports only read.', contact: '#db-help' } },
  limited('migrate', 1, ['READ', 'WRITE', 'DDL']),
  limited('functions', 2, ['READ', 'FUNCTION']),
]

interface Refusal {
  code: string
  message: string
  hint?: string
}

onEachPostgres(
  (stage) => {
    beforeAll(async () => {
      await stage().admin(
        `set role shop_migrator;
         create type public.address as (street text, city text, country text, "Door No" int, "order" text);
         create table public.customers (name text, address public.address);
         insert into public.customers values
           ('Ada', row('Rathausgasse 1', 'Bern', 'CH', 7, 'ada')), ('Bo', row('Main St 2', 'Oslo', 'NO', 8, 'bo')), ('Cy', null);
         create table public.calls (n int);
         create function public.zip(public.address) returns int language sql as 'insert into public.calls values (1) returning n';`,
        'shop',
      )
    })

    const as = async <T>(shape: Parameters<Stage['token']>[0], work: (client: pg.Client) => Promise<T>): Promise<T> =>
      stage().session({ token: await stage().token(shape) }, work)
    const refusalOf = (client: pg.Client, sql: string): Promise<Refusal> =>
      client.query(sql).then(
        () => ({ code: 'none', message: 'it passed' }),
        ({ code, message, hint }: pg.DatabaseError) => ({
          ...{ code: code ?? '', message: message.replace(/ \[D-\w{6}\]$/, '') },
          ...(hint === undefined ? {} : { hint }),
        }),
      )

    test('the page: what is refused, with the hint that it shows, and the ways that pass', async () => {
      const [refused = '', fromClause = '', inPlace = '', view = '', ofView = '', ...others] = examples
      expect(others).toEqual([])
      await as('github', async (client) => {
        const { message, hint } = await refusalOf(client, refused)
        expect(`ERROR:  ${message}\nHINT:  ${hint}\n`).toBe(shownRefusal?.replace(/ \[D-\w{6}\]$/m, ''))
        expect((await client.query(fromClause)).rows).toEqual([{ name: 'Ada', city: 'Bern' }])
        expect((await client.query(inPlace)).rows).toEqual([{ name: 'Ada', city: 'Bern' }])
      })
      await as('gitlab', (client) => client.query(view))
      await as('github', async (client) =>
        expect((await client.query(ofView)).rows).toEqual([{ name: 'Ada', city: 'Bern' }]),
      )
      // The other way is the rule's: with FUNCTION it is the same statement.
      await as('buildkite', async (client) =>
        expect((await client.query(refused)).rows).toEqual([{ name: 'Ada', city: 'Bern' }]),
      )
    })

    test.each([
      ['(address).city', 'city(address)', '(SELECT "city" FROM (SELECT (address).*) AS it)'],
      [
        '(customers.address).city',
        'city(customers.address)',
        '(SELECT "city" FROM (SELECT (customers.address).*) AS it)',
      ],
      ['(address)."Door No"', '"Door No"(address)', '(SELECT "Door No" FROM (SELECT (address).*) AS it)'],
      // A keyword is a name after a dot only.
      ['(address).order', 'order(address)', '(SELECT "order" FROM (SELECT (address).*) AS it)'],
    ])('%s: the hint has what to write in its place, and that reads the same', async (written, call, instead) => {
      await as('github', async (client) => {
        const { code, message, hint } = await refusalOf(client, `select ${written} from customers order by name`)
        expect({ code, message }).toEqual({
          code: '42501',
          message: `statement refused: ${written} as a call of ${call} needs FUNCTION, and rule "reports" allows READ`,
        })
        expect(hint).toContain(`For the column, write ${instead} in its place.`)
        const allowed = await client.query({ text: `select ${instead} from customers order by name`, rowMode: 'array' })
        const column = await as('buildkite', (other) =>
          other.query({ text: `select ${written} from customers order by name`, rowMode: 'array' }),
        )
        expect(allowed.rows).toEqual(column.rows)
        expect(allowed.rows).toHaveLength(3)
      })
    })

    test.each([
      ['select (array_agg(address))[1].city from customers'],
      [`select ('(a,b,c,1,d)'::address).city`],
      ['select (customers.*).city from customers'],
    ])('%s: what is longer than a name is left out', async (sql) => {
      await as('github', async (client) =>
        expect(await refusalOf(client, sql)).toEqual({
          code: '42501',
          message: 'statement refused: (…).city as a call of city(…) needs FUNCTION, and rule "reports" allows READ',
          hint: expect.stringContaining('write (SELECT "city" FROM (SELECT (…).*) AS it) in its place'),
        }),
      )
    })

    describe('where it is a call', () => {
      test('it is not run, nor is it in what the hint says', async () => {
        await as('gitlab', async (client) => {
          const { message, hint } = await refusalOf(client, 'select (address).zip from customers')
          expect(message).toMatch('(address).zip as a call of zip(address) needs FUNCTION')
          const instead = '(SELECT "zip" FROM (SELECT (address).*) AS it)'
          expect(hint).toContain(instead)
          expect(await refusalOf(client, `select ${instead} from customers`)).toMatchObject({ code: '42703' })
          expect((await client.query('select n from calls')).rows).toEqual([])
        })
        // What is kept from running.
        await as('buildkite', (client) => client.query('select (address).zip from customers limit 1'))
        expect(await stage().admin('select n from calls', 'shop')).toEqual([{ n: 1 }])
      })

      test('a literal has no columns, and a call by name is told before what may be none', async () => {
        await as('gitlab', async (client) => {
          for (const [sql, function_] of [
            ['select (1).zip', 'zip'],
            [`select ('/etc/passwd').pg_read_file`, 'pg_read_file'],
            ['select (address).city, zip(address) from customers', 'zip'],
            ['select zip(address), (address).city from customers', 'zip'],
          ])
            expect(await refusalOf(client, sql!)).toEqual({
              code: '42501',
              message: `statement refused: function ${function_} needs FUNCTION, and rule "migrate" allows READ, WRITE and DDL`,
              hint: 'Ask the operator of this pgusher for a rule that allows it.',
            })
        })
      })
    })

    test('a column of a composite that is written to needs no more than what writes it', async () => {
      await as('gitlab', async (client) => {
        await client.query(`begin; update customers set address.city = 'Thun' where name = 'Ada'`)
        const { rows } = await client.query(
          `select city from customers, lateral (select (address).*) as it where name = 'Ada'`,
        )
        expect(rows).toEqual([{ city: 'Thun' }])
        await client.query('rollback')
      })
    })
  },
  { rules: RULED },
)
