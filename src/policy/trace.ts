/** Rule by rule and condition by condition: what was wanted, what the job has. For `explain` and for the audit. */
import { quote, quoteList } from '../config/quote.ts'
import type { Principal } from '../identity/principal.ts'
import { type Condition, showValue } from './condition.ts'
import type { CompiledRule, Policy } from './policy.ts'
import type { AccessRequest, ConditionTrace, RuleTrace } from './types.ts'
import { ANY_ROLE, covers, holds } from './verdict.ts'

/** All rules in file order. */
export function traceRules(policy: Policy, principal: Principal, request: AccessRequest, now: number): RuleTrace[] {
  return policy.rules.map((rule) => {
    const base = { rule: rule.config.name, effect: rule.effect, config: rule.config }
    const skipped = skipReason(rule, principal, request, now)
    if (rule.config.issuer !== principal.issuerName)
      return { ...base, skipped: skipped ?? '', conditions: [], matched: false }
    const require = policy.issuers.get(principal.issuerName)?.require ?? []
    const conditions = [
      ...traceConditions(require, principal, 'allow'),
      ...traceConditions(rule.conditions, principal, rule.effect),
    ]
    const matched = skipped === undefined && conditions.every((one) => one.ok)
    return { ...base, ...(skipped === undefined ? {} : { skipped }), conditions, matched }
  })
}

export function traceConditions(
  conditions: readonly Condition[],
  principal: Principal,
  effect: CompiledRule['effect'],
): ConditionTrace[] {
  return conditions.map((condition) => ({
    claim: condition.claim,
    wanted: condition.wanted,
    got: showValue(principal.claims.get(condition.claim)),
    ok: holds(condition, principal.claims, effect),
    from: condition.from,
  }))
}

function skipReason(rule: CompiledRule, principal: Principal, request: AccessRequest, now: number): string | undefined {
  if (rule.config.issuer !== principal.issuerName) return `is for issuer ${quote(rule.config.issuer)}`
  if (!covers(rule.databases, request.database)) return `is for ${quoteList([...(rule.databases ?? [])])}`
  if (request.user !== ANY_ROLE && !covers(rule.roles, request.user))
    return `is for role ${quoteList([...(rule.roles ?? [])])}`
  if (rule.expiresAt <= now) return `expired on ${rule.config.expires}`
  return undefined
}
