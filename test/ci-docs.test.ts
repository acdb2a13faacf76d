/** The recipe pages docs/ci/*.md hold what they say; their conventions stand in support/ci-pages.ts. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command } from 'commander'
import { describe, expect, test } from 'vitest'
import { parse, parseAllDocuments, stringify } from 'yaml'
import { execCommand } from '../src/cli/exec.ts'
import { MOUNTED_TOKEN } from '../src/client/ci/kubernetes.ts'
import { formatDiagnostics } from '../src/config/diagnostics.ts'
import { type IssuerConfig, PRESET_NAMES } from '../src/config/schema.ts'
import { AccessError } from '../src/errors.ts'
import { PRESETS } from '../src/identity/presets/index.ts'
import { issuerUrl } from '../src/identity/principal-from-claims.ts'
import { span } from '../src/identity/span.ts'
import { createVerifier } from '../src/identity/verifier.ts'
import { evaluate } from '../src/policy/evaluate.ts'
import { loadPolicy } from '../src/policy/load.ts'
import { writeConfig } from './config/write-config.ts'
import {
  anchorsOf,
  CI_DOCS,
  type Claims,
  CONFIGURATION_VARIABLES,
  changed,
  configuration,
  type Page,
  readPages,
  scriptsOf,
} from './support/ci-pages.ts'
import { createRunner, TOKEN } from './support/ci-runner.ts'
import { signingKey } from './support/tokens.ts'

const pages = readPages()
const byName = pages.map((page) => [page.name, page] as const)
const index = readFileSync(join(CI_DOCS, 'README.md'), 'utf8')
const key = signingKey('docs', 'RS256')

/** What becomes of tokens with these claims, signed, verified and decided as `serve` does it, a minute after the page's `iat`. */
async function decider(page: Page, variant?: string) {
  const config = configuration(page, variant)
  for (const issuer of Object.values(config['issuers'] as Record<string, Claims>)) {
    delete issuer['ca']
    issuer['jwks_file'] = 'jwks.json'
  }
  const file = await writeConfig(stringify(config), { 'jwks.json': JSON.stringify({ keys: [key.jwk] }) })
  const now = (Number(page.claims['iat']) + 60) * 1000
  const result = await loadPolicy(file, CONFIGURATION_VARIABLES, { now })
  if (!result.ok) throw new Error(formatDiagnostics(result.diagnostics))
  const verifier = createVerifier(result.loaded.config.issuers, { now: () => now })
  const { user, database } = page
  return async (claims: Claims): Promise<string> => {
    try {
      const principal = await verifier.verify(await key.sign(claims))
      const decision = evaluate(result.policy, principal, { user, database }, now)
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

describe.each(byName)('%s', (_, page) => {
  test('configuration loads, and what it warns of stands on the page', async () => {
    expect(page.configurations).not.toEqual([])
    for (const text of page.configurations) {
      const file = await writeConfig(stringify(configuration(page, text)))
      const result = await loadPolicy(file, CONFIGURATION_VARIABLES, { checkFiles: false })
      if (!result.ok) throw new Error(`${text}\n${formatDiagnostics(result.diagnostics)}`)
      const unsaid = result.warnings.filter(({ message }) => !page.text.includes(message))
      expect(unsaid.map(({ message }) => message)).toEqual([])
      expect(Object.values(result.loaded.config.issuers).map(({ preset }) => preset)).toEqual([page.name])
    }
  })

  test('the token is decided as the table says', async () => {
    const decide = await decider(page)
    const found: Page['decisions'] = []
    for (const { change } of page.decisions) {
      found.push({ change, decision: await decide(changed(page.claims, change)) })
    }
    expect(found).toEqual(page.decisions)
    expect(found[0]).toEqual({ change: 'as it is', decision: 'allowed' })
    expect(found.filter(({ decision }) => decision !== 'allowed').length).toBeGreaterThan(0)
  })

  const variants = page.configurations.slice(1).map((text) => [text.split('\n')[0], text] as const)
  test.each(variants)('the same token, of its issuer, is let in by: %s', async (_, variant) => {
    const issuers = Object.values((parse(variant) as { issuers: Record<string, IssuerConfig> }).issuers)
    const decide = await decider(page, variant)
    for (const issuer of issuers) {
      expect(await decide({ ...page.claims, iss: issuerUrl(issuer), aud: issuer.audience })).toBe('allowed')
    }
  })

  test('advises to match on no claim that the job chooses, and does not warn of an id', () => {
    const { claims } = PRESETS[page.name]
    const classesIn = (heading: RegExp) =>
      [...(heading.exec(page.text)?.[1] ?? '').matchAll(/`([^`]+)`/g)].flatMap(([, name = '']) =>
        Object.hasOwn(claims, name) ? [claims[name]?.class] : [],
      )
    const matchOn = classesIn(/^\*\*Match on\*\*([\s\S]*?)\n\n/m)
    if (page.name !== 'generic') expect(matchOn).not.toEqual([])
    expect(matchOn).not.toContain('claimed')
    expect(classesIn(/^\*\*Not(?: alone)?\*\*([\s\S]*?)\n\n/m)).not.toContain('immutable')
  })

  test('says what was not verified, and is read in two minutes', () => {
    expect(page.text).toMatch(/^Not verified against a live token: /m)
    const prose = page.text.replace(/^```[\s\S]*?^```$/gm, '')
    expect(prose.split(/\s+/).length).toBeLessThan(600)
  })
})

function parseExec(argv: readonly string[]): { command?: string[]; options?: Claims } {
  const found: { command?: string[]; options?: Claims } = {}
  const exec = execCommand().action(
    (command: string[], options: Claims) => void Object.assign(found, { command, options }),
  )
  new Command().enablePositionalOptions().addCommand(exec).exitOverride().parse(argv, { from: 'user' })
  return found
}

describe('jobs', () => {
  test('YAML of CI systems is YAML', () => {
    const wrong = pages.flatMap(({ name, job }) =>
      job
        .filter(({ language }) => language === 'yaml')
        .flatMap(({ body }) => parseAllDocuments(body).flatMap(({ errors }) => errors.map((one) => `${name}: ${one}`))),
    )
    expect(wrong).toEqual([])
  })

  test('the script of each page hands the token to psql', async () => {
    const run = await createRunner()
    const found = await Promise.all(
      pages.map(async (page) => {
        const script = scriptsOf(page).find((text) => text.includes('psql "$DATABASE_URL"'))
        return [page.name, script === undefined ? 'no script' : await run(script)]
      }),
    )
    const wanted = pages.map(({ name, user, database }) => {
      const url = `postgres://${user}:${TOKEN}@pgusher.acme.example:6432/${database}?sslmode=verify-full&sslrootcert=system`
      return [name, expect.stringContaining(`psql ${url} ${url}\n`)]
    })
    expect(found).toEqual(wanted)
  })

  test('each pgusher exec is one that the command understands, for the same role and database', async () => {
    const run = await createRunner()
    for (const page of pages) {
      const { name, user, database } = page
      for (const script of scriptsOf(page).filter((text) => text.includes('pgusher exec'))) {
        expect({ name, ...parseExec((await run(script)).split('\0').slice(0, -1)) }).toMatchObject({
          name,
          command: ['psql', '-v', 'ON_ERROR_STOP=1', '-f', 'migrate.sql'],
          options: { server: { host: 'pgusher.acme.example', port: 6432 }, user, database },
        })
      }
    }
  })

  test('a pod mounts its token where pgusher exec looks for it, and psql reads it there', () => {
    const [{ spec }] = parseAllDocuments(byName.find(([name]) => name === 'kubernetes')?.[1].job[0]?.body ?? '').map(
      (document) => document.toJS(),
    )
    const { containers, volumes } = spec.template.spec
    const { path } = volumes[0].projected.sources[0].serviceAccountToken
    expect(`${containers[0].volumeMounts[0].mountPath}/${path}`).toBe(MOUNTED_TOKEN)
    expect(containers[0].args[0]).toContain(`$(cat ${MOUNTED_TOKEN})`)
  })

  test('no other shell stands on a page', () => {
    const others = pages.flatMap((page) => scriptsOf(page).map((text) => [page.name, text]))
    expect(others.filter(([, text = '']) => !/psql "\$DATABASE_URL"|pgusher exec/.test(text))).toEqual([])
  })
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

  test.each(byName)('says of %s what its preset does', (name) => {
    const [, , , age = '', again = ''] = rows.get(name) ?? []
    expect(age).toBe(span(PRESETS[name].maxTokenAge))
    expect(again.split(/\W/)[0]).toBe(PRESETS[name].refetchable ? 'yes' : 'no')
  })
})

test('links lead to something', () => {
  const dead = [{ name: 'README', text: index }, ...pages].flatMap(({ name, text }) =>
    [...text.matchAll(/\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)/g)]
      .filter(([, target = '', anchor]) => {
        const file = join(CI_DOCS, target === '' ? `${name}.md` : target)
        return !existsSync(file) || (anchor !== undefined && !anchorsOf(readFileSync(file, 'utf8')).includes(anchor))
      })
      .map(([link]) => `${name}: ${link}`),
  )
  expect(dead).toEqual([])
})
