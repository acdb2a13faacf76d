/** Every form of the variables, read back by what reads it. */
import { execFileSync } from 'node:child_process'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { dotenvText, githubEnvText, githubMasks, jsonText, shellText } from '../../../src/client/environment/formats.ts'
import {
  type Connection,
  connectionVariables,
  databaseUrl,
  jdbcUrl,
} from '../../../src/client/environment/variables.ts'

/** What no environment can hold is left out: NUL and lone surrogates. */
const codePoint = fc.integer({ min: 1, max: 0x10ffff }).map((code) => String.fromCodePoint(code))
const anyText = fc.string({ unit: codePoint }).filter((text) => text.isWellFormed())
const nasty = fc.oneof(
  anyText,
  fc.string({
    unit: fc.constantFrom("'", '"', '\\', '$', '`', '\n', ' ', '!', '%', '#', ';', '&', '<', 'EOF', '$(id)'),
  }),
)
const variables = fc
  .array(nasty, { minLength: 1, maxLength: 20 })
  .map((values) => new Map(values.map((value, index) => [`V${index}`, value])))

test('a shell that evaluates it has each variable as it is, and runs nothing of it', () => {
  fc.assert(
    fc.property(variables, (all) => {
      const names = [...all.keys()].join(' ')
      const script = `${shellText(all, ['GONE'])}\n[ -z "\${GONE+x}" ] || exit 9\nfor n in ${names}; do eval "printf '%s\\\\0' \\"\\$$n\\""; done`
      const out = execFileSync('/bin/sh', ['-c', script], { env: { GONE: 'x' } })
      expect(out.toString('utf8').split('\0').slice(0, -1)).toEqual([...all.values()])
    }),
    { numRuns: 30 },
  )
})

/** As the runner of GitHub Actions reads the file: NAME<<DELIMITER, lines, DELIMITER. */
function readGithubEnv(text: string): Map<string, string> {
  const lines = text.split('\n')
  const read = new Map<string, string>()
  for (let at = 0; at < lines.length - 1; at++) {
    const [, name = '', delimiter] = /^(\w+)<<(\w+)$/.exec(lines[at] ?? '') ?? []
    const end = lines.indexOf(delimiter ?? '', at + 1)
    read.set(name, lines.slice(at + 1, end).join('\n'))
    at = end
  }
  return read
}

test('GITHUB_ENV: no value ends before its end or begins another variable', () => {
  const attack = fc.constantFrom(
    'x\nEVIL<<EOF\n1\nEOF',
    'pgusher_00000000000000000000000000000000\nEVIL=1',
    'EVIL<<pgusher_',
  )
  fc.assert(
    fc.property(fc.array(fc.oneof(nasty, attack), { minLength: 1 }), (values) => {
      const all = new Map(values.map((value, index) => [`V${index}`, value]))
      expect(readGithubEnv(githubEnvText(all))).toEqual(all)
    }),
  )
})

test('masks are one line each, as workflow commands are escaped', () => {
  expect(githubMasks(['a', 'b%\r\nc'])).toBe('::add-mask::a\n::add-mask::b%25%0D%0Ac\n')
})

test('JSON', () => {
  fc.assert(
    fc.property(variables, (all) => {
      expect(JSON.parse(jsonText(all))).toEqual(Object.fromEntries(all))
    }),
  )
})

test('dotenv: NAME=value and nothing that two readers read in two ways, or an error', () => {
  fc.assert(
    fc.property(variables, (all) => {
      let text: string
      try {
        text = dotenvText(all).text
      } catch (error) {
        expect(error).toMatchObject({ message: expect.stringContaining('cannot stand in a dotenv file') })
        return
      }
      const lines = text.split('\n').slice(0, -1)
      expect(
        new Map(lines.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)])),
      ).toEqual(all)
      expect(text).not.toMatch(/["'`$#\\ ]/)
    }),
  )
})

const connection: Connection = {
  ...{ host: 'pgusher.acme.example', port: 6432, database: 'shop-prod', user: 'shop_migrator' },
  ...{ password: 'pgut_secret', tls: { caFile: '/etc/pgusher ca.crt' } },
}

test('dotenv holds a connection, and leaves out what GitLab has no room for', () => {
  const all = connectionVariables({ ...connection, tls: { caFile: '/etc/ca.crt' } })
  expect(dotenvText(all)).toEqual({ text: [...all].map(([name, value]) => `${name}=${value}\n`).join(''), leftOut: [] })
  const long = dotenvText(
    connectionVariables({ ...connection, tls: { caFile: '/etc/ca.crt' }, password: 'e'.repeat(2_000) }),
  )
  expect(long.leftOut).toEqual([...all.keys()].filter((name) => /^(JDBC|FLYWAY)/.test(name)))
  expect(long.text).toContain('DATABASE_URL=')
  expect(Buffer.byteLength(long.text)).toBeLessThan(5 * 1024)
})

test('URLs are read back by URL parsers, whatever the names', () => {
  const name = anyText.filter((text) => text !== '')
  fc.assert(
    fc.property(name, name, name, (user, database, password) => {
      const url = new URL(databaseUrl({ ...connection, user, database, password }))
      expect([url.username, url.password, url.pathname.slice(1)].map(decodeURIComponent)).toEqual([
        user,
        password,
        database,
      ])
      expect(url.searchParams.get('sslrootcert')).toBe('/etc/pgusher ca.crt')
      const jdbc = new URL(jdbcUrl({ ...connection, user, database, password }).slice('jdbc:'.length))
      expect([jdbc.searchParams.get('user'), jdbc.searchParams.get('password')]).toEqual([user, password])
      expect(decodeURIComponent(jdbc.pathname.slice(1))).toBe(database)
    }),
  )
})

test('addresses and sockets in URLs', () => {
  expect(databaseUrl({ ...connection, host: '::1', tls: undefined })).toBe(
    'postgres://shop_migrator:pgut_secret@[::1]:6432/shop-prod?sslmode=disable',
  )
  const socket = { ...connection, host: '/tmp/a b', port: 5432, tls: undefined }
  expect(databaseUrl(socket)).toBe(
    'postgres://shop_migrator:pgut_secret@localhost/shop-prod?host=/tmp/a%20b&port=5432&sslmode=disable',
  )
  expect([...connectionVariables(socket).keys()].filter((name) => /JDBC|FLYWAY/.test(name))).toEqual([])
})
