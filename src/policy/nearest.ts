/** Which rules came nearest to letting a job in. */
import type { NearestRule } from '../errors.ts'
import type { Condition } from './condition.ts'
import type { CompiledIssuer, CompiledRule } from './policy.ts'
import { traceConditions } from './trace.ts'
import type { ConditionTrace } from './types.ts'
import { ANY_ROLE, covers, type Verdict } from './verdict.ts'

export interface FailingCondition extends ConditionTrace {
  condition: Condition
}

export interface Near {
  rule: CompiledRule
  failing: readonly FailingCondition[]
  /** Conditions that hold. */
  holding: number
  expired: boolean
  /** The rule gives the role that was asked for. */
  roleFits: boolean
}

/** The allow rules for the requested database, nearest first: the right role, then the fewest failing conditions. */
export function nearestRules({ principal, request, now }: Verdict, issuer: CompiledIssuer): Near[] {
  const near = issuer.allows
    .filter((rule) => covers(rule.databases, request.database))
    .map((rule): Near => {
      const trace = traceConditions(rule.conditions, principal, 'allow')
      const failing = rule.conditions.flatMap((condition, index): FailingCondition[] => {
        const traced = trace[index]
        return traced === undefined || traced.ok ? [] : [{ ...traced, condition }]
      })
      const roleFits = request.user === ANY_ROLE || covers(rule.roles, request.user)
      return { rule, failing, holding: trace.length - failing.length, expired: rule.expiresAt <= now, roleFits }
    })
  return near.sort(
    (a, b) =>
      Number(b.roleFits) - Number(a.roleFits) ||
      distance(a) - distance(b) ||
      b.holding - a.holding ||
      a.rule.index - b.rule.index,
  )
}

function distance({ failing, expired }: Near): number {
  return failing.length + (expired ? 1 : 0)
}

const RULES_IN_AUDIT = 3
const CONDITIONS_IN_AUDIT = 4

/** For the audit event, whatever the client is told. */
export function nearestForAudit(near: readonly Near[]): NearestRule[] {
  return near.slice(0, RULES_IN_AUDIT).flatMap(({ rule, failing, expired, roleFits }) => {
    const found = failing
      .slice(0, CONDITIONS_IN_AUDIT)
      .map(({ claim, wanted, got }) => ({ rule: rule.config.name, claim, wanted, got }))
    if (expired)
      found.push({ rule: rule.config.name, claim: 'expires', wanted: `before ${rule.config.expires}`, got: undefined })
    if (!roleFits)
      found.push({ rule: rule.config.name, claim: 'role', wanted: [...(rule.roles ?? [])].join(', '), got: undefined })
    return found
  })
}
