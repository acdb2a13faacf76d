import fc from 'fast-check'
import { expect, test } from 'vitest'
import { evaluate } from '../../src/policy/evaluate.ts'
import { HEAD } from '../config/write-config.ts'
import { decide, githubJob, NOW, outcome, policyOf } from './policy-of.ts'

type Match = Record<string, string | { in: string[] } | { not_in: string[] } | { glob: string }>
interface Rule {
  name: string
  match: Match
  effect: 'allow' | 'deny'
  database: string[]
  role: string[]
}

/** JSON is YAML. */
function text(rules: readonly Rule[]): string {
  const entries = rules.map(({ name, match, effect, database, role }) => ({
    name,
    issuer: 'github',
    match,
    [effect]: { database, role },
  }))
  return `${HEAD}rules: ${JSON.stringify(entries)}\n`
}

const REFS = ['refs/heads/main', 'refs/heads/dev', 'refs/tags/v1']
const EVENTS = ['push', 'schedule', 'workflow_dispatch']
const some = <T>(values: readonly T[]) => fc.subarray([...values], { minLength: 1 })
const condition = (values: readonly string[]) =>
  fc.oneof(
    fc.constantFrom(...values),
    some(values).map((list) => ({ in: list })),
    some(values).map((list) => ({ not_in: list })),
  )

const ID = fc.oneof(
  fc.constantFrom('1', '2'),
  some(['1', '2', '3']).map((list) => ({ in: list })),
)
const MATCH: fc.Arbitrary<Match> = fc
  .record(
    {
      repository_id: ID,
      ref: fc.oneof(condition(REFS), fc.constantFrom({ glob: 'refs/heads/*' }, { glob: 'refs/tags/v*' })),
      event_name: condition(EVENTS),
      runner_environment: condition(['self-hosted', 'github-hosted']),
    },
    { requiredKeys: ['repository_id'] },
  )
  .map((match) => match as Match)

const RULES = fc
  .array(
    fc.record({
      match: MATCH,
      effect: fc.constantFrom('allow' as const, 'allow' as const, 'deny' as const),
      database: some(['shop', 'stock']),
      role: some(['reader', 'writer']),
    }),
    { minLength: 1, maxLength: 6 },
  )
  .map((rules): Rule[] => rules.map((rule, index) => ({ name: `r${index}`, ...rule })))

const JOB = fc.record({
  repository_id: fc.constantFrom('1', '2', '9', undefined),
  ref: fc.constantFrom(...REFS, undefined),
  event_name: fc.constantFrom(...EVENTS, undefined),
  runner_environment: fc.constantFrom('self-hosted', 'github-hosted', undefined),
  environment: fc.constant(undefined),
})
const USER = fc.constantFrom('reader', 'writer', 'other')

/** The policy's meaning in a few lines; a missing claim counts against the job on both sides. */
function applies(rule: Rule, job: Record<string, string | undefined>): boolean {
  return Object.entries(rule.match).every(([claim, wanted]) => {
    const got = job[claim]
    if (got === undefined) return rule.effect === 'deny'
    if (typeof wanted === 'string') return got === wanted
    if ('in' in wanted) return wanted.in.includes(got)
    if ('not_in' in wanted) return !wanted.not_in.includes(got)
    return wanted.glob === 'refs/heads/*' ? /^refs\/heads\/[^/:]*$/.test(got) : /^refs\/tags\/v[^/:]*$/.test(got)
  })
}

const RUNS = { numRuns: 60 }

test('a decision is what the rules mean: deny beats allow, the first allow wins, no rule is no', async () => {
  await fc.assert(
    fc.asyncProperty(RULES, fc.array(fc.tuple(JOB, USER), { minLength: 10, maxLength: 10 }), async (rules, jobs) => {
      const policy = await policyOf(text(rules))
      for (const [job, user] of jobs) {
        const decision = decide(policy, job, user)
        const here = rules.filter(
          (rule) => rule.database.includes('shop') && rule.role.includes(user) && applies(rule, job),
        )
        const expected = here.some((rule) => rule.effect === 'deny') ? undefined : here[0]?.name
        expect(decision.allowed ? decision.grant.rule : undefined).toBe(expected)
        // The trace tells the same story as the decision.
        const matched = decision.trace.filter((rule) => rule.matched)
        expect(matched.map((rule) => rule.rule)).toEqual(here.map((rule) => rule.name))
      }
    }),
    RUNS,
  )
})

test('one more condition on an allow rule never lets more in', async () => {
  await fc.assert(
    fc.asyncProperty(
      RULES,
      MATCH,
      fc.array(fc.tuple(JOB, USER), { minLength: 10, maxLength: 10 }),
      async (rules, more, jobs) => {
        const { repository_id: _id, ...added } = more
        const narrower = rules.map((rule) =>
          rule.effect === 'allow' ? { ...rule, match: { ...added, ...rule.match } } : rule,
        )
        const [wide, narrow] = [await policyOf(text(rules)), await policyOf(text(narrower))]
        for (const [job, user] of jobs) {
          if (decide(narrow, job, user).allowed) expect(decide(wide, job, user).allowed).toBe(true)
        }
      },
    ),
    RUNS,
  )
})

test('`ci` gives the one role that the job may name itself, and no other', async () => {
  await fc.assert(
    fc.asyncProperty(RULES, fc.array(JOB, { minLength: 10, maxLength: 10 }), async (rules, jobs) => {
      const policy = await policyOf(text(rules))
      for (const job of jobs) {
        const own = ['reader', 'writer'].filter((role) => decide(policy, job, role).allowed)
        const decision = decide(policy, job, 'ci')
        expect(decision.allowed ? [decision.grant.role] : []).toEqual(own.length === 1 ? own : [])
        if (own.length > 1)
          expect(outcome(decision)).toMatch(/^role_not_allowed: .*this job may use "(reader|writer)" or/)
      }
    }),
    RUNS,
  )
})

