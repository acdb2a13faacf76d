import { expect, test } from 'vitest'
import type { RecordedTrace } from '../../src/policy/recorded-trace.ts'
import { HEAD } from '../config/write-config.ts'
import { decide, policyOf } from './policy-of.ts'

/** Rule 7 of fifty has one condition that fails, the others have two; half are for another database. */
const rules = Array.from({ length: 50 }, (_, index) => {
  const repository = index === 7 ? '784500001' : String(index)
  return `  - name: rule-${index}
    issuer: github
    match: { repository_id: "${repository}", ref: refs/heads/${'x'.repeat(index * 20)}y }
    allow: { database: ${index % 2 === 1 ? 'shop' : 'stock'}, role: reader }
`
})

async function traceWithin(maxBytes: number, claims: Record<string, unknown> = {}): Promise<RecordedTrace> {
  const decision = decide(await policyOf(`${HEAD}rules:\n${rules.join('')}`), claims, 'reader')
  if (decision.allowed) throw new Error('allowed')
  return decision.error.evidence?.(maxBytes) as unknown as RecordedTrace
}

test('holds the require once, and each rule with what was wanted and what there is, in file order', async () => {
  const trace = await traceWithin(1_000_000)
  expect(trace.policy_version).toMatch(/^[0-9a-f]{64}$/)
  expect(trace.require).toEqual([{ claim: 'repository_owner_id', wanted: '"9100001"', got: '"9100001"', ok: true }])
  expect(trace.rules.map(({ rule }) => rule)).toEqual(rules.map((_, index) => `rule-${index}`))
  expect(trace.rules[1]).toEqual({
    rule: 'rule-1',
    effect: 'allow',
    matched: false,
    conditions: [
      { claim: 'repository_id', wanted: '"1"', got: '"784500001"', ok: false },
      { claim: 'ref', wanted: `"refs/heads/${'x'.repeat(20)}y"`, got: '"refs/heads/main"', ok: false },
    ],
  })
  expect(trace.rules[0]).toEqual({
    rule: 'rule-0',
    effect: 'allow',
    skipped: 'is for "stock"',
    matched: false,
    conditions: [],
  })
  expect(trace.omitted).toBeUndefined()
})

test.each([1_000, 3_000, 8_000])('has at most %i bytes, and keeps the rules that came nearest', async (maxBytes) => {
  const trace = await traceWithin(maxBytes)
  expect(Buffer.byteLength(JSON.stringify(trace))).toBeLessThanOrEqual(maxBytes)
  expect(trace.rules.map(({ rule }) => rule)).toContain('rule-7')
  expect(trace.rules.length + (trace.omitted ?? 0)).toBe(50)
  const order = trace.rules.map(({ rule }) => Number(rule.slice('rule-'.length)))
  expect(order).toEqual([...order].sort((a, b) => a - b))
})

test('of a job of another organisation it holds the require alone, however often that is refused', async () => {
  const trace = await traceWithin(1_000_000, { repository_owner_id: '666' })
  expect(trace).toMatchObject({ require: [{ got: '"666"', ok: false }], rules: [], omitted: 50 })
})

test('a condition with a thousand values does not fill it', async () => {
  const many = Array.from({ length: 1_000 }, (_, index) => `refs/heads/${'long'.repeat(30)}${index}`)
  const text = `${HEAD}rules:
  - name: many
    issuer: github
    match: { repository_id: "784500001", ref: { in: [${many.join(', ')}] } }
    allow: { database: shop, role: reader }
`
  const decision = decide(await policyOf(text), {}, 'reader')
  if (decision.allowed) throw new Error('allowed')
  const trace = decision.error.evidence?.(4_000) as unknown as RecordedTrace
  expect(trace.rules[0]?.conditions[1]?.wanted).toMatch(/^one of "refs\/heads\/long.{0,300}…$/)
})
