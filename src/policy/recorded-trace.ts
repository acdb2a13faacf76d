/** The trace of a refused decision as the audit keeps it: `pgusher.decision.trace`, which `pgusher why` reads again. */
import type { ConditionTrace, RuleTrace } from './types.ts'

export interface RecordedCondition {
  claim: string
  wanted: string
  got?: string | undefined
  ok: boolean
}

export interface RecordedRule {
  rule: string
  effect: 'allow' | 'deny'
  /** Why the rule was not looked at further. */
  skipped?: string | undefined
  matched: boolean
  /** Those of the rule itself. */
  conditions: readonly RecordedCondition[]
}

export interface RecordedTrace {
  /** Hex SHA-256 of the configuration that decided. */
  policy_version: string
  /** Of the job's issuer. */
  require: readonly RecordedCondition[]
  /** In file order. */
  rules: readonly RecordedRule[]
  /** How many rules are not in `rules`: those that have least to do with the job. */
  omitted?: number | undefined
}

/** Characters of a value; a policy may list a thousand of them in one condition. */
const MAX_VALUE = 300

/**
 * @param maxBytes of JSON in UTF-8; where not all rules fit, the ones that came nearest stay. None is kept of a job that is not
 *   ours by the issuer's `require`: no rule was asked, and any stranger's job can be refused as often as it likes.
 */
export function recordedTrace(rules: readonly RuleTrace[], policyVersion: string, maxBytes: number): RecordedTrace {
  const require = requireOf(rules).map(recordedCondition)
  let room = maxBytes - bytesOf({ policy_version: policyVersion, require, rules: [], omitted: rules.length })
  const kept: { index: number; rule: RecordedRule }[] = []
  const ours = require.every(({ ok }) => ok)
  for (const { rule, index } of ours ? byRelevance(rules) : []) {
    const recorded = recordedRule(rule)
    room -= bytesOf(recorded) + 1
    if (room < 0) break
    kept.push({ index, rule: recorded })
  }
  const omitted = rules.length - kept.length
  return {
    policy_version: policyVersion,
    require,
    rules: kept.sort((a, b) => a.index - b.index).map(({ rule }) => rule),
    ...(omitted === 0 ? {} : { omitted }),
  }
}

/** The conditions that an issuer's `require` adds to each of its rules, once. */
export function requireOf(rules: readonly RuleTrace[]): ConditionTrace[] {
  const first = rules.find(({ conditions }) => conditions.some(({ from }) => from === 'require'))
  return first?.conditions.filter(({ from }) => from === 'require') ?? []
}

function recordedRule({ rule, effect, skipped, matched, conditions }: RuleTrace): RecordedRule {
  const own = skipped === undefined ? conditions.filter(({ from }) => from === 'match') : []
  return {
    rule,
    effect,
    ...(skipped === undefined ? {} : { skipped: brief(skipped) }),
    matched,
    conditions: own.map(recordedCondition),
  }
}

function recordedCondition({ claim, wanted, got, ok }: ConditionTrace): RecordedCondition {
  return { claim, wanted: brief(wanted), ...(got === undefined ? {} : { got: brief(got) }), ok }
}

function brief(text: string): string {
  return text.length <= MAX_VALUE ? text : `${text.slice(0, MAX_VALUE).replace(/[\ud800-\udbff]$/, '')}…`
}

/** Rules that were looked at first, by how few of their conditions fail; then those of other roles, databases and issuers. */
function byRelevance(rules: readonly RuleTrace[]): { rule: RuleTrace; index: number }[] {
  const distance = ({ skipped, conditions }: RuleTrace): number => {
    const failing = conditions.filter(({ ok }) => !ok).length
    return skipped === undefined ? failing : 1_000_000 + (conditions.length === 0 ? 1_000_000 : failing)
  }
  return rules
    .map((rule, index) => ({ rule, index, distance: distance(rule) }))
    .sort((a, b) => a.distance - b.distance || a.index - b.index)
}

function bytesOf(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value))
}
