/** What a preset demands of a token whatever the rules say: the tenant that the issuer's URL names, and the kind of token that is meant. */
import { quote } from '../config/quote.ts'
import type { IssuerConfig } from '../config/schema.ts'
import { AccessError } from '../errors.ts'
import type { Preset, Refusal } from './preset.ts'
import { PRESETS } from './presets/index.ts'
import type { ClaimValue, Principal } from './principal.ts'
import { plainUuid } from './principal-from-claims.ts'

/** The name under which `allow_events` would accept this value; undefined where it is not refused. */
export function refusedEvent(refusal: Refusal, value: ClaimValue | undefined): string | undefined {
  const values = typeof value === 'string' ? [value] : (value ?? [])
  if ('values' in refusal) return refusal.values.find((one) => values.includes(one))
  return values.some((one) => refusal.like.test(one)) ? refusal.event : undefined
}

/** All names that `allow_events` knows of a preset. */
export function refusedEvents(preset: Preset): string[] {
  return preset.refused.flatMap((refusal) => ('values' in refusal ? refusal.values : [refusal.event]))
}

export function claimText(value: ClaimValue | undefined): string {
  return typeof value === 'string' ? value : (value ?? []).join(', ')
}

/**
 * One key set may sign for every tenant of a provider, so that `iss` says less than it seems to: the id in it must be the
 * token's own. @throws AccessError `claim_missing` or `tenancy_mismatch`.
 */
export function checkTenant(principal: Principal, issuer: IssuerConfig): void {
  const form = PRESETS[issuer.preset].issuerForm
  const tenant = form?.like.exec(principal.iss)?.groups?.['tenant']
  if (form?.tenantClaim === undefined || tenant === undefined) return
  const { tenantClaim: claim } = form
  const value = claimText(principal.claims.get(claim))
  if (value === '') {
    throw new AccessError(
      'claim_missing',
      `the token has no ${claim}, which must be the id in its issuer's URL; tokens of this provider should have it: tell the operator of pgusher`,
    )
  }
  // Ids of other kinds tell capitals apart.
  const isUuid = PRESETS[issuer.preset].claims[claim]?.uuid === true
  if (value === (isUuid ? plainUuid(tenant) : tenant)) return
  throw new AccessError(
    'tenancy_mismatch',
    `${claim} is ${quote(value)} and the issuer's URL is that of ${quote(tenant)}: the token is not of that tenant`,
  )
}

/** @throws AccessError `claim_missing` or `denied_by_rule`. @param recipe how to get a token that is right, for MESSAGE */
export function checkDemands(principal: Principal, preset: Preset, recipe: string): void {
  for (const { claim, like, wanted, why } of preset.demands ?? []) {
    const value = claimText(principal.claims.get(claim))
    if (value === '') {
      throw new AccessError('claim_missing', `the token has no ${claim}, which must be ${wanted}: ${why}`, {
        hint: `In the job: ${recipe}`,
      })
    }
    if (like.test(value)) continue
    throw new AccessError('denied_by_rule', `${claim} is ${quote(value)} and must be ${wanted}: ${why}`, {
      hint: `In the job: ${recipe}`,
    })
  }
}

/** @throws AccessError `claim_missing` or `denied_by_rule`. */
export function checkRefused(principal: Principal, issuer: IssuerConfig): void {
  const preset = PRESETS[issuer.preset]
  for (const refusal of preset.refused) {
    const { claim, why } = refusal
    const value = principal.claims.get(claim)
    // A provider that renames the claim must not thereby let in what is refused by it.
    if (value === undefined && preset.claims[claim]?.absenceMeaningful !== true) {
      throw new AccessError(
        'claim_missing',
        `the token has no ${claim}, which tells a trustworthy job from one that is refused because ${why}; tokens of this provider should have it: tell the operator of pgusher`,
      )
    }
    const event = refusedEvent(refusal, value)
    if (event === undefined || issuer.allow_events.includes(event)) continue
    throw new AccessError(
      'denied_by_rule',
      `${claim} is ${quote(claimText(value))}: such a job is refused, as ${why}`,
      { hint: `The operator can accept it by allow_events: [${event}] of issuer ${quote(principal.issuerName)}.` },
    )
  }
}
