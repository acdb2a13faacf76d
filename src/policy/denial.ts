/**
 * A refusal in words. MESSAGE carries the reason by itself, DETAIL has a line for each claim, HINT the next step and whom
 * to ask. What a rule wanted is only told to a job of our own tenancy, and not where `explain: false` keeps it back.
 */
import { printable, quote, quoteList } from '../config/quote.ts'
import { didYouMean } from '../config/suggest.ts'
import { AccessError, type AccessErrorOptions, type DenialCode } from '../errors.ts'
import { PRESETS } from '../identity/presets/index.ts'
import { showValue } from './condition.ts'
import { usualMistake } from './denial-hints.ts'
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
  if (failing.every((one) => one.got === undefined)) {
    return refuse(
      verdict,
      'claim_missing',
      `the token has ${claims}, which tells whose job this is; ask for one with it: ${recipe(verdict, issuer)}`,
      {
        detail: ownClaims(verdict),
        hint: 'Or the operator of this pgusher looks at what the token should carry.',
        nearest,
      },
    )
  }
  return refuse(
    verdict,
    'tenancy_mismatch',
    `this token is not of the organisation that this pgusher serves (it has ${claims})`,
    {
      detail: ownClaims(verdict),
      hint: 'Run the job in a repository or project of that organisation, or ask the operator of this pgusher.',
      nearest,
    },
  )
}

function recipe({ principal }: Verdict, issuer: CompiledIssuer): string {
  return PRESETS[principal.provider].tokenRecipe.replaceAll('AUD', () => issuer.config.audience)
}

function tokenRecipe(verdict: Verdict, issuer: CompiledIssuer): string {
  return `Tokens of ${verdict.principal.provider} are asked for like this: ${recipe(verdict, issuer)}.`
}

/** Names that go into MESSAGE; the likeliest one first. */
function named(names: readonly string[], likeliest?: string): string {
  const others = names.filter((name) => name !== likeliest)
  return quoteList(likeliest === undefined ? others : [likeliest, ...others], 'or', 6)
}

function databaseUnknown(verdict: Verdict): AccessError {
  const { request } = verdict
  const own = openDatabases(verdict)
  const near = didYouMean(request.database, own)
  const next =
    own.length === 0
      ? ": the path of DATABASE_URL is an entry of pgusher's configuration, which need not be called as the database behind it"
      : `; this job may use ${named(own, near)}`
  const hint =
    near === undefined
      ? 'Put the name of an entry into the path of DATABASE_URL; it need not be the name of the database behind it.'
      : `Did you mean ${quote(near)}?`
  return new AccessError('database_unknown', `database ${quote(request.database)} is not known here${next}`, { hint })
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
      hint: contact || ASK,
      nearest,
    })
  }
  const claims = conditions.map(failureText).join(' and ')
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
  const own = named(verdict.roles)
  return refuse(
    verdict,
    'role_not_allowed',
    `user "${ANY_ROLE}" stands for the one role of a job, and this job may use ${own}: put one of them into DATABASE_URL as the user`,
    {},
  )
}

/** Other databases on which this job may use the role that it asks for. */
function elsewhere(verdict: Verdict): string {
  const { request } = verdict
  const names = openDatabases(verdict, request.user).filter((name) => name !== request.database)
  return names.length === 0 ? '' : `Role ${quote(request.user)} is for this job on ${quoteList(names)}.`
}

