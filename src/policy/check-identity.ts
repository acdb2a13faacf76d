/** Load-time refusals about who a rule lets in: it must name somebody, by something that can't be taken by somebody else. */
import { quote, quoteList } from '../config/quote.ts'
import type { ConditionConfig, IssuerConfig, RuleConfig } from '../config/schema.ts'
import type { Path } from '../config/yaml-source.ts'
import type { Preset } from '../identity/preset.ts'
import { PRESETS } from '../identity/presets/index.ts'
import { issuerUrl } from '../identity/principal-from-claims.ts'
import { claimSpec } from './check-claims.ts'
import type { Report } from './report.ts'

/** A condition that means little without another one. */
const COMPANIONS: readonly {
  preset: Preset['name']
  claim: string
  needs: readonly string[]
  level: 'error' | 'warning'
  why: string
  hint: string
}[] = [
  {
    preset: 'github-actions',
    claim: 'environment',
    needs: ['ref'],
    level: 'error',
    why: 'GitHub creates an environment, without protection, when a workflow on any branch names it',
    hint: 'add ref, for example ref: refs/heads/main, and protect the environment',
  },
  {
    preset: 'gitlab',
    claim: 'environment',
    needs: ['ref_protected', 'environment_protected', 'ref_path', 'ref'],
    level: 'warning',
    why: 'GitLab creates an environment when a job on any branch names it',
    hint: 'add ref_protected: "true", or environment_protected: "true" where your edition has protected environments',
  },
  {
    preset: 'google',
    claim: 'email',
    needs: ['email_verified'],
    level: 'error',
    why: 'an address that Google has not verified is what somebody typed in',
    hint: 'add email_verified: "true"',
  },
  {
    preset: 'harness',
    claim: 'pipeline_id',
    needs: ['project_id'],
    level: 'error',
    why: 'identifiers of pipelines are chosen by people, and each project may have one of that name',
    hint: 'add project_id and organization_id',
  },
  {
    preset: 'harness',
    claim: 'project_id',
    needs: ['organization_id'],
    level: 'warning',
    why: 'identifiers of projects are chosen by people, and each organization may have one of that name',
    hint: 'add organization_id',
  },
]

/** Claims that a rule ties down with the issuer's `require`: by equality, `in` or a glob, not by exclusion. */
function positiveClaims(issuer: IssuerConfig, rule: RuleConfig): Set<string> {
  const positive = Object.entries(rule.match).filter(
    ([, condition]) => typeof condition === 'string' || !('not_in' in condition),
  )
  return new Set([...Object.keys(issuer.require), ...positive.map(([claim]) => claim)])
}

/** `refs/heads/*` is every branch, also one that was pushed for the purpose. */
function takesAny(condition: ConditionConfig | undefined): boolean {
  return typeof condition === 'object' && 'glob' in condition && /(?:^|[/:])\*$/.test(condition.glob)
}

function exactClaims(issuer: IssuerConfig, rule: RuleConfig): Set<string> {
  const exact = (condition: ConditionConfig): boolean => typeof condition === 'string' || 'in' in condition
  const fromRule = Object.entries(rule.match).filter(([, condition]) => exact(condition))
  return new Set([...Object.keys(issuer.require), ...fromRule.map(([claim]) => claim)])
}

/** For allow rules only: a deny rule may be as wide as it likes. */
export function checkIdentity(report: Report, at: Path, issuer: IssuerConfig, rule: RuleConfig): void {
  const preset = PRESETS[issuer.preset]
  const exact = exactClaims(issuer, rule)
  const place = [...at, 'match']
  const url = issuerUrl(issuer)
  const shared = url !== undefined && preset.sharedIssuer(url)
  const tenancy = [...preset.tenancyClaims, ...issuer.tenancy]
  const identifying = identifyingClaims(preset, issuer)
  const named = identifying.filter((claim) => exact.has(claim))
  if (shared && !tenancy.some((claim) => exact.has(claim))) {
    const message = `${url} issues tokens to everybody, and this rule names none of ${quoteList(tenancy)}`
    report.error(
      place,
      message,
      nameHint(preset, exact) ?? `put ${tenancy[0]} into \`require\` of issuer ${quote(rule.issuer)}`,
      'key',
    )
  } else if (issuer.tenancy.length > 0 && !issuer.tenancy.some((claim) => exact.has(claim))) {
    report.error(
      place,
      `the rule names none of the issuer's tenancy claims ${quoteList(issuer.tenancy)}`,
      'name one by equality or `in`, here or in `require` of the issuer',
      'key',
    )
  } else if (named.length === 0) {
    const hint = nameHint(preset, exact) ?? `name one by equality or \`in\`: ${identifying.join(', ')}`
    report.error(
      place,
      `the rule does not say whose jobs it lets in: none of ${quoteList(identifying)} is named`,
      hint,
      'key',
    )
  } else warnAboutNames(report, place, preset, named)
  const positive = positiveClaims(issuer, rule)
  checkNeeds(report, place, preset, positive)
  checkCompanions(report, place, preset, positive, rule)
}

function checkNeeds(report: Report, place: Path, preset: Preset, positive: ReadonlySet<string>): void {
  for (const { anyOf, level, why } of preset.ruleNeeds ?? []) {
    if (anyOf.some((claim) => positive.has(claim))) continue
    report[level](
      place,
      `the rule does not name ${quoteList(anyOf)}, as rules of ${preset.name} ${level === 'error' ? 'must' : 'should'}: ${why}`,
      'name it by equality or `in`, here or in `require` of the issuer',
      'key',
    )
  }
}

function identifyingClaims(preset: Preset, issuer: IssuerConfig): string[] {
  const listed = Object.keys(preset.claims).filter((claim) => preset.claims[claim]?.identifying === true)
  return [...listed, ...issuer.tenancy.filter((claim) => !listed.includes(claim))]
}

/** Where a name stands alone, the id that belongs to it. */
function nameHint(preset: Preset, exact: ReadonlySet<string>): string | undefined {
  for (const claim of exact) {
    if (claimSpec(preset, claim)?.class !== 'mutable') continue
    const id = [`${claim}_id`, `${claim.replace(/_(path|slug|name)$/, '')}_id`].find(
      (one) => claimSpec(preset, one)?.class === 'immutable',
    )
    if (id !== undefined)
      return `${claim} is a name that can be given to somebody else; name ${id} (beside it or instead)`
  }
  return undefined
}

function warnAboutNames(report: Report, place: Path, preset: Preset, named: readonly string[]): void {
  if (named.some((claim) => claimSpec(preset, claim)?.class !== 'mutable')) return
  const id = Object.keys(preset.claims).find(
    (claim) => preset.claims[claim]?.identifying === true && preset.claims[claim]?.class === 'immutable',
  )
  if (id === undefined) return
  report.warning(
    place,
    `the rule names only ${quoteList(named, 'and')}, which can be deleted and made again by somebody else`,
    `add ${id}`,
    'key',
  )
}

function checkCompanions(
  report: Report,
  place: Path,
  preset: Preset,
  positive: ReadonlySet<string>,
  { match }: RuleConfig,
): void {
  for (const { preset: name, claim, needs, level, why, hint } of COMPANIONS) {
    if (preset.name !== name || !positive.has(claim)) continue
    if (needs.some((one) => positive.has(one) && !takesAny(match[one]))) continue
    report[level]([...place, claim], `${claim} without ${needs[0]}, or with any: ${why}`, hint, 'key')
  }
}
