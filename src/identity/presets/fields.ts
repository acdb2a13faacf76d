/** What the presets share to turn claims into job fields. Values are data: escaped here, and never the base of a URL. */
import type { ClaimValue, JobFields } from '../principal.ts'

export type Claims = ReadonlyMap<string, ClaimValue>

/** A claim's text; undefined where it is missing, empty (GitHub sends `head_ref: ""`) or a list. */
export function text(claims: Claims, name: string): string | undefined {
  const value = claims.get(name)
  return typeof value === 'string' && value !== '' ? value : undefined
}

/** Drops what is not known: an absent field is absent, not `undefined`. */
export function known(fields: { [K in keyof JobFields]: JobFields[K] | undefined }): JobFields {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}

/**
 * `base/part/part`, each part escaped; a part may hold slashes (`acme/shop`), which stay. Undefined where the base or a
 * part is, and for `.` and `..`, which a browser would resolve to another page than the one shown.
 */
export function link(base: string | undefined, ...parts: readonly (string | undefined)[]): string | undefined {
  if (base === undefined) return undefined
  let url = base.replace(/\/+$/, '')
  for (const part of parts) {
    if (part === undefined) return undefined
    const segments = part.split('/')
    if (segments.some((segment) => segment === '' || segment === '.' || segment === '..')) return undefined
    for (const segment of segments) url += `/${encodeSegment(segment)}`
  }
  return url
}

/** A claim that is a whole URL, as a link: https only, without credentials, query and fragment, and without git's `.git`. */
export function webUrl(claim: string | undefined): string | undefined {
  if (claim === undefined || !URL.canParse(claim)) return undefined
  const url = new URL(claim)
  if (url.protocol !== 'https:') return undefined
  return url.origin + url.pathname.replace(/\/+$/, '').replace(/\.git$/, '')
}

/** Whether a URL is `base` with one more segment, as the default audience of GitHub's kind is: `https://HOST/<owner>`. */
export function isBelow(base: string | undefined, url: string): boolean {
  return base !== undefined && url.startsWith(`${base}/`) && /^[^/]+\/?$/.test(url.slice(base.length + 1))
}

/** encodeURIComponent throws on lone surrogates, which JSON can carry as escapes. */
export function encodeSegment(segment: string): string {
  return encodeURIComponent(segment.toWellFormed())
}

export function hostOf(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).hostname : undefined
}

export const MINUTE = 60_000
export const HOUR = 60 * MINUTE
