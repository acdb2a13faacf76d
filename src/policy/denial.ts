/**
 * A refusal in words. MESSAGE carries the reason by itself, DETAIL has a line for each claim, HINT the next step and whom
 * to ask. What a rule wanted is only told to a job of our own tenancy, and not where `explain: false` keeps it back.
 */
import { printable, quote, quoteList } from '../config/quote.ts'
import { didYouMean } from '../config/suggest.ts'
import { AccessError, type AccessErrorOptions, type DenialCode } from '../errors.ts'
import { PRESETS } from '../identity/presets/index.ts'
import { showValue } from './condition.ts'
import { claimHint } from './denial-hints.ts'
import { type Near, nearestForAudit, nearestRules } from './nearest.ts'
import type { CompiledIssuer, CompiledRule } from './policy.ts'
import { traceConditions } from './trace.ts'
import type { ConditionTrace } from './types.ts'
import { ANY_ROLE, holds, openDatabases, type Verdict } from './verdict.ts'

export function denial(verdict: Verdict): AccessError {
  const { issuer, policy, request, denying, roles } = verdict
  if (issuer === undefined) {
    return new AccessError('issuer_unknown', 'the issuer of this token is not configured any more', {
      detail: ownClaims(verdict),
    })
  }
  if (!verdict.required) return tenancyMismatch(verdict, issuer)
  if (!policy.databases.has(request.database)) return databaseUnknown(verdict)
  if (denying !== undefined) return deniedByRule(verdict, denying)
  if (request.user === ANY_ROLE && roles.length > 1) return ambiguousRole(verdict)
  const near = nearestRules(verdict, issuer)
  const roleIsGranted = near.some((one) => one.roleFits)
  if (roles.length > 0 && !roleIsGranted) return roleNotAllowed(verdict)
  return noMatchingRule(verdict, issuer, near)
}

function refuse(verdict: Verdict, code: DenialCode, why: string, options: AccessErrorOptions): AccessError {
  return new AccessError(code, `access to ${quote(verdict.request.database)} denied: ${why}`, options)
}

/** `ref "refs/heads/fix-1", event_name "push"`: nothing here tells what a rule looks at. */
function ownClaims({ principal }: Verdict): string {
  const shown = Object.entries(principal.auditClaims).slice(0, 16)
  const lines = shown.map(([claim, value]) => `claim ${printable(claim)}: ${showValue(value) ?? 'none'}`)
  return ["this job's token has:", ...lines].join('\n')
}

function tenancyMismatch(verdict: Verdict, issuer: CompiledIssuer): AccessError {
  const failing = traceConditions(issuer.require, verdict.principal, 'allow').filter((one) => !one.ok)
  const claims = failing
    .map((one) => (one.got === undefined ? `no claim ${one.claim}` : `${one.claim} ${one.got}`))
    .join(', ')
  const nearest = failing.map((one) => ({
    rule: `require of issuer ${issuer.name}`,
    claim: one.claim,
    wanted: one.wanted,
    got: one.got,
  }))
  const missing = failing.every((one) => one.got === undefined)
  return refuse(
    verdict,
    missing ? 'claim_missing' : 'tenancy_mismatch',
    `this token is not of the organisation that this pgusher serves (it has ${claims})`,
    {
      detail: ownClaims(verdict),
      hint: [
        missing ? tokenRecipe(verdict, issuer) : '',
        'Run the job in a repository or project of that organisation, or ask the operator of this pgusher.',
      ]
        .filter(Boolean)
        .join(' '),
      nearest,
    },
  )
}

function tokenRecipe({ principal }: Verdict, issuer: CompiledIssuer): string {
  const recipe = PRESETS[principal.provider].tokenRecipe.replaceAll('AUD', () => issuer.config.audience)
  return `Tokens of ${principal.provider} are asked for like this: ${recipe}.`
}

