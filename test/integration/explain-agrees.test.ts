/** What `pgusher explain` says about a token and what happens to the job that shows it are the same. */
import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import fc from 'fast-check'
import pg from 'pg'
import { expect, test } from 'vitest'
import type { Claims, IssuerShape } from '../../src/cli/demo/issuer.ts'
import { RULES, type RuleInput, type Stage, type StageEvent, startStage } from '../support/pgusher.ts'

const EXPLAIN_MANY = fileURLToPath(new URL('../support/explain-many.ts', import.meta.url))
const JOBS = 200

const MORE_RULES: readonly RuleInput[] = [
  { name: 'no-tags', issuer: 'github', match: { ref: { glob: 'refs/tags/*' } }, deny: { role: 'shop_migrator' } },
  {
    name: 'release-branches',
    issuer: 'github',
    match: {
      repository_id: '784500001',
      ref: { glob: 'refs/heads/release/*' },
      environment: { not_in: ['production'] },
    },
    allow: { database: ['shop-prod', 'warehouse'], role: ['shop_reader', 'shop_migrator'] },
    explain: false,
  },
  {
    name: 'last-year',
    issuer: 'gitlab',
    match: { project_id: '20451' },
    allow: { database: 'warehouse', role: 'shop_reader' },
    expires: '2025-12-31',
  },
]

interface GeneratedJob {
  shape: IssuerShape
  claims: Claims
  audience: string | undefined
  user: string
  database: string
}

/** Mostly the first value; undefined leaves the claim out. */
const mostly = <T>(usual: T, ...others: T[]): fc.Arbitrary<T> =>
  fc.oneof({ weight: 4, arbitrary: fc.constant(usual) }, { weight: 1, arbitrary: fc.constantFrom(...others) })

const github = fc.record({
  ref: mostly<string | undefined>(
    'refs/heads/main',
    'refs/heads/fix-1',
    'refs/heads/release/2',
    'refs/tags/v1',
    undefined,
  ),
  environment: mostly<string | undefined>('production', 'staging', undefined),
  event_name: mostly<string | undefined>('push', 'workflow_dispatch', 'pull_request', 'pull_request_target', undefined),
  repository_id: mostly<string | number | undefined>('784500001', 784500001, '1', undefined),
  repository_owner_id: mostly<string | undefined>('9100001', '666', undefined),
  run_id: mostly<string | undefined>('18700000412', '18700000413', undefined),
})

const gitlab = fc.record({
  project_id: mostly<string | undefined>('20451', '666', undefined),
  namespace_id: mostly<string | undefined>('72', '666', undefined),
  ref_protected: mostly<string | boolean>('true', true, 'false'),
  pipeline_source: mostly('push', 'merge_request_event', 'schedule'),
})

const buildkite = fc.record({
  organization_id: mostly<string | undefined>('d94f33ab-8ac6-4ccc-bdd8-c709f28aa794', undefined),
  pipeline_id: mostly<string | undefined>('7ddd6920-d6cb-492b-9a36-e6482a2e780b', 'other', undefined),
  build_branch: mostly('main', 'fix-1'),
})

const jenkins = fc.record({
  sub: mostly(
    'https://jenkins.acme.example/job/acme/job/shop/job/main/',
    'https://jenkins.acme.example/job/acme/job/shop/job/fix-1/',
  ),
  build_number: mostly<number | undefined>(412, undefined),
})

const ofShape = <T extends Claims>(shape: IssuerShape, claims: fc.Arbitrary<T>, user: string, database: string) =>
  fc.record<GeneratedJob>({
    shape: fc.constant(shape),
    claims,
    audience: fc.oneof(
      { weight: 12, arbitrary: fc.constant(undefined) },
      { weight: 1, arbitrary: fc.constant('https://vault.acme.example') },
    ),
    user: mostly(user, 'shop_migrator', 'shop_reader', 'ci', 'postgres', 'SHOP_READER'),
    database: mostly(database, 'shop-prod', 'warehouse', 'shop-prd'),
  })

const job = fc.oneof(
  { weight: 4, arbitrary: ofShape('github', github, 'shop_migrator', 'shop-prod') },
  { weight: 2, arbitrary: ofShape('gitlab', gitlab, 'shop_reader', 'shop-prod') },
  { weight: 2, arbitrary: ofShape('buildkite', buildkite, 'ci', 'warehouse') },
  { weight: 1, arbitrary: ofShape('jenkins', jenkins, 'ci', 'shop-prod') },
)

