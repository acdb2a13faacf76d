/**
 * The recipe pages docs/ci/*.md hold what they say. Conventions of a page:
 * - a YAML block that begins with `# pgusher.yaml` is configuration, `issuers` and `rules`; a later one replaces a part of the first;
 * - every other YAML, sh and groovy block belongs to the job;
 * - the JSON block is a token of that job, and the table `| change | decision |` says what becomes of it: JSON members to set (objects are merged) or `no` claim.
 */
import { execFile } from 'node:child_process'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { chmod } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { parse, parseAllDocuments, stringify } from 'yaml'
import { formatDiagnostics } from '../src/config/diagnostics.ts'
import { type IssuerConfig, PRESET_NAMES, type PresetName } from '../src/config/schema.ts'
import { AccessError } from '../src/errors.ts'
import type { Preset } from '../src/identity/preset.ts'
import { PRESETS } from '../src/identity/presets/index.ts'
import { issuerUrl } from '../src/identity/principal-from-claims.ts'
import { span } from '../src/identity/span.ts'
import { createVerifier } from '../src/identity/verifier.ts'
import { evaluate } from '../src/policy/evaluate.ts'
import { loadPolicy } from '../src/policy/load.ts'
import type { AccessRequest } from '../src/policy/types.ts'
import { writeConfig, writeFiles } from './config/write-config.ts'
import { signingKey } from './support/tokens.ts'

type Claims = Record<string, unknown>

const FOLDER = fileURLToPath(new URL('../docs/ci/', import.meta.url))
const ENVIRONMENT = { PGUSHER_ADMIN_PASSWORD: 'x', PGUSHER_TICKET_KEY: 'a'.repeat(43) }
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

interface Block {
  language: string
  body: string
}

interface Page {
  name: PresetName
  text: string
  configurations: string[]
  job: Block[]
  claims: Claims
  decisions: { change: string; decision: string }[]
}

function blocksOf(text: string): Block[] {
  return [...text.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(([, language = '', body = '']) => ({ language, body }))
}

function readPage(file: string): Page {
  const text = readFileSync(join(FOLDER, file), 'utf8')
  const blocks = blocksOf(text)
  const isConfiguration = (block: Block) => block.language === 'yaml' && block.body.startsWith('# pgusher.yaml')
  const json = blocks.find(({ language }) => language === 'json')?.body ?? ''
  const [, rows = ''] = /^\| change \| decision \|\n\| --- \| --- \|\n((?:\|.*\|\n)+)/m.exec(text) ?? []
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
  }
}

const pages = globSync('*.md', { cwd: FOLDER })
  .filter((file) => file !== 'README.md')
  .sort()
  .map(readPage)
const index = readFileSync(join(FOLDER, 'README.md'), 'utf8')

