/** Load-time refusals about one condition: a claim that the provider can't assert, a pattern where none may be. */
import { quote } from '../config/quote.ts'
import type { ConditionConfig, IssuerConfig } from '../config/schema.ts'
import { suggestion } from '../config/suggest.ts'
import type { Path } from '../config/yaml-source.ts'
import type { ClaimSpec, Preset } from '../identity/preset.ts'
import { refusedEvent } from '../identity/preset-rules.ts'
import { PRESETS } from '../identity/presets/index.ts'
import { plainUuid } from '../identity/principal-from-claims.ts'
import { globProblem } from './glob.ts'
import type { Report } from './report.ts'

/** Checked for every token, so a rule that names one either repeats that or never matches. */
const PROTOCOL_CLAIMS: ReadonlySet<string> = new Set(['iss', 'aud', 'exp', 'iat', 'nbf'])

/** What the preset says of a claim; undefined for one that it does not list. */
export function claimSpec(preset: Preset, claim: string): ClaimSpec | undefined {
  return Object.hasOwn(preset.claims, claim) ? preset.claims[claim] : undefined
}

/** Claims that the configuration names for a generic issuer. */
function configuredClaims(issuer: IssuerConfig): string[] {
  return issuer.preset === 'generic' ? [...Object.keys(issuer.claims), ...issuer.tenancy] : []
}

function isOpen(preset: Preset, claim: string): boolean {
  if (typeof preset.openClaims === 'boolean') return preset.openClaims
  return preset.openClaims.some(({ prefix }) => claim.startsWith(prefix))
}

/** The values that a condition compares with. */
export function literals(condition: ConditionConfig): readonly string[] {
  if (typeof condition === 'string') return [condition]
  if ('in' in condition) return condition.in
  return 'not_in' in condition ? condition.not_in : []
}

export function checkClaim(
  report: Report,
  at: Path,
  issuer: IssuerConfig,
  claim: string,
  condition: ConditionConfig,
): void {
  const preset = PRESETS[issuer.preset]
  const spec = claimSpec(preset, claim)
  if (PROTOCOL_CLAIMS.has(claim)) {
    report.error(
      at,
      `claim ${quote(claim)} is checked for every token and is not for rules`,
      'audience and url stand in the issuer',
      'key',
    )
    return
  }
  const instead = Object.hasOwn(preset.notForRules ?? {}, claim) ? preset.notForRules?.[claim] : undefined
  if (instead !== undefined) {
    report.error(at, `claim ${quote(claim)} of ${issuer.preset} is not for rules`, instead, 'key')
    return
  }
  if (spec === undefined && !configuredClaims(issuer).includes(claim) && !isOpen(preset, claim)) {
    const known = [...Object.keys(preset.claims), ...configuredClaims(issuer)]
    report.error(
      at,
      `tokens of ${issuer.preset} carry no claim ${quote(claim)}`,
      suggestion(claim, known, 'claims'),
      'key',
    )
    return
  }
  if (typeof condition !== 'string' && 'glob' in condition)
    checkGlob(report, [...at, 'glob'], preset, issuer, claim, condition.glob)
  else checkLiterals(report, at, issuer, preset, claim, condition)
}

function checkGlob(
  report: Report,
  at: Path,
  preset: Preset,
  issuer: IssuerConfig,
  claim: string,
  pattern: string,
): void {
  const spec = claimSpec(preset, claim)
  if (claim === 'sub') {
    report.error(
      at,
      'sub takes no pattern',
      'its shape is not guaranteed, so a pattern lets in more than it seems to; name ids, or the exact subject',
    )
    return
  }
  const listed = spec !== undefined || issuer.tenancy.includes(claim) || Object.hasOwn(issuer.require, claim)
  if (listed ? spec?.glob !== true : preset.openClaims !== true) {
    const able = Object.keys(preset.claims).filter((name) => preset.claims[name]?.glob === true)
    const hint = able.length > 0 ? `claims that take a glob: ${able.join(', ')}` : undefined
    report.error(at, `claim ${quote(claim)} takes no glob; list its values under \`in\``, hint)
    return
  }
  const problem = globProblem(pattern)
  if (problem !== undefined) report.error(at, problem.message, problem.hint)
}

function checkLiterals(
  report: Report,
  at: Path,
  issuer: IssuerConfig,
  preset: Preset,
  claim: string,
  condition: ConditionConfig,
): void {
  const values = literals(condition)
  if (claim === 'sub' && claimSpec(preset, claim)?.identifying !== true) {
    report.warning(
      at,
      `the sub of ${issuer.preset} changes its shape and can be redefined`,
      'name ids and the other claims instead',
      'key',
    )
  }
  const starred = values.find((value) => value.includes('*'))
  if (starred !== undefined)
    report.warning(
      at,
      `${quote(starred)} is compared as it stands; * means something only in a glob`,
      `write { glob: ${quote(starred)} }`,
    )
  const negative = typeof condition !== 'string' && 'not_in' in condition
  const wholeRef = claimSpec(preset, claim)?.wholeRef === true
  const short = values.find((value) => wholeRef && value !== '' && !value.startsWith('refs/'))
  if (short !== undefined) {
    report.warning(
      at,
      `claim ${claim} never is ${quote(short)}: ${issuer.preset} sends whole refs`,
      `write refs/heads/${short} for a branch or refs/tags/${short} for a tag`,
    )
  }
  if (!negative) warnAboutRefused(report, at, issuer, claim, values)
  if (claimSpec(preset, claim)?.uuid === true) checkSpelling(report, at, claim, values)
}

function warnAboutRefused(
  report: Report,
  at: Path,
  issuer: IssuerConfig,
  claim: string,
  values: readonly string[],
): void {
  const of = PRESETS[issuer.preset].refused.filter((refused) => refused.claim === claim)
  for (const refused of of) {
    const found = values
      .map((value) => ({ value, event: refusedEvent(refused, value) }))
      .find(({ event }) => event !== undefined && !issuer.allow_events.includes(event))
    if (found === undefined) continue
    report.warning(
      at,
      `preset ${issuer.preset} refuses ${claim} ${quote(found.value)}: ${refused.why}`,
      `if you accept that, add ${found.event} to allow_events of the issuer`,
    )
  }
}

function checkSpelling(report: Report, at: Path, claim: string, values: readonly string[]): void {
  const value = values.find((one) => one !== plainUuid(one))
  if (value === undefined) return
  report.error(
    at,
    `${claim} never is ${quote(value)}: ids of this kind are compared without braces and in lower case`,
    `write ${quote(plainUuid(value))}`,
  )
}
