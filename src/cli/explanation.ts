/** How `pgusher explain` shows a decision, to people and to programs. */
import type { Position } from '../config/diagnostics.ts'
import { printable, quote } from '../config/quote.ts'
import type { AccessError } from '../errors.ts'
import type { Principal } from '../identity/principal.ts'
import type { AccessRequest, ConditionTrace, Decision, RuleTrace } from '../policy/types.ts'

export interface Explanation {
  request: AccessRequest
  /** Parallel to the decision's trace. */
  ruleSources: readonly Position[]
  policyVersion: string
  principal?: Principal
  decision?: Decision
  /** Why the token or the claims did not get as far as the policy. */
  refusal?: AccessError
}

export function explanationText(explanation: Explanation): string {
  const { request, principal, decision, refusal, ruleSources } = explanation
  const lines = [`request  database ${quote(request.database)}, user ${quote(request.user)}`]
  if (principal !== undefined) lines.push(...jobLines(principal))
  if (decision !== undefined) lines.push('', ...traceLines(decision.trace, ruleSources, principal))
  lines.push('')
  if (decision?.allowed === true) {
    const { rule, database, role, maxSession, maxConnections } = decision.grant
    lines.push(
      `decision  allowed by rule ${rule}: role ${quote(role)} on ${quote(database)}, sessions up to ${maxSession / 1000} s, at most ${maxConnections} at once`,
    )
  } else {
    const error = decision?.allowed === false ? decision.error : refusal
    if (error !== undefined) lines.push(...refusalLines(error))
  }
  return `${lines.join('\n')}\n`
}

function jobLines({ issuerName, provider, subject, job, tenancyMatches }: Principal): string[] {
  const lines = [`issuer   ${issuerName} (${provider})`, `subject  ${quote(subject)}`]
  if (job.runUrl !== undefined) lines.push(`run      ${printable(job.runUrl)}`)
  if (!tenancyMatches) lines.push('tenancy  the require of the issuer does not hold')
  return lines
}

function traceLines(
  trace: readonly RuleTrace[],
  sources: readonly Position[],
  principal: Principal | undefined,
): string[] {
  const require = trace.find((one) => one.conditions.some((condition) => condition.from === 'require'))
  const lines: string[] = []
  if (require !== undefined) {
    lines.push(`require of issuer ${principal?.issuerName ?? ''}`, ...conditionLines(require.conditions, 'require'), '')
  }
  for (const [index, rule] of trace.entries()) {
    const source = sources[index]
    const where = source === undefined ? '' : ` (${source.file}:${source.line})`
    const state = rule.skipped !== undefined ? `skipped: ${rule.skipped}` : rule.matched ? 'matches' : 'does not match'
    lines.push(`${rule.effect} rule ${rule.rule}${where}: ${state}`)
    if (rule.skipped === undefined) lines.push(...conditionLines(rule.conditions, 'match'))
  }
  return lines
}

function conditionLines(conditions: readonly ConditionTrace[], from: ConditionTrace['from']): string[] {
  const shown = conditions.filter((one) => one.from === from)
  const width = Math.max(0, ...shown.map((one) => one.claim.length))
  return shown.map(
    ({ ok, claim, wanted, got }) =>
      `  ${ok ? '✓' : '✗'} ${printable(claim).padEnd(width)}  wanted ${wanted}, got ${got ?? 'nothing'}`,
  )
}

/** As psql shows an ErrorResponse; the denial id at the end of MESSAGE is made for each real denial. */
function refusalLines({ code, sqlstate, message, detail, hint }: AccessError): string[] {
  const lines = [`decision  denied: ${code}`, '', `FATAL:  ${sqlstate}: ${message}`]
  if (detail !== undefined && detail !== '') lines.push(`DETAIL:  ${detail.replaceAll('\n', '\n         ')}`)
  if (hint !== undefined && hint !== '') lines.push(`HINT:  ${hint}`)
  return lines
}

export function explanationJson({
  request,
  principal,
  decision,
  refusal,
  ruleSources,
  policyVersion,
}: Explanation): string {
  const error = decision?.allowed === false ? decision.error : refusal
  const value = {
    allowed: decision?.allowed === true,
    request,
    policy_version: policyVersion,
    ...(principal === undefined
      ? {}
      : {
          job: {
            issuer: principal.issuerName,
            provider: principal.provider,
            subject: principal.subject,
            tenancy_matches: principal.tenancyMatches,
            ...principal.job,
          },
        }),
    ...(decision?.allowed === true ? { grant: decision.grant } : {}),
    ...(error === undefined
      ? {}
      : {
          error: {
            code: error.code,
            sqlstate: error.sqlstate,
            message: error.message,
            detail: error.detail,
            hint: error.hint,
            nearest: error.nearest,
          },
        }),
    matched: decision?.matched ?? [],
    rules: (decision?.trace ?? []).map(({ config: _config, ...rule }, index) => ({
      ...rule,
      source: ruleSources[index],
    })),
  }
  return `${JSON.stringify(value, null, 2)}\n`
}
