/**
 * The recipe pages docs/ci/*.md, read by their conventions:
 * - a YAML block that begins with `# pgusher.yaml` is configuration, `issuers` and `rules`; a later one replaces a part of the first;
 * - every other YAML, sh and groovy block belongs to the job;
 * - the JSON block is a token of that job, and the table `| change | decision |` says what becomes of it: JSON members to set (objects are merged) or `no` claim.
 */
import { globSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parse, parseAllDocuments } from 'yaml'
import type { PresetName } from '../../src/config/schema.ts'

export type Claims = Record<string, unknown>

export const CI_DOCS = fileURLToPath(new URL('../../docs/ci/', import.meta.url))

export interface Block {
  language: string
  body: string
}

export interface Page {
  name: PresetName
  text: string
  configurations: string[]
  job: Block[]
  claims: Claims
  decisions: { change: string; decision: string }[]
  /** Of the connection that the job makes; empty where the page has no DATABASE_URL. */
  user: string
  database: string
}

/** By name, without the index. */
export function readPages(): Page[] {
  return globSync('*.md', { cwd: CI_DOCS })
    .filter((file) => file !== 'README.md')
    .sort()
    .map(readPage)
}

function blocksOf(text: string): Block[] {
  return [...text.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(([, language = '', body = '']) => ({ language, body }))
}

function readPage(file: string): Page {
  const text = readFileSync(join(CI_DOCS, file), 'utf8')
  const blocks = blocksOf(text)
  const isConfiguration = (block: Block) => block.language === 'yaml' && block.body.startsWith('# pgusher.yaml')
  const json = blocks.find(({ language }) => language === 'json')?.body ?? '{}'
  const [, rows = ''] = /^\| change \| decision \|\n\| --- \| --- \|\n((?:\|.*\|\n)+)/m.exec(text) ?? []
  const [, user = '', database = ''] = /postgres:\/\/(\w+):.*@pgusher\.acme\.example:6432\/([\w-]+)\?/.exec(text) ?? []
  return {
    name: basename(file, '.md') as PresetName,
    text,
    configurations: blocks.filter(isConfiguration).map(({ body }) => body),
    job: blocks.filter((block) => !isConfiguration(block) && ['yaml', 'sh', 'groovy'].includes(block.language)),
    claims: JSON.parse(json) as Claims,
    decisions: [...rows.matchAll(/^\| (.*) \| (.*) \|$/gm)].map(([, change = '', decision = '']) => ({
      change,
      decision: /^\[(\w+)\]/.exec(decision)?.[1] ?? decision,
    })),
    user,
    database,
  }
}

/** What a page leaves out of a configuration. */
const REST = `version: 1
listen: { address: "127.0.0.1:6432", plaintext: allow }
audit: { stdout: true }
tickets: { key: "\${PGUSHER_TICKET_KEY}" }
databases:
  shop-prod:
    host: pg1.internal
    credentials: { kind: ephemeral-role, admin: { user: pgusher_admin, password: "\${PGUSHER_ADMIN_PASSWORD}" } }
`

export const CONFIGURATION_VARIABLES = { PGUSHER_ADMIN_PASSWORD: 'x', PGUSHER_TICKET_KEY: 'a'.repeat(43) }

/** A whole configuration: that of a page's first block, with the parts that `variant` replaces. */
export function configuration(page: Page, variant = ''): Claims {
  return { ...parse(REST), ...parse(page.configurations[0] ?? ''), ...parse(variant) } as Claims
}

function isObject(value: unknown): value is Claims {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function merged(target: Claims, changes: Claims): Claims {
  const result = { ...target }
  for (const [key, value] of Object.entries(changes)) {
    const before = result[key]
    result[key] = isObject(value) && isObject(before) ? merged(before, value) : value
  }
  return result
}

/** The claims after what a row of the table says, e.g. `` `"ref": "refs/heads/x"`, no `environment` ``. */
export function changed(claims: Claims, change: string): Claims {
  if (change === 'as it is') return claims
  const parts = [...change.matchAll(/(no )?`([^`]+)`/g)]
  if (parts.length === 0) throw new Error(`no change of claims: ${change}`)
  let result = claims
  for (const [, no, code = ''] of parts) {
    if (no === undefined) result = merged(result, JSON.parse(`{${code}}`) as Claims)
    else if (!Object.hasOwn(result, code)) throw new Error(`the token has no ${code} to take away`)
    else result = Object.fromEntries(Object.entries(result).filter(([name]) => name !== code))
  }
  return result
}

/** Keys under which CI systems take shell. */
const SCRIPTS = new Set(['run', 'script', 'command', 'commands', 'args', 'bash'])

function scriptsIn(value: unknown, key = ''): string[] {
  if (typeof value === 'string') return SCRIPTS.has(key) ? [value] : []
  if (Array.isArray(value)) {
    const lines = value.every((line) => typeof line === 'string')
    // A pod's `command` is a program with its arguments.
    if (lines && SCRIPTS.has(key)) return key === 'command' ? [] : [value.join('\n')]
    return value.flatMap((item) => scriptsIn(item, key))
  }
  return isObject(value) ? Object.entries(value).flatMap(([name, inner]) => scriptsIn(inner, name)) : []
}

/** The shell of a page's job, wherever it stands in the CI's own format. */
export function scriptsOf(page: Page): string[] {
  const scripts = page.job.flatMap(({ language, body }) => {
    if (language === 'sh') return [body]
    if (language === 'groovy') return [...body.matchAll(/sh '''([\s\S]*?)'''/g)].map(([, script = '']) => script)
    return parseAllDocuments(body).flatMap((document) => scriptsIn(document.toJS()))
  })
  return page.name === 'buildkite' ? scripts.map((script) => script.replaceAll('$$', '$')) : scripts
}

/** As GitHub makes anchors of headings. */
export function anchorsOf(text: string): string[] {
  return [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  )
}
