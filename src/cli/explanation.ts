/** How `pgusher explain` shows a decision, to people and to programs. */
import type { Position } from '../config/diagnostics.ts'
import { printable, quote } from '../config/quote.ts'
import type { AccessError } from '../errors.ts'
import type { Principal } from '../identity/principal.ts'
import { requireOf } from '../policy/recorded-trace.ts'
import type { AccessRequest, Decision, StatementLimit } from '../policy/types.ts'
import { type ShownTrace, traceLines } from './trace-text.ts'

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
  const { request, principal, decision, ruleSources } = explanation
  const lines = [`request  database ${quote(request.database)}, user ${quote(request.user)}`]
  if (principal !== undefined) lines.push(...jobLines(principal))
  if (decision !== undefined && principal !== undefined) {
    lines.push('', ...traceLines(shownTrace(decision, ruleSources, principal)))
  }
  lines.push('', ...outcomeLines(explanation))
  return `${lines.join('\n')}\n`
}

/** Rule and role of a grant, or the refusal as the job sees it. */
export function outcomeLines({ decision, refusal }: Pick<Explanation, 'decision' | 'refusal'>): string[] {
  if (decision?.allowed === true) {
    const { rule, database, role, maxSession, maxConnections, statements } = decision.grant
    return [
      `decision  allowed by rule ${rule}: role ${quote(role)} on ${quote(database)}, sessions up to ${maxSession / 1000} s, at most ${maxConnections} at once`,
      ...(statements === undefined ? [] : [statementsLine(statements)]),
    ]
  }
  const error = decision?.allowed === false ? decision.error : refusal
  return error === undefined ? [] : refusalLines(error)
}

function statementsLine({ classes, readOnly }: StatementLimit): string {
  return `statements  ${classes.join(', ')}, and what every session needs${readOnly ? '; in read-only transactions' : ''}`
}

export function shownTrace(
  { trace }: Decision,
  sources: readonly Position[],
  { issuerName }: Pick<Principal, 'issuerName'>,
): ShownTrace {
  return {
    issuer: issuerName,
    require: requireOf(trace),
    rules: trace.map(({ conditions, ...rule }, index) => ({
      ...rule,
      conditions: conditions.filter(({ from }) => from === 'match'),
      source: sources[index],
    })),
  }
}

function jobLines({ issuerName, provider, subject, job, tenancyMatches }: Principal): string[] {
  const lines = [`issuer   ${issuerName} (${provider})`, `subject  ${quote(subject)}`]
  if (job.runUrl !== undefined) lines.push(`run      ${printable(job.runUrl)}`)
  if (!tenancyMatches) lines.push('tenancy  the require of the issuer does not hold')
  return lines
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
