import fc from 'fast-check'
import { expect, test } from 'vitest'
import { tokenRequest, whoamiRequest } from '../../src/http/api.ts'
import { parseBody } from '../../src/http/read-request.ts'
import { parseHost, ticketUrls } from '../../src/http/ticket-urls.ts'

test.each([
  ['pgusher.acme.example:6432', { host: 'pgusher.acme.example', port: 6432 }],
  ['pgusher.acme.example', { host: 'pgusher.acme.example', port: 443 }],
  ['db_proxy:6432', { host: 'db_proxy', port: 6432 }],
  ['10.0.0.7:6432', { host: '10.0.0.7', port: 6432 }],
  ['[2001:db8::7]:6432', { host: '2001:db8::7', port: 6432 }],
])('the Host header %s says where pgusher is', (header, address) => {
  expect(parseHost(header)).toEqual(address)
})

test.each([
  ...[
    undefined,
    '',
    ':6432',
    'a:0',
    'a:65536',
    'a:6432:1',
    '[2001:db8::7',
    '2001:db8::7',
    '[nonsense]:1',
    'a b',
    'a/b',
    'a?x=1',
  ],
  ...["a';drop", 'a$(id)', 'a`id`', '-oProxyCommand=x', 'a\nb', 'user@host', 'bücher.example', `${'a'.repeat(300)}:1`],
])('the Host header %j says nothing', (header) => {
  expect(parseHost(header)).toBeUndefined()
})

const names = fc
  .string({ unit: 'grapheme', minLength: 1 })
  // A path of dots alone means another one in a URL, however they are written (URL Standard, section 4.1).
  .filter((text) => text.isWellFormed() && !text.includes('\0') && !/^\.\.?$/.test(text))

test('every URL says what was put in, whatever is in the names', () => {
  const hosts = fc.constantFrom('pgusher.acme.example', '2001:db8::7')
  fc.assert(
    fc.property(hosts, fc.integer({ min: 1, max: 65_535 }), names, names, (host, port, database, user) => {
      const ticket = 'pgut_A-b_9'
      const { uri, libpq, jdbc } = ticketUrls({ host, port, database, user, ticket })
      const url = new URL(uri)
      expect(url.searchParams.get('sslmode')).toBe('verify-full')
      expect(
        [url.hostname.replace(/[[\]]/g, ''), url.port, url.username, url.password, url.pathname].map(
          decodeURIComponent,
        ),
      ).toEqual([...[host, String(port), user, ticket, `/${database}`]])
      const java = new URL(jdbc.replace('jdbc:', ''))
      expect(decodeURIComponent(java.pathname)).toBe(`/${database}`)
      expect(Object.fromEntries(java.searchParams)).toEqual({ user, password: ticket, sslmode: 'verify-full' })
      expect(Object.fromEntries(keywords(libpq))).toEqual({
        ...{ host, port: String(port), dbname: database, user, password: ticket, sslmode: 'verify-full' },
      })
      for (const text of [uri, jdbc]) expect(text).toMatch(/^[\w:/@.?=&%[\]~-]+$/)
    }),
  )
})

/** As libpq's conninfo_parse reads them. */
function keywords(text: string): [string, string][] {
  return [...text.matchAll(/(\w+)=(?:'((?:[^\\']|\\.)*)'|(\S+))(?: |$)/gsu)].map(([, name = '', quoted, plain]) => [
    name,
    quoted?.replace(/\\(.)/gsu, '$1') ?? plain ?? '',
  ])
}

test.each([
  ['JSON', '{"database":"shop-prod","user":"shop_migrator"}'],
  ['a form', 'database=shop-prod&user=shop_migrator'],
  ['a form with a line feed behind it', 'user=shop%5Fmigrator&database=shop-prod\n'],
])('a body may be %s', (_, text) => {
  expect(parseBody(text, tokenRequest)).toEqual({ database: 'shop-prod', user: 'shop_migrator' })
})

test('without a user the job asks for the one role that it may have', () => {
  expect(parseBody('{"database":"shop-prod"}', tokenRequest)).toEqual({ database: 'shop-prod', user: 'ci' })
  expect(parseBody('', whoamiRequest)).toEqual({})
})

test.each([
  ['', 'database is missing'],
  ['{}', 'database is missing'],
  ['{"database":""}', 'database: '],
  ['{"database":7}', 'database: '],
  [`{"database":"${'é'.repeat(32)}"}`, 'database: a PostgreSQL name has at most 63 bytes'],
  ['{"database":"a\\u0000"}', 'a PostgreSQL name holds no NUL'],
  ['{"database":"a","dbname":"b"}', 'dbname'],
  ['{"database":"a","database":"b"}', 'it is not JSON with unique keys'],
  ['{"database":"a"', 'it is not JSON with unique keys'],
  ['database=a&database=b', 'a field is there twice'],
  ['["database"]', 'database'],
])('the body %j is refused, and told why', (text, why) => {
  expect(() => parseBody(text, tokenRequest)).toThrow(why)
})

test('a user without a database is refused', () => {
  expect(() => parseBody('{"user":"a"}', whoamiRequest)).toThrow('user is of a database: name it as well')
})

test('no body makes anything but a request or a refusal', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
      try {
        expect(tokenRequest.safeParse(parseBody(text, tokenRequest)).success).toBe(true)
      } catch (error) {
        expect(error).toMatchObject({ name: 'RequestError', status: 400, code: 'bad_request' })
      }
    }),
  )
})
