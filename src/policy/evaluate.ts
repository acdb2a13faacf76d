/**
 * The decision about one connection: pure, and the same in `serve`, `explain` and the check of running sessions after a
 * reload. A deny rule beats every allow; among allows the first in file order wins; without a rule the answer is no.
 */
import type { TextMode } from '../config/schema.ts'
import type { Principal } from '../identity/principal.ts'
import { issuerUrl } from '../identity/principal-from-claims.ts'
import { denial } from './denial.ts'
import type { CompiledRule, Policy } from './policy.ts'
import { recordedTrace } from './recorded-trace.ts'
import { statementLimit } from './statement-limit.ts'
import { traceRules } from './trace.ts'
import type { AccessRequest, Decision, Grant } from './types.ts'
import { ANY_ROLE, covers, holds, matches, type Verdict } from './verdict.ts'

/** @param now milliseconds since the epoch */
export function evaluate(policy: Policy, principal: Principal, request: AccessRequest, now: number): Decision {
  const verdict = judge(policy, principal, request, now)
  const { granted, denying, allowing } = verdict
  const here = allowing.filter((rule) => covers(rule.databases, request.database))
  const matched = (denying === undefined ? here : [denying, ...here]).map((rule) => rule.config.name)
  let traced: ReturnType<typeof traceRules> | undefined
  // Most callers never look at the trace, and it is the dearest part of a decision.
  const trace = () => (traced ??= traceRules(policy, principal, request, now))
  if (granted !== undefined) {
    const grant = makeGrant(policy, granted.rule, request.database, granted.role)
    return {
      allowed: true,
      grant,
      matched,
      get trace() {
        return trace()
      },
    }
  }
  const error = denial(verdict)
  error.evidence = (maxBytes) => ({ ...recordedTrace(trace(), policy.version, maxBytes) })
  return {
    allowed: false,
    error,
    matched,
    get trace() {
      return trace()
    },
  }
}

function judge(policy: Policy, principal: Principal, request: AccessRequest, now: number): Verdict {
  const named = policy.issuers.get(principal.issuerName)
  // After a reload another issuer may stand under the name: that one did not verify this job.
  const issuer = named === undefined || issuerUrl(named.config) !== principal.iss ? undefined : named
  const required = issuer?.require.every((condition) => holds(condition, principal.claims, 'allow')) === true
  const refused: Verdict = {
    policy,
    principal,
    request,
    now,
    issuer,
    allowing: [],
    denying: undefined,
    roles: [],
    granted: undefined,
    required,
  }
  if (issuer === undefined || !required) return refused
  const allowing = issuer.allows.filter((rule) => rule.expiresAt > now && matches(rule, principal.claims))
  const denies = issuer.denies.filter(
    (rule) => covers(rule.databases, request.database) && matches(rule, principal.claims),
  )
  const here = allowing.filter((rule) => covers(rule.databases, request.database))
  const allowed = rolesOf(here)
  const roles = allowed.filter((role) => !denies.some((rule) => covers(rule.roles, role)))
  const denying = denyingRule(denies, request.user, allowed, roles)
  const role = request.user === ANY_ROLE ? only(roles) : request.user
  const verdict: Verdict = { ...refused, allowing, denying, roles }
  if (denying !== undefined || role === undefined || !roles.includes(role) || !policy.databases.has(request.database))
    return verdict
  const rule = here.find((one) => covers(one.roles, role))
  return rule === undefined ? verdict : { ...verdict, granted: { rule, role } }
}

/** `ci` leaves out roles that are denied to the job, and is refused by a deny rule when that leaves none. */
function denyingRule(
  denies: readonly CompiledRule[],
  user: string,
  allowed: readonly string[],
  open: readonly string[],
): CompiledRule | undefined {
  const wanted = user !== ANY_ROLE ? [user] : open.length === 0 ? allowed : []
  return denies.find((rule) => rule.roles === undefined || wanted.some((role) => covers(rule.roles, role)))
}

function rolesOf(rules: readonly CompiledRule[]): string[] {
  return [...new Set(rules.flatMap((rule) => [...(rule.roles ?? [])]))]
}

function only(roles: readonly string[]): string | undefined {
  return roles.length === 1 ? roles[0] : undefined
}

function makeGrant(policy: Policy, rule: CompiledRule, database: string, role: string): Grant {
  const allow = rule.config.allow
  if (allow === undefined) throw new TypeError(`rule ${rule.config.name} grants nothing`)
  const textMode: TextMode = allow.audit.text ?? policy.databases.get(database)?.audit.text ?? policy.textMode
  return {
    rule: rule.config.name,
    ruleset: rule.ruleset,
    policyVersion: policy.version,
    database,
    role,
    maxSession: allow.max_session,
    maxConnections: allow.max_connections,
    ...(allow.statement_timeout === undefined ? {} : { statementTimeout: allow.statement_timeout }),
    ...(allow.lock_timeout === undefined ? {} : { lockTimeout: allow.lock_timeout }),
    ...(allow.idle_in_transaction_session_timeout === undefined
      ? {}
      : { idleInTransactionSessionTimeout: allow.idle_in_transaction_session_timeout }),
    ...(allow.job_window === undefined ? {} : { jobWindow: allow.job_window }),
    windowConnections: allow.window_connections,
    ...(allow.ticket_life === undefined ? {} : { ticketLife: allow.ticket_life }),
    anyAddress: allow.any_address,
    functionCall: allow.function_call,
    replication: allow.replication,
    ...(allow.statements === undefined ? {} : { statements: statementLimit(rule, allow.statements) }),
    textMode,
  }
}
