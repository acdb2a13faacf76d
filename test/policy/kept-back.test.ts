/** What a refused job must not learn, on generated policies in which every text is a word of its own. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { AccessError } from '../../src/errors.ts'
import { HEAD } from '../config/write-config.ts'
import { decide, GITHUB_JOB, policyOf } from './policy-of.ts'

const OWN = '784500001'
const STRANGER = '666'

interface GeneratedRule {
  effect: 'allow' | 'deny'
  /** Whose jobs it is about. */
  repository: string
  /** The job's own ref meets the condition. */
  refFits: boolean
  glob: boolean
  environment: boolean
  explain: boolean
  database: 'shop' | 'stock'
  expired: boolean
  words: boolean
}

interface Case {
  rules: GeneratedRule[]
  issuerExplains: boolean
  /** By `require` of the issuer; else by the rules. */
  requireTenancy: boolean
  /** What the job has, and asks for. */
  owner: string
  repository: string
  user: number | 'ci' | 'other'
  database: 'shop' | 'stock' | 'gone'
}

const rule = fc.record<GeneratedRule>({
  effect: fc.oneof(
    { weight: 3, arbitrary: fc.constant('allow' as const) },
    { weight: 1, arbitrary: fc.constant('deny' as const) },
  ),
  repository: fc.constantFrom(OWN, OWN, '2'),
  refFits: fc.boolean(),
  glob: fc.boolean(),
  environment: fc.boolean(),
  explain: fc.boolean(),
  database: fc.constantFrom('shop', 'stock'),
  expired: fc.oneof({ weight: 5, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
  words: fc.boolean(),
})

const cases = fc.record<Case>({
  rules: fc.array(rule, { minLength: 1, maxLength: 4 }),
  issuerExplains: fc.oneof({ weight: 3, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
  requireTenancy: fc.boolean(),
  owner: fc.constantFrom('9100001', '9100001', '9100001', STRANGER),
  repository: fc.constantFrom(OWN, OWN, STRANGER),
  user: fc.oneof(fc.nat(3), fc.constantFrom('ci' as const, 'other' as const)),
  database: fc.constantFrom('shop', 'shop', 'stock', 'gone'),
})

/** Words that occur once in the policy and in no message: the name of a rule, what it wants, its role, its words. */
const marks = (index: number) => ({
  name: `zname${index}q`,
  wanted: `refs/heads/zref${index}q`,
  environment: `zenv${index}q`,
  role: `zrole${index}q`,
  otherRole: `zother${index}q`,
  message: `zmessage${index}q.`,
})

function policyText({ rules, issuerExplains, requireTenancy }: Case): string {
  const head = HEAD.replace('    require: { repository_owner_id: "9100001" }\n', (require) =>
    [issuerExplains ? '' : '    explain: false\n', requireTenancy ? require : ''].join(''),
  )
  const entries = rules.map((one, index) => {
    const { name, wanted, environment, role, otherRole, message } = marks(index)
    const ref = one.refFits ? 'refs/heads/main' : wanted
    const match = [
      `repository_id: "${one.repository}"`,
      `ref: ${one.glob && !one.refFits ? `{ glob: ${ref}/* }` : ref}`,
      ...(one.environment ? [`runner_environment: ${environment}`] : []),
    ]
    return [
      `  - name: ${name}`,
      '    issuer: github',
      `    match: { ${match.join(', ')} }`,
      `    ${one.effect}: { database: ${one.database}, role: [${role}, ${otherRole}] }`,
      ...(one.explain ? [] : ['    explain: false']),
      ...(one.expired && one.effect === 'allow' ? ['    expires: 2026-01-01'] : []),
      ...(one.words ? [`    on_deny: { message: ${message} }`] : []),
    ].join('\n')
  })
  return `${head}rules:\n${entries.join('\n')}\n`
}

/** Marks that this refusal may show. */
function allowedMarks(one: Case, asked: string): Set<string> {
  const seen = new Set([asked])
  const ofTenant = (rule: GeneratedRule): boolean =>
    one.requireTenancy ? one.owner === '9100001' : rule.repository === one.repository
  const someTenant = one.rules.some((rule) => rule.effect === 'allow' && ofTenant(rule))
  for (const [index, rule] of one.rules.entries()) {
    const { name, wanted, environment, role, otherRole, message } = marks(index)
    if (ofTenant(rule) && rule.explain && one.issuerExplains) {
      for (const mark of [name, wanted, environment, role, otherRole]) seen.add(mark)
    }
    if (ofTenant(rule) || (rule.effect === 'deny' && someTenant)) seen.add(message)
    // A role that the job may have as it is belongs to the job.
    const holds = rule.refFits && !rule.environment && !rule.expired && rule.repository === one.repository
    if (rule.effect === 'allow' && holds && (!one.requireTenancy || one.owner === '9100001')) {
      seen.add(role).add(otherRole)
    }
  }
  return seen
}

const told = ({ message, detail, hint }: AccessError): string => [message, detail, hint].join('\n')

test('no word of a rule is told where it must not be', async () => {
  let denials = 0
  let shown = 0
  await fc.assert(
    fc.asyncProperty(cases, async (one) => {
      const policy = await policyOf(policyText(one))
      const asked = typeof one.user === 'number' ? marks(one.user).role : one.user
      const job = {
        ...GITHUB_JOB,
        repository_owner_id: one.owner,
        repository_id: one.repository,
      }
      const decision = decide(policy, job, asked, one.database)
      if (decision.allowed) return
      denials++
      const text = told(decision.error)
      const allowed = allowedMarks(one, asked)
      for (const [index] of one.rules.entries()) {
        for (const mark of Object.values(marks(index))) {
          if (text.includes(mark)) shown++
          if (!allowed.has(mark)) expect(text).not.toContain(mark)
        }
      }
      if (one.requireTenancy && one.owner !== '9100001') expect(text).not.toContain('9100001')
      expect(decision.error.message.length).toBeLessThan(300)
    }),
    { numRuns: 400 },
  )
  // Otherwise nothing was compared.
  expect(denials).toBeGreaterThan(150)
  expect(shown).toBeGreaterThan(100)
})
