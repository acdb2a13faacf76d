/** What a policy decides today for a job that the audit has on record. */
import type { LoadedConfig } from '../config/load.ts'
import { AccessError } from '../errors.ts'
import { checkPresetRules } from '../identity/check-claims.ts'
import { issuerNotConfigured } from '../identity/mistaken-password.ts'
import { PRESETS } from '../identity/presets/index.ts'
import type { Principal } from '../identity/principal.ts'
import { issuerUrl, principalFromRecord } from '../identity/principal-from-claims.ts'
import { evaluate } from '../policy/evaluate.ts'
import type { Policy } from '../policy/policy.ts'
import type { Explanation } from './explanation.ts'
import type { RecordedDenial } from './recorded-denial.ts'

export interface Today {
  explanation: Explanation
  /** Claims that rules of the job's issuer look at and that the audit does not record: they count as missing here. */
  notOnRecord: readonly string[]
}

/** @returns undefined where no job or no request is on record. @param now milliseconds since the epoch */
export function decideAgain(
  denial: RecordedDenial,
  { loaded, policy }: { loaded: LoadedConfig; policy: Policy },
  now: number,
): Today | undefined {
  const { idp, db } = denial.pgusher
  if (idp?.issuer === undefined || db?.alias === undefined || db.role === undefined) return undefined
  const request = { database: db.alias, user: db.role }
  const base = { request, ruleSources: loaded.ruleSources, policyVersion: policy.version }
  const entry = Object.entries(loaded.config.issuers).find(([, issuer]) => issuerUrl(issuer) === idp.issuer)
  if (entry === undefined) {
    return { explanation: { ...base, refusal: issuerNotConfigured() }, notOnRecord: [] }
  }
  const [name, issuer] = entry
  let principal: Principal
  try {
    principal = principalFromRecord(name, issuer, { subject: idp.subject ?? '', claims: idp.claims ?? {} })
    checkPresetRules(principal, issuer)
  } catch (thrown) {
    if (!(thrown instanceof AccessError)) throw thrown
    return { explanation: { ...base, refusal: thrown }, notOnRecord: [] }
  }
  const decision = evaluate(policy, principal, request, now)
  return { explanation: { ...base, principal, decision }, notOnRecord: notOnRecord(policy, principal) }
}

function notOnRecord(policy: Policy, principal: Principal): string[] {
  const issuer = policy.issuers.get(principal.issuerName)
  const rules = [...(issuer?.allows ?? []), ...(issuer?.denies ?? [])]
  const conditions = [...(issuer?.require ?? []), ...rules.flatMap((rule) => rule.conditions)]
  const { claims } = PRESETS[principal.provider]
  const missing = conditions
    .map(({ claim }) => claim)
    .filter((claim) => !principal.claims.has(claim) && claims[claim]?.audit !== true)
  return [...new Set(missing)]
}