/** The configuration of a page's first block, with the parts that `variant` replaces. */
function configuration(page: Page, variant = ''): Claims {
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
function changed(claims: Claims, change: string): Claims {
  if (change === 'as it is') return claims
  const parts = [...change.matchAll(/(no )?`([^`]+)`/g)]
  expect(parts.length, change).toBeGreaterThan(0)
  let result = claims
  for (const [, no, code = ''] of parts) {
    if (no === undefined) result = merged(result, JSON.parse(`{${code}}`) as Claims)
    else {
      expect(Object.keys(result)).toContain(code)
      result = Object.fromEntries(Object.entries(result).filter(([name]) => name !== code))
    }
  }
  return result
}

/** The connection that the job of a page makes. */
function requestOf(page: Page): AccessRequest {
  const url = /postgres:\/\/(\w+):.*@pgusher\.acme\.example:6432\/([\w-]+)\?/.exec(page.text)
  expect(url, 'a DATABASE_URL').not.toBeNull()
  return { user: url?.[1] ?? '', database: url?.[2] ?? '' }
}

const rs256 = signingKey('docs', 'RS256')
const es256 = signingKey('docs', 'ES256')
const keyFor = (preset: Preset) => (preset.algorithms.includes('RS256') ? rs256 : es256)

/** What becomes of tokens with these claims, signed, verified and decided as `serve` does it, a minute after `iat` of the page. */
async function decider(page: Page, variant?: string) {
  const key = keyFor(PRESETS[page.name])
  const config = configuration(page, variant)
  for (const issuer of Object.values(config['issuers'] as Record<string, Claims>)) {
    delete issuer['ca']
    delete issuer['jwks_url']
    issuer['jwks_file'] = 'jwks.json'
  }
  const file = await writeConfig(stringify(config), { 'jwks.json': JSON.stringify({ keys: [key.jwk] }) })
  const now = (Number(page.claims['iat']) + 60) * 1000
  const result = await loadPolicy(file, ENVIRONMENT, { now })
  if (!result.ok) throw new Error(formatDiagnostics(result.diagnostics))
  const verifier = createVerifier(result.loaded.config.issuers, { now: () => now })
  return async (claims: Claims): Promise<string> => {
    try {
      const principal = await verifier.verify(await key.sign(claims))
      const decision = evaluate(result.policy, principal, requestOf(page), now)
      return decision.allowed ? 'allowed' : decision.error.code
    } catch (error) {
      if (error instanceof AccessError) return error.code
      throw error
    }
  }
}

test('there is a page for each preset, and a preset for each page', () => {
  expect(pages.map(({ name }) => name)).toEqual([...PRESET_NAMES].sort())
})

describe.each(pages.map((page) => [page.name, page] as const))('%s', (_, page) => {
  test('configuration loads; what it warns of stands on the page', async () => {
    expect(page.configurations).not.toEqual([])
    for (const text of page.configurations) {
      const file = await writeConfig(stringify(configuration(page, text)))
      const result = await loadPolicy(file, ENVIRONMENT, { checkFiles: false })
      if (!result.ok) throw new Error(`${text}\n${formatDiagnostics(result.diagnostics)}`)
      expect(result.warnings.map(({ message }) => message).filter((message) => !page.text.includes(message))).toEqual(
        [],
      )
      const issuers: [string, IssuerConfig][] = Object.entries(result.loaded.config.issuers)
      expect(issuers.map(([, { preset }]) => preset)).toEqual([page.name])
    }
  })

  test('the token is decided as the table says', async () => {
    const decide = await decider(page)
    const found = []
    for (const { change } of page.decisions)
      found.push({ change, decision: await decide(changed(page.claims, change)) })
    expect(found).toEqual(page.decisions)
    expect(page.decisions[0]).toEqual({ change: 'as it is', decision: 'allowed' })
    expect(page.decisions.filter(({ decision }) => decision !== 'allowed').length).toBeGreaterThan(0)
  })

  const variants = page.configurations.slice(1).map((text) => [text.split('\n')[0], text] as const)
  test.each(variants)('the same token, of its issuer, is let in by: %s', async (_, variant) => {
    const issuers = Object.values((parse(variant) as { issuers: Record<string, IssuerConfig> }).issuers)
    const decide = await decider(page, variant)
    for (const issuer of issuers) {
      const claims = { ...page.claims, iss: issuerUrl(issuer), aud: issuer.audience }
      expect(await decide(claims)).toBe('allowed')
    }
  })

  test('advice names claims of the preset, and ids only as what to match on', () => {
    const named = (heading: string) =>
      [
        ...(new RegExp(`^\\*\\*${heading}\\*\\*([\\s\\S]*?)\\n\\n`, 'm').exec(page.text)?.[1] ?? '').matchAll(
          /`([^`]+)`/g,
        ),
      ]
        .map(([, code = '']) => code)
        .filter((code) => Object.hasOwn(PRESETS[page.name].claims, code))
    const classes = (heading: string) => named(heading).map((claim) => PRESETS[page.name].claims[claim]?.class)
    if (page.name !== 'generic') expect(named('Match on')).not.toEqual([])
    expect(classes('Match on')).not.toContain('claimed')
    expect(classes('Not(?: alone)?')).not.toContain('immutable')
  })

  test('says what was not verified, and is short', () => {
    expect(page.text).toMatch(/^Not verified against a live token: /m)
    const prose = page.text.replace(/^```[\s\S]*?^```$/gm, '')
    expect(prose.split(/\s+/).length).toBeLessThan(650)
  })
})

/** Keys under which CI systems take shell. */
const SCRIPTS = new Set(['run', 'script', 'command', 'commands', 'args', 'bash'])

function scriptsIn(value: unknown, key = ''): string[] {
  if (typeof value === 'string') return SCRIPTS.has(key) ? [value] : []
  if (Array.isArray(value)) {
    if (SCRIPTS.has(key) && value.every((line) => typeof line === 'string')) return [value.join('\n')]
    return value.flatMap((item) => scriptsIn(item, key))
  }
  return isObject(value) ? Object.entries(value).flatMap(([name, inner]) => scriptsIn(inner, name)) : []
}

function scriptsOf(page: Page): string[] {
  const scripts = page.job.flatMap(({ language, body }) => {
    if (language === 'sh') return [body]
    if (language === 'groovy') return [...body.matchAll(/sh '''([\s\S]*?)'''/g)].map(([, script = '']) => script)
    return parseAllDocuments(body).flatMap((document) => scriptsIn(document.toJS()))
  })
  return page.name === 'buildkite' ? scripts.map((script) => script.replaceAll('$$', '$')) : scripts
}

const TOKEN = 'eyJhbGciOiJSUzI1NiJ9.e30.c2ln'