function roleNotAllowed(verdict: Verdict): AccessError {
  const { request, roles } = verdict
  const near = didYouMean(request.user, roles)
  const next =
    near === undefined
      ? `Put one of these roles, or "${ANY_ROLE}" for the only one, into DATABASE_URL as the user name.`
      : `Did you mean ${quote(near)}?`
  return refuse(
    verdict,
    'role_not_allowed',
    `this job may not use role ${quote(request.user)}; it may use ${named(roles, near)}`,
    { hint: [next, elsewhere(verdict)].filter(Boolean).join(' ') },
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
  const first = near[0]
  if (first === undefined) return noRuleForDatabase(verdict, issuer)
  if (!explains(verdict, first.rule)) return keptBack(verdict, near)
  const { principal, request, roles } = verdict
  const missing = first.failing.find((one) => one.got === undefined)
  const identifying = missing !== undefined && PRESETS[principal.provider].claims[missing.claim]?.identifying === true
  const mistakes = first.failing.map((one) => ({
    claim: one.claim,
    mistake: usualMistake(one.condition, principal.claims),
  }))
  const also = mistakes.slice(1).filter(({ mistake }) => mistake !== undefined)
  const hints = [
    ownWords(verdict, first.rule),
    ...also.map(({ claim, mistake }) => `Claim ${printable(claim)}: ${mistake}.`),
    identifying ? tokenRecipe(verdict, issuer) : '',
    elsewhere(verdict),
  ]
  const onlyMissing = first.failing.length > 0 && first.failing.every((one) => one.got === undefined)
  const instead = roles.length === 0 ? '' : `; as it is, this job may use role ${named(roles)}`
  const why = reasonText(first, request.user, mistakes[0]?.mistake)
  return refuse(verdict, onlyMissing ? 'claim_missing' : 'no_matching_rule', `${why}${instead}`, {
    detail: detailText(first, request.user),
    hint:
      hints.filter(Boolean).join(' ') ||
      'Run the job where the rule wants it, or ask the operator of this pgusher for a rule.',
    nearest: nearestForAudit(near),
  })
}

function noRuleForDatabase(verdict: Verdict, issuer: CompiledIssuer): AccessError {
  const own = openDatabases(verdict)
  const told = verdict.principal.tenancyMatches && issuer.config.explain && issuer.tenancyInRules === undefined
  const why = told ? `no rule of issuer ${quote(issuer.name)} gives access to this database` : 'no rule allows this job'
  return refuse(verdict, 'no_matching_rule', own.length === 0 ? why : `${why}; this job may use ${named(own)}`, {
    detail: ownClaims(verdict),
    hint: elsewhere(verdict) || ASK,
    nearest: [],
  })
}

/** The nearest rule is not for this job to read: it learns what it may have, and nothing of what it may not. */
function keptBack(verdict: Verdict, near: readonly Near[]): AccessError {
  const { request, roles } = verdict
  const why =
    roles.length === 0
      ? 'no rule allows this job'
      : `no rule allows this job with role ${quote(request.user)}; it may use role ${named(roles)}`
  const words = near[0] === undefined ? '' : ownWords(verdict, near[0].rule)
  return refuse(verdict, 'no_matching_rule', why, {
    detail: ownClaims(verdict),
    hint: [words, elsewhere(verdict)].filter(Boolean).join(' ') || ASK,
    nearest: nearestForAudit(near),
  })
}

const ASK = 'Ask the operator of this pgusher, who finds the reason by the id at the end of the message.'

/** MESSAGE stays readable on one line; DETAIL has the whole. */
const BRIEF = 120

function brief(text: string): string {
  return text.length <= BRIEF ? text : `${text.slice(0, BRIEF - 1).replace(/[\ud800-\udbff]$/, '')}…`
}

function failureText(one: ConditionTrace): string {
  return one.got === undefined
    ? `the token has no claim ${brief(printable(one.claim))}`
    : `claim ${brief(printable(one.claim))} is ${brief(one.got)}`
}

function reasonText({ rule, failing, expired, roleFits }: Near, user: string, mistake: string | undefined): string {
  const name = `rule ${quote(rule.config.name)}`
  const [first, ...rest] = failing
  const otherRole = `gives role ${named([...(rule.roles ?? [])])}, not ${quote(user)}`
  if (first !== undefined) {
    const more =
      rest.length === 0 ? '' : `${rest.length} more condition${rest.length === 1 ? ' does' : 's do'} not hold`
    const remarks = [mistake ?? '', more].filter(Boolean).join('; ')
    const wants = `${failureText(first)}, ${name} needs ${brief(first.wanted)}`
    return `${wants}${remarks === '' ? '' : ` (${remarks})`}${roleFits ? '' : ` and ${otherRole}`}`
  }
  if (expired) return `${name} expired on ${rule.config.expires}`
  return roleFits ? `${name} does not hold` : `${name} ${otherRole}`
}

function detailText({ rule, failing, expired, roleFits }: Near, user: string): string {
  const lines = failing.map((one) => `claim ${printable(one.claim)}: wanted ${one.wanted}, got ${one.got ?? 'nothing'}`)
  if (expired) lines.push(`rule ${quote(rule.config.name)}: expired on ${rule.config.expires}`)
  if (!roleFits) lines.push(`user: wanted ${quoteList([...(rule.roles ?? [])])}, got ${quote(user)}`)
  return [`rule ${quote(rule.config.name)}:`, ...lines].join('\n')
}
