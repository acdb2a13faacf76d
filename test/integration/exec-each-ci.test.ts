/** `pgusher exec` in a simulated run of each CI system, with its own way to give tokens and an issuer of that shape. */
import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { runExec } from '../../src/client/exec/run-exec.ts'
import { PRESETS } from '../../src/identity/presets/index.ts'
import { principalFromClaims } from '../../src/identity/principal-from-claims.ts'
import { CI_CLAIMS, CI_NAMES, type CiName } from '../support/ci/claims.ts'
import { type CiIssuer, startCiIssuer } from '../support/ci/issuer.ts'
import { simulateCi } from '../support/ci/simulate.ts'
import { UNTIL } from '../support/exec.ts'
import { type RuleInput, type Stage, type StageEvent, startStage } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'
import { issuerConfig } from '../support/tokens.ts'

const PG = fileURLToPath(new URL('../../node_modules/pg/esm/index.mjs', import.meta.url))

let issuer: CiIssuer
let stage: Stage
let directory: string
beforeAll(async () => {
  issuer = await startCiIssuer()
  directory = await mkdtemp(join(tmpdir(), 'pgusher-each-ci-'))
  await writeFile(join(directory, 'job.mjs'), JOB)
  stage = await startStage({
    issuers: Object.fromEntries(
      CI_NAMES.map((name) => [name, { ...issuer.issuerConfig(name), audience: audienceOf(name) }]),
    ),
    rules: CI_NAMES.map(ruleOf),
    config: (config) => ({
      ...config,
      tickets: { key: randomBytes(32).toString('base64') },
      issuers: Object.fromEntries(CI_NAMES.map((name) => [name, config.issuers[name]!])),
    }),
  })
})
afterAll(async () => {
  await stage.close()
  await issuer.close()
  await rm(directory, { recursive: true })
})

/** A job that knows nothing but its DATABASE_URL, and connects twice. */
const JOB = `
  import { writeFileSync } from 'node:fs'
  import pg from ${JSON.stringify(PG)}
  const ask = async () => {
    const client = new pg.Client({ connectionString: process.env.DATABASE_URL })
    await client.connect()
    const { rows } = await client.query('select current_user as role, session_user as login')
    await client.end()
    return rows[0]
  }
  writeFileSync(process.argv[2], JSON.stringify([await ask(), await ask()]))`

/** Systems that give a job one token, at its start; pgusher gives a ticket for it. */
const ONE_TOKEN: ReadonlySet<CiName> = new Set<CiName>([
  ...(['gitlab', 'jenkins', 'bitbucket', 'semaphore', 'spacelift', 'hcp-terraform', 'harness'] as const),
])

const ruleIn = (event: StageEvent) => (event['security_rule'] as { name?: string } | undefined)?.name

/** Semaphore's is always the issuer, which is on loopback here. */
const audienceOf = (name: CiName): string => (name === 'semaphore' ? issuer.issuerUrl(name) : issuer.audience(name))

/** Claims that rules of a preset must name beside those that identify. */
const NAMED_AS_WELL: Partial<Record<CiName, readonly string[]>> = {
  spacelift: ['runType'],
  'hcp-terraform': ['terraform_run_phase'],
}

/** Whatever that system's tokens say of the project that they are for. */
function ruleOf(name: CiName): RuleInput {
  const { claims } = principalFromClaims(name, issuerConfig(name, { url: issuer.issuerUrl(name) }), CI_CLAIMS[name])
  const identifying = [...claims].filter(
    ([claim]) => PRESETS[name].claims[claim]?.identifying === true || NAMED_AS_WELL[name]?.includes(claim),
  )
  const match = Object.fromEntries(
    identifying.map(([claim, value]) => [claim, typeof value === 'string' ? value : (value[0] ?? '')]),
  )
  return {
    name: `of-${name}`,
    issuer: name,
    match,
    allow: { database: 'shop-prod', role: 'shop_migrator', ticket_life: '10m' },
  }
}

test.each(CI_NAMES)('%s', async (name) => {
  await using scope = new AsyncDisposableStack()
  const ci = await simulateCi(name, issuer, { audience: audienceOf(name) })
  scope.defer(() => ci.close())
  const [said, file] = [[] as string[], join(directory, name)]
  const code = await runExec({
    server: { host: '127.0.0.1', port: stage.port },
    ...{ caFile: stage.caFile, database: 'shop-prod', user: 'ci', audience: undefined },
    source: { env: ci.env },
    command: [process.execPath, join(directory, 'job.mjs'), file],
    ...{ env: ci.env, socket: false, terminal: false, quiet: false },
    say: (text) => void said.push(text),
  })
  expect({ code, said }).toMatchObject({ code: 0 })
  const [first, second] = JSON.parse(await readFile(file, 'utf8')) as { role: string; login: string }[]
  expect(first).toEqual({ role: 'shop_migrator', login: expect.stringMatching(/^pgu_/) })
  expect(second?.role).toBe('shop_migrator')
  const proof = ONE_TOKEN.has(name) ? `a ticket ${UNTIL}` : 'a fresh token for each connection'
  expect(said).toEqual([
    expect.stringMatching(new RegExp(`^pgusher: .+, role ci, database shop-prod at 127\\.0\\.0\\.1:\\d+; ${proof}\n$`)),
  ])
  const started = await eventually(async () => {
    const found = await stage.events((event) => event.event === 'session.started' && ruleIn(event) === `of-${name}`)
    return found.length === 2 && found
  })
  const kinds = started.map(({ pgusher }) => (pgusher['admission'] as { kind: string }).kind)
  expect(kinds).toEqual(ONE_TOKEN.has(name) ? ['ticket', 'ticket'] : ['token', 'token'])
})