/** Programs that stand in for what a runner has: each gives the token in the way that the CI's does. */
const ANSWER = JSON.stringify(
  Object.fromEntries(['value', 'oidcToken', 'access_token', 'id_token'].map((field) => [field, TOKEN])),
)
const JQ = `
let text = ''
process.stdin.on('data', (chunk) => { text += chunk }).on('end', () => {
  const path = process.argv.at(-1).replaceAll(/[\\[\\]]/g, ' ').split(/[. ]+/).filter((key) => key !== '')
  console.log(path.reduce((value, key) => value[key], JSON.parse(text)))
})`
const PROGRAMS: Readonly<Record<string, string>> = {
  psql: '#!/bin/sh\nprintf "psql %s %s\\n" "$1" "$DATABASE_URL"\n',
  pgusher: '#!/bin/sh\necho pgusher\n',
  jq: `#!/usr/bin/env -S node --\n${JQ}\n`,
  // The metadata server answers with the bare token.
  curl: `#!/bin/sh\ncase "$*" in *metadata/computeMetadata*) printf %s ${TOKEN} ;; *) printf %s '${ANSWER}' ;; esac\n`,
  cat: `#!/bin/sh\nprintf %s ${TOKEN}\n`,
  'spire-agent': `#!/bin/sh\nprintf %s '[{"svids":[{"svid":"${TOKEN}"}]}]'\n`,
  ...Object.fromEntries(
    ['buildkite-agent', 'circleci', 'gcloud', 'aws', 'your-token-command'].map((name) => [
      name,
      `#!/bin/sh\nprintf %s ${TOKEN}\n`,
    ]),
  ),
}
/** What the CI gives in variables. */
const VARIABLES = [
  'PG_ID_TOKEN',
  'BITBUCKET_STEP_OIDC_TOKEN',
  'SPACELIFT_OIDC_TOKEN',
  'SEMAPHORE_OIDC_TOKEN',
  'TFC_WORKLOAD_IDENTITY_TOKEN',
  'PLUGIN_OIDC_TOKEN_ID',
  'ID_TOKEN',
]
const OTHER_VARIABLES = [
  'ACTIONS_ID_TOKEN_REQUEST_TOKEN',
  'ACTIONS_ID_TOKEN_REQUEST_URL',
  'SYSTEM_ACCESSTOKEN',
  'SYSTEM_OIDCREQUESTURI',
  'OKTA_CLIENT_ID',
  'OKTA_CLIENT_SECRET',
  'ENTRA_CLIENT_SECRET',
]

const run = promisify(execFile)

async function runner() {
  const directory = await writeFiles(PROGRAMS)
  await Promise.all(Object.keys(PROGRAMS).map((name) => chmod(join(directory, name), 0o755)))
  const env = {
    PATH: `${directory}:${dirname(process.execPath)}:/usr/bin:/bin`,
    ...Object.fromEntries(VARIABLES.map((name) => [name, TOKEN])),
    ...Object.fromEntries(OTHER_VARIABLES.map((name) => [name, 'https://ci.example/?x=1'])),
  }
  return async (script: string) => {
    const { stdout } = await run('bash', ['-euo', 'pipefail', '-c', script], { env, cwd: directory })
    return stdout
  }
}

describe('jobs', () => {
  test('YAML of CI systems is YAML', () => {
    const wrong = pages.flatMap(({ name, job }) =>
      job
        .filter(({ language }) => language === 'yaml')
        .flatMap(({ body }) =>
          parseAllDocuments(body).flatMap(({ errors }) => errors.map((error) => `${name}: ${error}`)),
        ),
    )
    expect(wrong).toEqual([])
  })

  test.each(pages.map((page) => [page.name, page] as const))(
    'the scripts of %s are shell, and psql gets the token',
    async (_, page) => {
      const scripts = scriptsOf(page)
      for (const script of scripts) await run('bash', ['-n', '-c', script])
      const connecting = scripts.filter((script) => script.includes('psql "$DATABASE_URL"'))
      expect(connecting).not.toEqual([])
      const { user, database } = requestOf(page)
      const url = `postgres://${user}:${TOKEN}@pgusher.acme.example:6432/${database}?sslmode=verify-full&sslrootcert=system`
      const execute = await runner()
      for (const script of connecting) expect(await execute(script)).toContain(`psql ${url} ${url}\n`)
    },
  )
})

describe('index', () => {
  const rows = new Map(
    [...index.matchAll(/^\| \[[^\]]+\]\(([\w-]+)\.md\) \|(.*)\|$/gm)].map(([, name = '', rest = '']) => [
      name,
      rest.split('|').map((cell) => cell.trim()),
    ]),
  )

  test('has a row for each page', () => {
    expect([...rows.keys()].sort()).toEqual(pages.map(({ name }) => name))
  })

  test.each(pages.map(({ name }) => [name, PRESETS[name]] as const))(
    'says of %s what the preset does',
    (name, preset) => {
      const [, , , age = '', again = ''] = rows.get(name) ?? []
      expect(age).toBe(span(preset.maxTokenAge))
      expect(again.split(/\W/)[0]).toBe(preset.refetchable ? 'yes' : 'no')
    },
  )
})

/** As GitHub makes anchors of headings. */
function anchorsOf(file: string): string[] {
  return [...readFileSync(file, 'utf8').matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  )
}

test('links lead to something', () => {
  const texts = [{ name: 'README', text: index }, ...pages]
  const dead = texts.flatMap(({ name, text }) =>
    [...text.matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)/g)]
      .filter(([, target = '', anchor]) => {
        const file = join(FOLDER, target === '' ? `${name}.md` : target)
        return !existsSync(file) || (anchor !== undefined && !anchorsOf(file).includes(anchor))
      })
      .map(([link]) => `${name}: ${link}`),
  )
  expect(dead).toEqual([])
})