function databaseUnknown(verdict: Verdict): AccessError {
  const { request } = verdict
  const own = openDatabases(verdict)
  const near = didYouMean(request.database, own)
  const list = own.length === 0 ? '' : `; this job may use ${quoteList(own)}`
  const hint =
    near === undefined
      ? 'Put the name of an entry into the path of DATABASE_URL; it need not be the name of the database behind it.'
      : `Did you mean ${quote(near)}?`
  return new AccessError('database_unknown', `database ${quote(request.database)} is not known here${list}`, { hint })
}

function deniedByRule(verdict: Verdict, rule: CompiledRule): AccessError {
  const conditions = traceConditions(rule.conditions, verdict.principal, 'deny')
  const nearest = conditions.map((one) => ({
    rule: rule.config.name,
    claim: one.claim,
    wanted: one.wanted,
    got: one.got,
  }))
  const contact = ownWords(verdict, rule)
  if (!explains(verdict, rule)) {
    return refuse(verdict, 'denied_by_rule', 'a rule refuses this job', {
      detail: ownClaims(verdict),
      hint: contact,
      nearest,
    })
  }
  const claims = conditions
    .map((one) => (one.got === undefined ? `the token has no claim ${one.claim}` : `claim ${one.claim} is ${one.got}`))
    .join(' and ')
  const lines = conditions.map(
    (one) => `claim ${printable(one.claim)}: refused ${one.wanted}, got ${one.got ?? 'nothing'}`,
  )
  return refuse(verdict, 'denied_by_rule', `rule ${quote(rule.config.name)} refuses this job: ${claims}`, {
    detail: lines.join('\n'),
    hint:
      contact ||
      'A deny rule beats every rule that allows; run the job in another way, or ask the operator of this pgusher.',
    nearest,
  })
}

function ambiguousRole(verdict: Verdict): AccessError {
  const own = quoteList(verdict.roles)
  return refuse(
    verdict,
    'role_not_allowed',
    `user "${ANY_ROLE}" stands for the one role of a job, and this job may use ${own}`,
    {
      hint: 'Put one of these roles into DATABASE_URL as the user name.',
    },
  )
}

/** What this job could ask for instead. */
function alternatives(verdict: Verdict): string {
  const { request, roles } = verdict
  const elsewhere = openDatabases(verdict, request.user).filter((name) => name !== request.database)
  return [
    roles.length === 0 ? '' : `This job may use role ${quoteList(roles)} on this database.`,
    elsewhere.length === 0 ? '' : `It may use role ${quote(request.user)} on ${quoteList(elsewhere)}.`,
  ]
    .filter(Boolean)
    .join(' ')
}

function roleNotAllowed(verdict: Verdict): AccessError {
  const { request, roles } = verdict
  const near = didYouMean(request.user, roles)
  const elsewhere = openDatabases(verdict, request.user)
  return refuse(
    verdict,
    'role_not_allowed',
    `this job may not use role ${quote(request.user)}; it may use ${quoteList(roles)}`,
    {
      hint: [
        near === undefined
          ? `Put one of these roles, or "${ANY_ROLE}" for the only one, into DATABASE_URL as the user name.`
          : `Did you mean ${quote(near)}?`,
        elsewhere.length === 0 ? '' : `Role ${quote(request.user)} is for this job on ${quoteList(elsewhere)}.`,
      ]
        .filter(Boolean)
        .join(' '),
    },
  )
}

/** Whether what this rule wanted may be told to this job. */
function explains(verdict: Verdict, rule: CompiledRule): boolean {
  return rule.explain && isOfTenant(verdict, rule)
}

/** Whether the job is of the tenant that the rule is for: everybody can have a token of a shared issuer for our audience. */
function isOfTenant({ principal, issuer }: Verdict, rule: CompiledRule): boolean {
  if (!principal.tenancyMatches) return false
  const tenancy = issuer?.tenancyInRules
  if (tenancy === undefined) return true
  const own = rule.conditions.filter((condition) => tenancy.has(condition.claim))
  return own.length > 0 && own.every((condition) => holds(condition, principal.claims, 'allow'))
}

