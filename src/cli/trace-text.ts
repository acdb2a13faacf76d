/** How a decision's trace is shown to people: by `explain` as it is made, by `why` as it was recorded. */
import type { Position } from '../config/diagnostics.ts'
import { printable } from '../config/quote.ts'
import type { RecordedCondition, RecordedRule } from '../policy/recorded-trace.ts'

export interface ShownTrace {
  /** Entry of `issuers`, or the issuer's URL. */
  issuer: string
  require: readonly RecordedCondition[]
  rules: readonly (RecordedRule & { source?: Position | undefined })[]
  omitted?: number | undefined
}

export function traceLines({ issuer, require, rules, omitted = 0 }: ShownTrace): string[] {
  const lines = require.length === 0 ? [] : [`require of issuer ${printable(issuer)}`, ...conditionLines(require), '']
  for (const { rule, effect, skipped, matched, conditions, source } of rules) {
    const where = source === undefined ? '' : ` (${source.file}:${source.line})`
    const state = skipped !== undefined ? `skipped: ${printable(skipped)}` : matched ? 'matches' : 'does not match'
    lines.push(`${effect} rule ${printable(rule)}${where}: ${state}`)
    if (skipped === undefined) lines.push(...conditionLines(conditions))
  }
  if (omitted > 0) {
    lines.push(
      `${omitted} ${omitted === 1 ? 'rule is' : 'rules are'} not on record, having less to do with this refusal`,
    )
  }
  return lines
}

function conditionLines(conditions: readonly RecordedCondition[]): string[] {
  const width = Math.max(0, ...conditions.map((one) => one.claim.length))
  return conditions.map(
    ({ ok, claim, wanted, got }) =>
      `  ${ok ? '✓' : '✗'} ${printable(claim).padEnd(width)}  wanted ${printable(wanted)}, got ${printable(got ?? 'nothing')}`,
  )
}
