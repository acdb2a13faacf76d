/** The usual mistakes behind a condition that does not hold. */
import { printable } from '../config/quote.ts'
import type { ConditionTrace } from './types.ts'

/** @returns a sentence, or an empty text where nothing is obvious */
export function claimHint({ claim, wanted, got }: ConditionTrace): string {
  const name = printable(claim)
  if (got === undefined)
    return name === 'environment' ? 'The job names no environment: set one in the CI configuration.' : ''
  if (!wanted.startsWith('"') || !got.startsWith('"')) return ''
  const [want, have] = [wanted.slice(1, -1), got.slice(1, -1)]
  if (want.toLowerCase() === have.toLowerCase()) return `The two values of ${name} differ only in letter case.`
  if (want.trim() === have.trim()) return `The two values of ${name} differ only in white space.`
  if (want.replace(/\/$/, '') === have.replace(/\/$/, ''))
    return `The two values of ${name} differ only in the last slash.`
  for (const prefix of ['refs/heads/', 'refs/tags/']) {
    if (prefix + want === have) return `The rule leaves out ${prefix} in ${name}: its author probably meant "${have}".`
    if (want === prefix + have) return `The token's ${name} leaves out ${prefix}.`
  }
  if (have.startsWith('refs/tags/') && want.startsWith('refs/heads/'))
    return 'This run was started by a tag, and the rule wants a branch.'
  if (have.startsWith('refs/pull/')) return 'This run belongs to a pull request; its ref is never a branch.'
  return ''
}
