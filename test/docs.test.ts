/** The documents say what the code does: codes, metrics, links, the README's configuration, its SQL and its pg_hba lines. */
import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { parseDocument } from 'yaml'
import { EXIT } from '../src/cli/exit-codes.ts'
import { configJsonSchema, type JsonSchema } from '../src/config/json-schema.ts'
import { configSchema } from '../src/config/schema.ts'
import { createMinter } from '../src/credentials/create.ts'
import { DENIAL_SQLSTATE } from '../src/errors.ts'
import { loadPolicy } from '../src/policy/load.ts'
import { createMetrics } from '../src/telemetry/metrics.ts'
import { runHere } from './cli/run-here.ts'
import { writeConfig } from './config/write-config.ts'
import { createCa } from './support/certificates.ts'
import { type PostgresServer, postgresVersions, query } from './support/postgres.ts'

const ROOT = fileURLToPath(new URL('../', import.meta.url))
const DOCUMENTS = ['README.md', ...globSync('docs/*.md', { cwd: ROOT }), 'bench/README.md']

const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')

/** Bodies of the fenced blocks of a language; of those without one for an empty text. */
function blocks(path: string, language: string): string[] {
  return [...read(path).matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)]
    .filter(([, marked]) => marked === language)
    .map(([, , body]) => body ?? '')
}

/** Each two words in a row of a message, without those that a job or a configuration put in. */
function windows(message: string): string[] {
  const parts = message.replace(/ \[D-\w{6}\]$/, '').split(/"[^"]*"|\d+(?:\.\d+)?/)
  return parts.flatMap((part) => {
    const words = part.trim().split(/\s+/)
    return words.slice(1).map((_, index) => words.slice(index, index + 2).join(' '))
  })
}

/** As GitHub makes anchors of headings. */
function anchorsOf(path: string): string[] {
  return [...read(path).matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  )
}