const MIGRATE = `rules:
  - name: migrate
    issuer: github
    match: { repository_id: "784500001", ref: refs/heads/main, event_name: { not_in: [schedule] } }
    allow: { database: shop, role: migrator, max_session: 30m, statement_timeout: 10s, audit: { text: none } }
  - name: no-staging
    issuer: github
    match: { environment: { not_in: [production] } }
    deny: { database: shop, role: migrator }
`

test('a grant carries what the rule gives', async () => {
  const policy = await policyOf(HEAD + MIGRATE)
  const decision = decide(policy, {}, 'migrator')
  expect(decision).toMatchObject({
    allowed: true,
    matched: ['migrate'],
    grant: {
      rule: 'migrate',
      database: 'shop',
      role: 'migrator',
      maxSession: 1_800_000,
      maxConnections: 10,
      statementTimeout: 10_000,
      windowConnections: 1_000,
      anyAddress: false,
      functionCall: false,
      replication: false,
      textMode: 'none',
      policyVersion: policy.version,
    },
  })
  expect(decision.allowed && decision.grant.ruleset).toMatch(/pgusher\.yaml$/)
  expect(decision.allowed && Object.keys(decision.grant)).not.toContain('lockTimeout')
})

test('a missing claim denies, for not_in too, unless the preset says that absence is a statement', async () => {
  const policy = await policyOf(HEAD + MIGRATE)
  expect(outcome(decide(policy, { event_name: undefined }, 'migrator'))).toMatch(
    /^claim_missing: .*the token has no claim event_name/,
  )
  // GitHub leaves `environment` out when the job names none: not_in holds, and this deny rule refuses.
  expect(outcome(decide(policy, { environment: undefined }, 'migrator'))).toMatch(
    /^denied_by_rule: .*rule "no-staging" refuses this job: the token has no claim environment/,
  )
})

test('a list claim equals what it contains, and one refused element refuses the list', async () => {
  const issuers = HEAD.replace(
    /github:[\s\S]*?(?=databases:)/,
    'github: { preset: generic, audience: x, url: https://id.acme.example, tenancy: [team] }\n',
  )
  const policy = await policyOf(`${issuers}rules:
  - { name: a, issuer: github, match: { team: shop, groups: { in: [dba, ops] }, other: { not_in: [guest] } }, allow: { database: shop, role: reader } }
`)
  const job = { team: 'shop', groups: ['dev', 'dba'], other: ['x'] }
  expect(outcome(decide(policy, job, 'reader'))).toBe('a/reader')
  expect(outcome(decide(policy, { ...job, groups: ['dev'] }, 'reader'))).toMatch(
    /claim groups is the list "dev", rule "a" needs one of "dba" or "ops"/,
  )
  expect(outcome(decide(policy, { ...job, groups: [] }, 'reader'))).toMatch(/claim groups is an empty list/)
  expect(outcome(decide(policy, { ...job, other: ['x', 'guest'] }, 'reader'))).toMatch(/^no_matching_rule/)
})

test('a rule allows nothing from the moment it expires', async () => {
  const policy = await policyOf(HEAD + MIGRATE.replace('    allow:', '    expires: 2026-12-01\n    allow:'))
  const at = (time: string) =>
    evaluate(policy, githubJob(policy), { database: 'shop', user: 'migrator' }, Date.parse(time))
  expect(at('2026-11-30T23:59:59.999Z').allowed).toBe(true)
  expect(outcome(at('2026-12-01T00:00:00Z'))).toBe(
    'no_matching_rule: access to "shop" denied: rule "migrate" expired on 2026-12-01',
  )
})

test('names of Object.prototype are no databases, roles or claims', async () => {
  const policy = await policyOf(HEAD + MIGRATE)
  for (const name of ['constructor', '__proto__', 'toString']) {
    expect(outcome(decide(policy, {}, 'migrator', name))).toMatch(/^database_unknown/)
    expect(outcome(decide(policy, {}, name))).toMatch(/^role_not_allowed/)
  }
})

test('after a reload a job of an issuer that is gone, or of another URL under its name, is refused', async () => {
  const old = await policyOf(HEAD + MIGRATE)
  const moved = await policyOf(
    (HEAD + MIGRATE).replace('    audience:', '    url: https://github.acme.example/_services/token\n    audience:'),
  )
  const decision = evaluate(moved, githubJob(old), { database: 'shop', user: 'migrator' }, NOW)
  expect(outcome(decision)).toBe('issuer_unknown: the issuer of this token is not configured any more')
})

test('a decision over a thousand rules takes less than a few milliseconds', async () => {
  const rules = Array.from(
    { length: 1_000 },
    (_, index) =>
      `  - { name: r${index}, issuer: github, match: { repository_id: "${index}", ref: { glob: refs/heads/* } }, allow: { database: shop, role: reader } }\n`,
  )
  const policy = await policyOf(`${HEAD}rules:\n${rules.join('')}`)
  const job = githubJob(policy, { repository_id: '999' })
  const times = Array.from({ length: 20 }, () => {
    const started = performance.now()
    expect(evaluate(policy, job, { database: 'shop', user: 'reader' }, NOW).allowed).toBe(true)
    return performance.now() - started
  })
  expect(Math.min(...times)).toBeLessThan(5)
})
