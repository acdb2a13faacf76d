import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { configJsonSchema, type JsonSchema, knownKeys } from '../../src/config/json-schema.ts'
import { loadPolicy } from '../../src/policy/load.ts'

const EXAMPLE = fileURLToPath(new URL('../../config/pgusher.example.yaml', import.meta.url))
const SCHEMA = new URL('../../config/pgusher.schema.json', import.meta.url)

/** Every key of every mapping in the schema. */
function allKeys(schema: JsonSchema): string[] {
  const inner = [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), schema.items, schema.additionalProperties]
  const below = inner.filter((one) => typeof one === 'object').flatMap(allKeys)
  return [...Object.entries(schema.properties ?? {}).flatMap(([key, value]) => [key, ...allKeys(value)]), ...below]
}

test('the example loads without a warning', async () => {
  const result = await loadPolicy(EXAMPLE, { PGUSHER_ADMIN_PASSWORD: 'x' }, { checkFiles: false })
  expect(result).toMatchObject({ ok: true, warnings: [] })
})

test('the example shows every key that there is', async () => {
  const text = await readFile(EXAMPLE, 'utf8')
  const missing = [...new Set(allKeys(configJsonSchema()))].filter((key) => !new RegExp(`\\b${key}:`).test(text))
  expect(missing).toEqual([])
})

/** What the program takes without a key, by its path, where that is no list or mapping. Names of entries are `*`; alternatives may have a default each. */
function defaultsOf(schema: JsonSchema, path = ''): [string, unknown][] {
  const below = (name: string) => (path === '' ? name : `${path}.${name}`)
  const alternatives = [...(schema.anyOf ?? []), ...(schema.oneOf ?? [])].flatMap((one) => defaultsOf(one, path))
  const entries =
    typeof schema.additionalProperties === 'object' ? defaultsOf(schema.additionalProperties, below('*')) : []
  const items = schema.items === undefined ? [] : defaultsOf(schema.items, path)
  const own: [string, unknown][] = ['string', 'number', 'boolean'].includes(typeof schema['default'])
    ? [[path, schema['default']]]
    : []
  const properties = Object.entries(schema.properties ?? {}).flatMap(([key, one]) => defaultsOf(one, below(key)))
  return [...own, ...properties, ...alternatives, ...entries, ...items]
}

/** Each `key: value` of a block, also of those that are commented out, with its path; and what stands behind it. */
function settingsOf(text: string): { path: string; value: string; commented: boolean; remark: string }[] {
  const parents: { indent: number; key: string }[] = []
  return text.split('\n').flatMap((line) => {
    const [, spaces = '', mark = '', inner = '', dash = '', key, value = '', remark = ''] =
      /^( *)(# )?( *)(- )?([\w-]+):(?: ([^#\s][^#]*?))?(?: +# (.*))?$/.exec(line) ?? []
    if (key === undefined) return []
    const indent = spaces.length + inner.length + dash.length
    while (indent <= (parents.at(-1)?.indent ?? -1)) parents.pop()
    parents.push({ indent, key })
    const keys = parents.map((parent, depth) =>
      depth === 1 && /^(issuers|databases)$/.test(parents[0]?.key ?? '') ? '*' : parent.key,
    )
    return value === '' ? [] : [{ path: keys.join('.'), value, commented: mark !== '', remark }]
  })
}

test('what the example says that pgusher takes without a line is what it takes', async () => {
  const defaults = Map.groupBy(defaultsOf(configJsonSchema()), ([path]) => path)
  const told = settingsOf(await readFile(EXAMPLE, 'utf8')).flatMap(({ path, value, commented, remark }) => {
    const [without = commented ? value : undefined] = remark.match(/\S+(?= without it)/) ?? []
    const known = defaults.get(path)?.map(([, one]) => String(one))
    return known === undefined || without === undefined ? [] : [{ path, without: without.replaceAll('"', ''), known }]
  })
  expect(told.length).toBeGreaterThan(30)
  expect(told.filter(({ without, known }) => !known.includes(without))).toEqual([])
})

test('config/pgusher.schema.json is what `pgusher schema` prints; run `npm run schema` after a change', async () => {
  expect(await readFile(SCHEMA, 'utf8')).toBe(`${JSON.stringify(configJsonSchema(), null, 2)}\n`)
})

test('the schema describes what is written, keeps descriptions, and refuses unknown keys', () => {
  const schema = configJsonSchema()
  expect(schema['$schema']).toBe('https://json-schema.org/draft/2020-12/schema')
  expect(schema.additionalProperties).toBe(false)
  expect(schema['required']).toEqual(['version', 'listen', 'issuers', 'databases'])
  expect(schema.properties?.['drain_timeout']).toMatchObject({
    type: 'string',
    description: expect.stringContaining('SIGTERM'),
  })
})

test('known keys are found by path, through lists, records and alternatives', () => {
  expect(knownKeys(['rules', 3, 'match', 'ref'])).toEqual(['in', 'not_in', 'glob'])
  expect(knownKeys(['databases', 'x', 'credentials'])).toEqual(expect.arrayContaining(['kind', 'admin', 'ca']))
  expect(knownKeys(['nowhere', 'at', 'all'])).toEqual([])
})

test('defaults in the schema are values that may be written', () => {
  const { listen, drain_timeout: drain, http } = configJsonSchema().properties ?? {}
  expect(listen?.properties?.['handshake_timeout']).toMatchObject({ type: 'string', default: '15s' })
  expect(http?.properties?.['address']).toMatchObject({ type: 'string', default: '127.0.0.1:6433' })
  expect(drain?.['default']).toBe('30s')
})