describe('errors.md', () => {
  const sections = new Map(
    read('docs/errors.md')
      .split(/^## /m)
      .slice(1)
      .map((section) => [section.slice(0, section.indexOf('\n')), section]),
  )

  test('has a section for each code, in the order of the code, and none for a code that does not exist', () => {
    const headings = [...sections.keys()].filter((heading) => /^[a-z_]+$/.test(heading))
    expect(headings).toEqual(Object.keys(DENIAL_SQLSTATE))
  })

  test.each(Object.entries(DENIAL_SQLSTATE))('says that %s is %s', (code, sqlstate) => {
    expect(sections.get(code)?.split('\n')[2]).toMatch(new RegExp(`^SQLSTATE ${sqlstate}\\b`))
    const row = read('docs/errors.md')
      .split('\n')
      .find((line) => line.startsWith(`| ${sqlstate} |`))
    expect(row).toContain(`[${code}](#${code})`)
  })

  test('quotes texts that are in the source', () => {
    const source = globSync('src/**/*.ts', { cwd: ROOT }).map(read).join('\n')
    const quoted = blocks('docs/errors.md', '').flatMap((block) => /^(?:FATAL|ERROR): {2}(.+)$/m.exec(block)?.[1] ?? [])
    expect(quoted.length).toBeGreaterThan(25)
    expect(quoted.filter((text) => !windows(text).some((pair) => source.includes(pair)))).toEqual([])
  })

  test('lists the exit codes, of each command', async () => {
    const { stdout } = await runHere(['--help'])
    const commands = [...(/^Commands:\n([\s\S]*?)\n\n/m.exec(stdout)?.[1] ?? '').matchAll(/^ {2}(?!help )(\w+) /gm)]
    const rows = [...(sections.get('Exit codes of the commands') ?? '').matchAll(/^\| (`.*?) \|/gm)]
    expect(rows.flatMap(([, names = '']) => names.replaceAll('`', '').split(', ')).sort()).toEqual(
      commands.map(([, name]) => name).sort(),
    )
    const header = /^\| command \|(.*)\|$/m.exec(sections.get('Exit codes of the commands') ?? '')?.[1]
    expect(header?.split('|').map(Number)).toEqual(Object.values(EXIT))
  })
})

describe('metrics', () => {
  test('every metric that a document names exists, and each of ours is named', async () => {
    const all = {
      sessions: () => 0,
      unauthenticated: () => 0,
      credentials: () => 0,
      warm: () => 0,
      auditAccepting: () => true,
      auditEvents: () => 0,
      workers: () => 2,
      issuerKeys: () => ({ github: true }),
    }
    const metrics = createMetrics(all)
    const text = await metrics.render()
    const existing = new Set([...text.matchAll(/^# HELP (\w+)/gm)].map(([, name]) => name))
    const named = DOCUMENTS.flatMap((path) =>
      [...read(path).matchAll(/\b(?:pgusher_(?!admin\b)|process_|nodejs_)[a-z0-9_]+\b/g)].map(([name]) => name),
    )
    expect(named.length).toBeGreaterThan(10)
    expect([...new Set(named)].filter((name) => !existing.has(name))).toEqual([])
    const own = [...existing].filter((name) => name?.startsWith('pgusher_'))
    expect(own.filter((name) => name !== undefined && !named.includes(name))).toEqual([])
  })
})

describe('links', () => {
  test('within the repository lead to something', () => {
    const dead = DOCUMENTS.flatMap((path) =>
      [...read(path).matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)/g)]
        .filter(([, target = '', anchor]) => {
          const file = target === '' ? path : join(dirname(path), target)
          return !existsSync(join(ROOT, file)) || (anchor !== undefined && !anchorsOf(file).includes(anchor))
        })
        .map(([link]) => `${path}: ${link}`),
    )
    expect(dead).toEqual([])
  })
})

/** Every key of every mapping in the schema. */
function keysOf(schema: JsonSchema): string[] {
  const inner = [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), schema.items, schema.additionalProperties]
  const below = inner.filter((one) => typeof one === 'object').flatMap(keysOf)
  return [...Object.entries(schema.properties ?? {}).flatMap(([key, value]) => [key, ...keysOf(value)]), ...below]
}

describe('configuration', () => {
  const snippets = DOCUMENTS.flatMap((path) => blocks(path, 'yaml')).filter((text) => /^version: 1$/m.test(text))

  test('each that a document shows whole loads without a warning', async () => {
    expect(snippets.length).toBeGreaterThan(0)
    for (const text of snippets) {
      const file = await writeConfig(text)
      const result = await loadPolicy(file, { PGUSHER_ADMIN_PASSWORD: 'x' }, { checkFiles: false })
      expect(result).toMatchObject({ ok: true, warnings: [] })
    }
  })

  test('all YAML in the documents is YAML', () => {
    const wrong = DOCUMENTS.flatMap((path) => blocks(path, 'yaml')).flatMap((text) => parseDocument(text).errors)
    expect(wrong).toEqual([])
  })

  test('settings with a path in the documents exist', () => {
    const keys = new Set(keysOf(configJsonSchema()))
    const named = DOCUMENTS.flatMap((path) =>
      [...read(path).matchAll(/`(?:listen|http|log)\.([a-z_]+)[`:]/g)].map(([, key = '']) => key),
    )
    expect(named.length).toBeGreaterThan(3)
    expect([...new Set(named)].filter((key) => !keys.has(key))).toEqual([])
  })
})

describe.each(postgresVersions())('the SQL of the README on PostgreSQL $version', ({ version, start }) => {
  const heading = version >= 16 ? '-- PostgreSQL 16 and later' : '-- PostgreSQL 14 and 15'
  const hbaHeading = version >= 16 ? '# PostgreSQL 16 and later' : '# PostgreSQL 14 and 15'

  async function findings(server: PostgresServer, sql: string) {
    await query(server.superuserUrl, 'CREATE DATABASE shop')
    await query(server.superuserUrl.replace(/\/postgres$/, '/shop'), sql)
    const password = /PASSWORD '([^']+)'/.exec(sql)?.[1]
    const parsed = configSchema.shape.databases.parse({
      'shop-prod': {
        host: server.host,
        port: server.port,
        dbname: 'shop',
        tls: { mode: 'require' },
        credentials: { kind: 'ephemeral-role', admin: { user: 'pgusher_admin', password } },
      },
    })
    const config = parsed['shop-prod']!
    const minter = createMinter({ alias: 'shop-prod', config, dbname: 'shop' }, { name: 'docs', boot: '1' })
    try {
      return await minter.check(['shop_migrator'])
    } finally {
      await minter.close()
    }
  }

  test('makes roles that pgusher can work with, and pg_hba lines that PostgreSQL understands', async () => {
    const sql = blocks('README.md', 'sql').find((block) => block.startsWith(heading)) ?? ''
    const hba = blocks('README.md', '').find((block) => block.startsWith(hbaHeading)) ?? ''
    const ca = await createCa()
    const server = await start({
      tls: await ca.issue({ cn: 'localhost', ips: ['127.0.0.1'] }),
      // The roles come only after the start; a name that is not there yet is no error.
      hba: hba
        .replaceAll('10.0.0.7', '127.0.0.1')
        .split('\n')
        .filter((line) => line.startsWith('host')),
    })
    try {
      const readable =
        'GRANT EXECUTE ON FUNCTION pg_hba_file_rules() TO pgusher_admin; GRANT SELECT ON pg_hba_file_rules TO pgusher_admin'
      const found = await findings(server, `${sql}; ${readable}`)
      expect(found.filter(({ level, message }) => level === 'error' || message.includes('pg_hba.conf'))).toEqual([])
      const rules = await query(
        server.superuserUrl,
        `SELECT type, auth_method, error FROM pg_hba_file_rules WHERE array_to_string(user_name, ' ') ~ 'pgu_|shop_migrator'`,
      )
      expect(rules).toEqual([
        { type: 'hostssl', auth_method: 'scram-sha-256', error: null },
        { type: 'host', auth_method: 'reject', error: null },
      ])
    } finally {
      await server.stop()
    }
  })
})

test('each HINT that errors.md shows is a sentence', () => {
  const errors = readFileSync(new URL('../docs/errors.md', import.meta.url), 'utf8')
  const hints = [...errors.matchAll(/^HINT: {2}(.+)$/gm)].map(([, hint = '']) => hint)
  expect(hints.length).toBeGreaterThan(20)
  // `pgusher` is a command's name, and a command may stand at the end.
  expect(hints.filter((hint) => !/^(?:[A-Z]|pgusher\b).*[.?)]$/.test(hint) && !hint.includes('curl -sSf'))).toEqual([])
})
