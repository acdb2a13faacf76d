/** Whether a policy that came later would let a job in again: asked at a reload, and when a login took longer than a reload. */
import { AccessError } from '../errors.ts'
import { checkPresetRules } from '../identity/check-claims.ts'
import type { Principal } from '../identity/principal.ts'
import { evaluate } from '../policy/evaluate.ts'
import type { Policy } from '../policy/policy.ts'
import { allowsAsMuch } from '../policy/statement-limit.ts'
import type { AccessRequest, Grant } from '../policy/types.ts'

export interface Admitted {
  principal: Principal
  request: AccessRequest
  grant: Grant
}

/** Undefined where it would, with the same role and database and no class of statements or right less; else what the session is told. @param now milliseconds since the epoch */
export function noLongerAllowed(policy: Policy, admitted: Admitted, now: number): AccessError | undefined {
  const { grant } = admitted
  const found = grantOfNow(policy, admitted, now)
  const asMuch = found !== undefined && allowsAsMuch(found, grant) && hasRightsOf(found, grant)
  return asMuch ? undefined : policyChanged()
}

/** A session keeps what its grant gave it, and a login that may replicate can use that in other ways than by a stream of the log. */
function hasRightsOf(after: Grant, before: Grant): boolean {
  return (after.replication || !before.replication) && (after.functionCall || !before.functionCall)
}

/** What the policy gives for the same database, role and rule; undefined where it gives that no more. */
export function stillGranted(policy: Policy, principal: Principal, grant: Grant, now: number): Grant | undefined {
  const request = { database: grant.database, user: grant.role }
  const found = grantOfNow(policy, { principal, request, grant }, now)
  return found?.rule === grant.rule ? found : undefined
}

function grantOfNow(policy: Policy, { principal, request, grant }: Admitted, now: number): Grant | undefined {
  const decision = evaluate(policy, principal, request, now)
  if (!decision.allowed || decision.grant.role !== grant.role || decision.grant.database !== grant.database)
    return undefined
  return presetHolds(policy, principal) ? decision.grant : undefined
}

export function policyChanged(): AccessError {
  return new AccessError('session_policy', 'session ended: the policy was changed and no longer allows it', {
    hint: 'Connect again to see what the policy says now.',
  })
}

/** The token was verified under the old configuration, which may have allowed more events. */
function presetHolds(policy: Policy, principal: Principal): boolean {
  const issuer = policy.issuers.get(principal.issuerName)
  if (issuer === undefined) return false
  try {
    checkPresetRules(principal, issuer.config)
    return true
  } catch (error) {
    if (error instanceof AccessError) return false
    throw error
  }
}