interface Outcome {
  allowed: boolean
  role?: string
  rule?: string
  code?: string
  sqlstate?: string
  message?: string
  detail?: string
  hint?: string
}

interface ShownJob extends GeneratedJob {
  token: string
}

async function explained(stage: Stage, jobs: readonly ShownJob[]): Promise<Outcome[]> {
  const commandLines = await Promise.all(
    jobs.map(async ({ token, user, database }, index) => {
      const file = join(stage.directory, `token-${index}.jwt`)
      await writeFile(file, `${token}\n`)
      const who = ['--token-file', file, '--database', database, '--user', user]
      return ['explain', '--config', stage.configFile, ...who, '--format', 'json']
    }),
  )
  const list = join(stage.directory, 'command-lines.json')
  await writeFile(list, JSON.stringify(commandLines))
  const { stdout } = await promisify(execFile)(process.execPath, [EXPLAIN_MANY, list], { maxBuffer: 256 * 1024 * 1024 })
  const answers = stdout.split('\x1e').slice(0, -1)
  return answers.map((answer) => {
    const { allowed, grant, error } = JSON.parse(answer)
    if (allowed) return { allowed, role: grant.role, rule: grant.rule }
    const { code, sqlstate, message, detail, hint } = error
    return { allowed, code, sqlstate, message, detail, hint }
  })
}

/** An outcome but for what only the audit says, and how to find its event there. */
interface Attempt {
  outcome: Outcome
  isIts: (event: StageEvent) => boolean
}

async function attempt(stage: Stage, { token, user, database }: ShownJob): Promise<Attempt> {
  const client = new pg.Client(stage.client({ token, user, database }))
  client.on('error', () => {})
  try {
    await client.connect()
    const { rows } = await client.query<{ login: string; role: string }>(
      'SELECT session_user::text AS login, current_user::text AS role',
    )
    return {
      outcome: { allowed: true, role: rows[0]?.role ?? '' },
      isIts: ({ event, pgusher }) =>
        event === 'session.started' && (pgusher['db'] as { login: string }).login === rows[0]?.login,
    }
  } catch (thrown) {
    if (!(thrown instanceof pg.DatabaseError)) throw thrown
    const [, message = '', id] = /^(.*) \[(D-[0-9A-Z]+)\]$/s.exec(thrown.message) ?? []
    const { code: sqlstate = '', detail, hint } = thrown
    return {
      outcome: { allowed: false, sqlstate, message, ...definedOf({ detail, hint }) },
      isIts: ({ event, pgusher }) =>
        event === 'session.denied' && (pgusher['decision'] as { id: string } | undefined)?.id === id,
    }
  } finally {
    await client.end()
  }
}

async function lived(stage: Stage, jobs: readonly ShownJob[]): Promise<Outcome[]> {
  const attempts: Attempt[] = []
  for (const one of jobs) attempts.push(await attempt(stage, one))
  const last = attempts.at(-1)
  if (last !== undefined) await stage.waitForEvent(last.isIts)
  const events = await stage.events()
  return attempts.map(({ outcome, isIts }) => {
    const event = events.find(isIts)
    if (event === undefined) throw new Error(`the audit has no event of ${JSON.stringify(outcome)}`)
    if (outcome.allowed) return { ...outcome, rule: (event['security_rule'] as { name: string }).name }
    return { ...outcome, code: (event.pgusher['decision'] as { code: string }).code }
  })
}

function definedOf(fields: Record<string, string | undefined>): Partial<Outcome> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}

test(`explain and serve agree on ${JOBS} generated tokens`, async () => {
  await using stage = await startStage({ rules: [...RULES, ...MORE_RULES] })
  const jobs: ShownJob[] = []
  for (const one of fc.sample(job, { numRuns: JOBS, seed: 20261121 })) {
    const options = one.audience === undefined ? {} : { audience: one.audience }
    jobs.push({ ...one, token: await stage.token(one.shape, one.claims, options) })
  }
  const [wanted, seen] = await Promise.all([explained(stage, jobs), lived(stage, jobs)])
  expect(wanted).toHaveLength(JOBS)
  for (const [index, { token: _, ...shown }] of jobs.entries())
    expect(seen[index], JSON.stringify(shown)).toEqual(wanted[index])
  // The sample is worth something: many are let in, and refusals of many kinds are among the rest.
  expect(wanted.filter(({ allowed }) => allowed).length).toBeGreaterThan(JOBS / 5)
  expect(new Set(wanted.map(({ rule }) => rule)).size).toBeGreaterThan(4)
  expect(new Set(wanted.map(({ code }) => code)).size).toBeGreaterThan(6)
})
