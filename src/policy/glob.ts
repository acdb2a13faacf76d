/**
 * The one pattern form: `*` stands for any characters but `/` and `:`, at most once a segment. Matching compares a prefix
 * and a suffix for each segment, so its time is linear in the value whatever the pattern.
 */

export type GlobMatcher = (value: string) => boolean

interface Segment {
  prefix: string
  /** Undefined where the segment has no `*` and must be equal to its prefix. */
  suffix: string | undefined
  /** The separator behind it; empty for the last one. */
  separator: string
}

/** Why a pattern is refused, and what to do; undefined for one that compiles. */
export function globProblem(pattern: string): { message: string; hint: string } | undefined {
  if (!pattern.includes('*'))
    return { message: 'a glob without * is an equality', hint: `write "${pattern}" without glob` }
  if (pattern.includes('**')) {
    return {
      message: '** is not known: * never crosses / or :',
      hint: 'list the forms that you mean under `in`, or use one * in each segment',
    }
  }
  if (/[?[\]]/.test(pattern))
    return {
      message: 'only * is special in a glob; ? and [ ] are not known',
      hint: 'use *, or list the values under `in`',
    }
  if (!/[^*/:]/.test(pattern))
    return { message: 'the glob matches anything', hint: 'leave the condition out, or say what it begins with' }
  if (split(pattern).some((segment) => segment.suffix?.includes('*') === true)) {
    return { message: 'a glob has at most one * between two separators (/ and :)', hint: 'list the values under `in`' }
  }
  return undefined
}

function split(pattern: string): Segment[] {
  const segments: Segment[] = []
  let start = 0
  for (let at = 0; at <= pattern.length; at++) {
    const separator = pattern[at] ?? ''
    if (separator !== '/' && separator !== ':' && separator !== '') continue
    const text = pattern.slice(start, at)
    const star = text.indexOf('*')
    segments.push({
      prefix: star < 0 ? text : text.slice(0, star),
      suffix: star < 0 ? undefined : text.slice(star + 1),
      separator,
    })
    start = at + 1
  }
  return segments
}

/** @param pattern one for which `globProblem` says nothing */
export function compileGlob(pattern: string): GlobMatcher {
  const segments = split(pattern)
  return (value) => {
    let start = 0
    for (const segment of segments) {
      const end = segment.separator === '' ? value.length : nextSeparator(value, start)
      // At the end of the value there is no separator, and `charAt` gives the empty text.
      if (segment.separator !== '' && value.charAt(end) !== segment.separator) return false
      if (segment.separator === '' && nextSeparator(value, start) !== value.length) return false
      if (!matchesSegment(value, start, end, segment)) return false
      start = end + 1
    }
    return true
  }
}

function nextSeparator(value: string, from: number): number {
  let at = from
  while (at < value.length && value[at] !== '/' && value[at] !== ':') at++
  return at
}

function matchesSegment(value: string, start: number, end: number, { prefix, suffix }: Segment): boolean {
  const length = end - start
  if (suffix === undefined) return length === prefix.length && value.startsWith(prefix, start)
  return (
    length >= prefix.length + suffix.length &&
    value.startsWith(prefix, start) &&
    value.startsWith(suffix, end - suffix.length)
  )
}
