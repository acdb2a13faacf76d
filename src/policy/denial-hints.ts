/** The usual mistakes behind a condition that does not hold. */
import { printable, quote } from '../config/quote.ts'
import type { ClaimValue } from '../identity/principal.ts'
import type { Condition } from './condition.ts'
import { compileGlob } from './glob.ts'

const REF_PREFIXES = ['refs/heads/', 'refs/tags/'] as const

/**
 * @param claims of the token
 * @returns a clause that goes behind what was wanted and what there is; undefined where nothing is obvious
 */
export function usualMistake(condition: Condition, claims: ReadonlyMap<string, ClaimValue>): string | undefined {
  const value = claims.get(condition.claim)
  if (value === undefined)
    return condition.claim === 'environment' ? 'the job names none: set "environment:" in it' : undefined
  if (typeof value !== 'string') return undefined
  return spelling(condition, value) ?? leftOut(condition, value, claims) ?? otherKindOfRef(condition, value)
}

/** Whether a condition would hold if both sides were changed like this. */
function holdsWith({ values, pattern }: Condition, value: string, change: (text: string) => string): boolean {
  const changed = change(value)
  return (
    values.some((one) => change(one) === changed) || (pattern !== undefined && compileGlob(change(pattern))(changed))
  )
}

function spelling(condition: Condition, value: string): string | undefined {
  if (holdsWith(condition, value, (text) => text.toLowerCase())) return 'only letter case differs'
  if (holdsWith(condition, value, (text) => text.trim())) return 'only white space differs'
  if (holdsWith(condition, value, (text) => text.replace(/\/$/, ''))) return 'only the last slash differs'
  return undefined
}

function leftOut(condition: Condition, value: string, claims: ReadonlyMap<string, ClaimValue>): string | undefined {
  const { values, pattern, claim } = condition
  const accepts = (one: string): boolean => values.includes(one) || (pattern !== undefined && compileGlob(pattern)(one))
  for (const prefix of REF_PREFIXES) {
    const bare = value.startsWith(prefix) ? value.slice(prefix.length) : undefined
    if (bare !== undefined && accepts(bare)) {
      const better = pattern === undefined ? value : prefix + pattern
      return `the rule leaves out ${prefix}: its author should write ${quote(better)}`
    }
    if (!accepts(prefix + value)) continue
    const other = [...claims].find(([, one]) => one === prefix + value)?.[0]
    const instead = other === undefined ? '' : ` or test claim ${printable(other)}`
    return `the token's ${printable(claim)} leaves out ${prefix}: the rule's author should write ${quote(value)}${instead}`
  }
  return undefined
}

function otherKindOfRef({ values, pattern }: Condition, value: string): string | undefined {
  const wants = (prefix: string): boolean => [...values, pattern ?? ''].some((one) => one.startsWith(prefix))
  if (value.startsWith('refs/tags/') && wants('refs/heads/'))
    return 'a tag started this run, and the rule wants a branch'
  if (value.startsWith('refs/heads/') && wants('refs/tags/'))
    return 'a branch started this run, and the rule wants a tag'
  if (/^refs\/(pull|merge-requests)\//.test(value) && wants('refs/'))
    return 'this run belongs to a pull request, whose ref is never a branch'
  return undefined
}