/** What the operator wrote for those who are refused; a deny rule names no tenant, so any of ours may read its words. */
function ownWords(verdict: Verdict, rule: CompiledRule): string {
  const rules = rule.effect === 'allow' ? [rule] : [rule, ...(verdict.issuer?.allows ?? [])]
  if (!rules.some((one) => isOfTenant(verdict, one))) return ''
  const { message, contact } = rule.config.on_deny ?? {}
  return [
    message === undefined ? '' : printable(message),
    contact === undefined ? '' : `Contact: ${printable(contact)}.`,
  ]
    .filter(Boolean)
    .join(' ')
}

function noMatchingRule(verdict: Verdict, issuer: CompiledIssuer, near: readonly Near[]): AccessError {
  const { principal, request } = verdict
  const first = near[0]
  const nearest = nearestForAudit(near)
  const others = alternatives(verdict)
  const told = principal.tenancyMatches && issuer.config.explain && issuer.tenancyInRules === undefined
  if (first === undefined) {
    const why = told
      ? `no rule of issuer ${quote(issuer.name)} gives access to this database`
      : 'no rule allows this job'
    return refuse(verdict, 'no_matching_rule', why, {
      detail: ownClaims(verdict),
      hint: others || 'Ask the operator of this pgusher for a rule.',
      nearest,
    })
  }
  const code =
    first.failing.length > 0 && first.failing.every((one) => one.got === undefined)
      ? 'claim_missing'
      : 'no_matching_rule'
  if (!explains(verdict, first.rule)) {
    const hint = [ownWords(verdict, first.rule), others].filter(Boolean).join(' ')
    return refuse(verdict, 'no_matching_rule', 'no rule allows this job', {
      detail: ownClaims(verdict),
      hint: hint || 'Ask the operator of this pgusher what its rules want.',
      nearest,
    })
  }
  const missing = first.failing.find((one) => one.got === undefined)
  const identifying = missing !== undefined && PRESETS[principal.provider].claims[missing.claim]?.identifying === true
  const hints = [
    ownWords(verdict, first.rule),
    ...first.failing.map(claimHint),
    identifying ? tokenRecipe(verdict, issuer) : '',
    others,
  ]
  return refuse(verdict, code, reasonText(first, request.user), {
    detail: detailText(first, request.user),
    hint:
      hints.filter(Boolean).join(' ') ||
      'Run the job where the rule wants it, or ask the operator of this pgusher for a rule.',
    nearest,
  })
}

function failureText(one: ConditionTrace): string {
  return one.got === undefined
    ? `the token has no claim ${printable(one.claim)}`
    : `claim ${printable(one.claim)} is ${one.got}`
}

function reasonText({ rule, failing, expired, roleFits }: Near, user: string): string {
  const name = `rule ${quote(rule.config.name)}`
  const [first, ...rest] = failing
  const more =
    rest.length === 0 ? '' : ` (and ${rest.length} more condition${rest.length === 1 ? ' does' : 's do'} not hold)`
  if (first !== undefined) return `${failureText(first)}, ${name} needs ${first.wanted}${more}`
  if (expired) return `${name} expired on ${rule.config.expires}`
  return roleFits ? `${name} does not hold` : `${name} does not give role ${quote(user)}`
}

function detailText({ rule, failing, expired, roleFits }: Near, user: string): string {
  const lines = failing.map((one) => `claim ${printable(one.claim)}: wanted ${one.wanted}, got ${one.got ?? 'nothing'}`)
  if (expired) lines.push(`rule ${quote(rule.config.name)}: expired on ${rule.config.expires}`)
  if (!roleFits) lines.push(`user: wanted ${quoteList([...(rule.roles ?? [])])}, got ${quote(user)}`)
  return [`rule ${quote(rule.config.name)}:`, ...lines].join('\n')
}
