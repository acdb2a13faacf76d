/** What the rules say about a job, before it is put into words. */
import type { ClaimValue, Principal } from '../identity/principal.ts'
import type { Condition } from './condition.ts'
import type { CompiledIssuer, CompiledRule, Policy } from './policy.ts'
import type { AccessRequest } from './types.ts'

/** The user name that asks for the one role that a job may have, so no role may be called that. */
export const ANY_ROLE = 'ci'

export interface Verdict {
  policy: Policy
  principal: Principal
  request: AccessRequest
  now: number
  /** Undefined when the policy knows the principal's issuer no more. */
  issuer: CompiledIssuer | undefined
  /** The issuer's `require` holds. */
  required: boolean
  /** Allow rules of any database whose conditions hold and that have not expired. */
  allowing: readonly CompiledRule[]
  /** The deny rule that decided. */
  denying: CompiledRule | undefined
  /** Roles that this job may ask for on the requested database. */
  roles: readonly string[]
  granted: { rule: CompiledRule; role: string } | undefined
}

type Claims = ReadonlyMap<string, ClaimValue>

/** Whether a condition holds for a job; a missing claim counts against the job whatever the rule's effect. */
export function holds(condition: Condition, claims: Claims, effect: 'allow' | 'deny'): boolean {
  const value = claims.get(condition.claim)
  if (value !== undefined) return condition.test(value)
  return effect === 'allow' ? condition.whenMissing : condition.whenMissingInDeny
}

export function matches(rule: CompiledRule, claims: Claims): boolean {
  return rule.conditions.every((condition) => holds(condition, claims, rule.effect))
}

/** Whether a rule's databases or roles include a name; a deny rule without them includes all. */
export function covers(names: ReadonlySet<string> | undefined, name: string): boolean {
  return names === undefined || names.has(name)
}

/** Databases that this job may use as it is, with one role or with any: what a refusal may tell it about itself. */
export function openDatabases({ issuer, allowing, policy, principal }: Verdict, role?: string): string[] {
  const denies = issuer?.denies.filter((rule) => matches(rule, principal.claims)) ?? []
  const names = new Set<string>()
  for (const rule of allowing) {
    const roles = [...(rule.roles ?? [])].filter((one) => role === undefined || one === role)
    for (const name of rule.databases ?? []) {
      const denied = (one: string): boolean =>
        denies.some((deny) => covers(deny.databases, name) && covers(deny.roles, one))
      if (policy.databases.has(name) && roles.some((one) => !denied(one))) names.add(name)
    }
  }
  return [...names]
}
