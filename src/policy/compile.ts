/** From a loaded configuration to a Policy. Contradictions and unsafe rules are refused here, once, and never at a connection. */
import { type Diagnostic, sortDiagnostics } from '../config/diagnostics.ts'
import type { LoadedConfig } from '../config/load.ts'
import type { Config, IssuerConfig, RuleConfig } from '../config/schema.ts'
import { PRESETS } from '../identity/presets/index.ts'
import { issuerUrl } from '../identity/principal-from-claims.ts'
import { claimSpec } from './check-claims.ts'
import { checkIssuers } from './check-issuers.ts'
import { checkRules } from './check-rules.ts'
import { checkSettings } from './check-settings.ts'
import { type Condition, type ConditionOptions, compileCondition } from './condition.ts'
import type { CompiledIssuer, CompiledRule, Policy } from './policy.ts'
import { createReport } from './report.ts'

export type CompileResult =
  | { ok: true; policy: Policy; warnings: Diagnostic[] }
  /** Errors and warnings together, in order. */
  | { ok: false; diagnostics: Diagnostic[] }

/** Errors and warnings, in order. Works on a mended configuration too. @param now milliseconds since the epoch */
export function checkPolicy(loaded: LoadedConfig, now: number = Date.now()): Diagnostic[] {
  const report = createReport(loaded)
  checkSettings(report)
  checkIssuers(report)
  checkRules(report, now)
  return sortDiagnostics(report.diagnostics, loaded.files)
}

/** @param loaded never a mended one @param now milliseconds since the epoch; for warnings about rules that have expired */
export function compilePolicy(loaded: LoadedConfig, now: number = Date.now()): CompileResult {
  const diagnostics = checkPolicy(loaded, now)
  if (diagnostics.some((one) => one.level === 'error')) return { ok: false, diagnostics }
  return { ok: true, policy: buildPolicy(loaded), warnings: diagnostics }
}

export type PolicySource = Pick<LoadedConfig, 'config' | 'version' | 'ruleSources'>

/** @param source checked before */
export function buildPolicy({ config, version, ruleSources }: PolicySource): Policy {
  const rules = config.rules.map((rule, index) => compileRule(config, rule, index, ruleSources[index]?.file ?? ''))
  const issuers = Object.entries(config.issuers).map(([name, issuer]): [string, CompiledIssuer] => {
    const own = rules.filter((rule) => rule.config.issuer === name)
    const allows = own.filter((rule) => rule.effect === 'allow')
    const denies = own.filter((rule) => rule.effect === 'deny')
    const require = conditions(issuer, issuer.require, 'require')
    return [name, { name, config: issuer, require, tenancyInRules: tenancyInRules(issuer), allows, denies }]
  })
  const databases = new Map(Object.entries(config.databases))
  return {
    version,
    issuers: new Map(issuers),
    databases,
    rules,
    grantedRoles: new Map([...databases.keys()].map((name) => [name, grantedRoles(rules, name)])),
    textMode: config.audit.text,
  }
}

function tenancyInRules(issuer: IssuerConfig): ReadonlySet<string> | undefined {
  const preset = PRESETS[issuer.preset]
  const shared = preset.sharedIssuer(issuerUrl(issuer) ?? '')
  const claims = [...(shared ? preset.tenancyClaims : []), ...issuer.tenancy]
  return claims.length === 0 || claims.some((claim) => Object.hasOwn(issuer.require, claim))
    ? undefined
    : new Set(claims)
}

function grantedRoles(rules: readonly CompiledRule[], database: string): string[] {
  const granting = rules.filter((rule) => rule.effect === 'allow' && rule.databases?.has(database) === true)
  return [...new Set(granting.flatMap((rule) => [...(rule.roles ?? [])]))].sort()
}

function compileRule(config: Config, rule: RuleConfig, index: number, ruleset: string): CompiledRule {
  const issuer = config.issuers[rule.issuer]
  if (issuer === undefined) throw new TypeError(`rule ${rule.name} was not checked before it was compiled`)
  const target = rule.allow ?? rule.deny ?? {}
  const expires =
    rule.allow !== undefined && rule.expires !== undefined ? Date.parse(rule.expires) : Number.POSITIVE_INFINITY
  return {
    index,
    config: rule,
    ruleset,
    effect: rule.allow === undefined ? 'deny' : 'allow',
    databases: target.database === undefined ? undefined : new Set(target.database),
    roles: target.role === undefined ? undefined : new Set(target.role),
    conditions: conditions(issuer, rule.match, 'match'),
    expiresAt: expires,
    explain: rule.explain && issuer.explain,
  }
}

function conditions(issuer: IssuerConfig, match: RuleConfig['match'], from: ConditionOptions['from']): Condition[] {
  const preset = PRESETS[issuer.preset]
  return Object.entries(match).map(([claim, condition]) =>
    compileCondition(claim, condition, {
      from,
      absenceMeaningful: claimSpec(preset, claim)?.absenceMeaningful === true,
    }),
  )
}
