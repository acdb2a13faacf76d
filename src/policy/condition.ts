/** A condition of a rule, compiled: what it tests and how a person would say it. */
import { quote, quoteList } from '../config/quote.ts'
import type { ConditionConfig } from '../config/schema.ts'
import type { ClaimValue } from '../identity/principal.ts'
import { compileGlob } from './glob.ts'
import type { ConditionTrace } from './types.ts'

export interface Condition {
  claim: string
  /** `"refs/heads/main"`, `one of "push" or "schedule"`. */
  wanted: string
  from: ConditionTrace['from']
  /** For a claim that the token has. A list claim meets a condition when any of its elements does. */
  test(value: ClaimValue): boolean
  /** What a missing claim counts as in an allow rule. */
  whenMissing: boolean
  /** What a missing claim counts as in a deny rule: it can't be told that the rule does not apply. */
  whenMissingInDeny: boolean
  /** For hints: the value of an equality, those of `in`. */
  values: readonly string[]
  /** For hints: that of a glob. */
  pattern: string | undefined
}

export interface ConditionOptions {
  from: ConditionTrace['from']
  /** The preset says that a job without the claim is a statement of its own, such as a job without an environment. */
  absenceMeaningful: boolean
}

export function compileCondition(claim: string, config: ConditionConfig, options: ConditionOptions): Condition {
  const base = {
    claim,
    from: options.from,
    whenMissing: false,
    whenMissingInDeny: !options.absenceMeaningful,
    values: [],
    pattern: undefined,
  }
  if (typeof config === 'string') {
    return { ...base, wanted: quote(config), test: any((value) => value === config), values: [config] }
  }
  if ('in' in config) {
    const values = new Set(config.in)
    return {
      ...base,
      wanted: config.in.length === 1 ? quoteList(config.in) : `one of ${quoteList(config.in)}`,
      test: any((value) => values.has(value)),
      values: config.in,
    }
  }
  if ('glob' in config) {
    const { glob } = config
    return { ...base, wanted: `a value like ${quote(glob)}`, test: any(compileGlob(glob)), pattern: glob }
  }
  const values = new Set(config.not_in)
  return {
    ...base,
    wanted: `anything but ${quoteList(config.not_in)}`,
    // Any element that is refused refuses the list: otherwise a second element would open the door.
    test: (value) => !any((one) => values.has(one))(value),
    whenMissing: options.absenceMeaningful,
    whenMissingInDeny: true,
  }
}

function any(test: (value: string) => boolean): (value: ClaimValue) => boolean {
  return (value) => (typeof value === 'string' ? test(value) : value.some(test))
}

/** How a claim's value is shown: quoted, escaped, cut. Undefined for a missing one. */
export function showValue(value: ClaimValue | undefined): string | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'string') return quote(value)
  return value.length === 0 ? 'an empty list' : `the list ${quoteList(value, 'and', 5)}`
}
