/** Claims to principal: the one way, for verified tokens and for `explain --claims`. Pure. */

import { quote } from '../config/quote.ts'
import type { IssuerConfig } from '../config/schema.ts'
import { AccessError } from '../errors.ts'
import type { ClaimSpec, Preset } from './preset.ts'
import { PRESETS } from './presets/index.ts'
import type { ClaimValue, Principal } from './principal.ts'

import { isObject } from './strict-json.ts'

const MAX_VALUE_BYTES = 4096
const MAX_NAME_BYTES = 256

/** The `iss` that an issuer's tokens carry; undefined where the preset has none and `url` is not configured. */
export function issuerUrl(issuer: IssuerConfig): string | undefined {
  return issuer.url ?? PRESETS[issuer.preset].issuer
}

/**
 * @param claims as `parseStrictObject` gives them. `exp` and `iat` that are not integers become 0: the verifier refuses
 *   them before, and `explain` does not ask for them.
 * @throws AccessError `token_malformed` for a value over 4 KiB or with a NUL.
 */
export function principalFromClaims(
  issuerName: string,
  issuer: IssuerConfig,
  claims: Readonly<Record<string, unknown>>,
  token?: { sha256: string },
): Principal {
  return principalFromValues(issuerName, issuer, claimValues(PRESETS[issuer.preset], issuer, claims), {
    subject: typeof claims['sub'] === 'string' ? claims['sub'] : '',
    tokenSha256: token?.sha256 ?? '',
    expiresAt: seconds(claims['exp']) * 1000,
    issuedAt: seconds(claims['iat']) * 1000,
  })
}

/** From what the audit has on record of a token: nested claims and parts of `sub` stand there under their selectors. */
export function principalFromRecord(
  issuerName: string,
  issuer: IssuerConfig,
  { subject, claims }: { subject: string; claims: Readonly<Record<string, ClaimValue>> },
): Principal {
  const values = new Map(Object.entries(subject === '' ? claims : { ...claims, sub: subject }))
  return principalFromValues(issuerName, issuer, values, { subject, tokenSha256: '', expiresAt: 0, issuedAt: 0 })
}

function principalFromValues(
  issuerName: string,
  issuer: IssuerConfig,
  values: ReadonlyMap<string, ClaimValue>,
  token: Pick<Principal, 'subject' | 'tokenSha256' | 'expiresAt' | 'issuedAt'>,
): Principal {
  const preset = PRESETS[issuer.preset]
  const iss = issuerUrl(issuer) ?? ''
  const parts = preset.jobKey(values)
  const whole = parts.length > 0 && parts.every((part) => part !== undefined)
  return {
    issuerName,
    provider: issuer.preset,
    iss,
    ...token,
    claims: values,
    auditClaims: auditClaims(preset, issuer, values),
    job: preset.job(values, { iss, runUrlBase: issuer.run_url_base }),
    // JSON, because no separator is one that a claim could not hold.
    jobKey: JSON.stringify(whole ? [iss, ...parts] : [iss, 'token', token.tokenSha256]),
    tenancyMatches: Object.entries(issuer.require).every(([name, wanted]) => claimEquals(values.get(name), wanted)),
  }
}

/** Equality as policies mean it: a list claim equals what it contains; a missing claim equals nothing. */
export function claimEquals(value: ClaimValue | undefined, wanted: string): boolean {
  return typeof value === 'string' ? value === wanted : (value ?? []).includes(wanted)
}

function claimValues(
  preset: Preset,
  issuer: IssuerConfig,
  claims: Readonly<Record<string, unknown>>,
): ReadonlyMap<string, ClaimValue> {
  const elsewhere = notTopLevel(preset, issuer, claims)
  const values = new Map<string, ClaimValue>()
  const add = (name: string, raw: unknown) => {
    const value = asClaim(name, raw)
    if (value === undefined) return
    values.set(name, isUuid(preset, name) && typeof value === 'string' ? plainUuid(value) : value)
  }
  for (const [name, raw] of Object.entries(claims)) {
    if (Buffer.byteLength(name) > MAX_NAME_BYTES || name.includes('\0')) {
      throw new AccessError('token_malformed', 'the token has a claim whose name is too long or holds a NUL')
    }
    // A top-level claim must not pass for a nested one by taking its selector's name.
    if (!elsewhere.has(name) && !nestedPrefixes(preset).some(({ prefix }) => name.startsWith(prefix))) add(name, raw)
  }
  for (const [name, raw] of elsewhere) add(name, raw)
  return values
}

/** Braces and capitals are Bitbucket's and Windows' way to write the same id. */
export function plainUuid(text: string): string {
  return text.replace(/^\{(.*)\}$/, '$1').toLowerCase()
}

function isUuid(preset: Preset, name: string): boolean {
  return Object.hasOwn(preset.claims, name) && preset.claims[name]?.uuid === true
}

function nestedPrefixes(preset: Preset): { prefix: string; path: readonly string[] }[] {
  if (typeof preset.openClaims === 'boolean') return []
  return preset.openClaims.flatMap(({ prefix, path }) => (path === undefined ? [] : [{ prefix, path }]))
}

/** By selector, what is not found under the selector's own name: nested claims, members of nested objects, parts of `sub`. */
function notTopLevel(
  preset: Preset,
  issuer: IssuerConfig,
  claims: Readonly<Record<string, unknown>>,
): ReadonlyMap<string, unknown> {
  const found = new Map<string, unknown>()
  const subject = claims['sub']
  for (const [name, { fromSubject }] of Object.entries(preset.claims)) {
    if (fromSubject !== undefined) found.set(name, typeof subject === 'string' ? fromSubject(subject) : undefined)
  }
  for (const { prefix, path } of nestedPrefixes(preset)) {
    const members = at(claims, path)
    for (const [key, raw] of isObject(members) ? Object.entries(members) : []) found.set(prefix + key, raw)
  }
  for (const [name, path] of nestedPaths(preset, issuer)) found.set(name, at(claims, path))
  return found
}

function nestedPaths(preset: Preset, issuer: IssuerConfig): ReadonlyMap<string, readonly string[]> {
  const paths = new Map<string, readonly string[]>()
  for (const [name, spec] of Object.entries(preset.claims)) if (spec.path !== undefined) paths.set(name, spec.path)
  if (preset.name === 'generic') for (const [name, path] of Object.entries(issuer.claims)) paths.set(name, path)
  return paths
}

function at(claims: Readonly<Record<string, unknown>>, path: readonly string[]): unknown {
  let value: unknown = claims
  for (const key of path) value = isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined
  return value
}

/** Text, or a list of texts; undefined for null, objects and lists that hold them: a claim that no rule can name. */
function asClaim(name: string, raw: unknown): ClaimValue | undefined {
  if (!Array.isArray(raw)) return asText(name, raw)
  const items = raw.map((item) => asText(name, item))
  return items.every((item) => item !== undefined) ? items : undefined
}

function asText(name: string, raw: unknown): string | undefined {
  if (typeof raw === 'boolean' || (typeof raw === 'number' && Number.isSafeInteger(raw))) return String(raw)
  if (typeof raw !== 'string') return undefined
  if (raw.includes('\0')) throw new AccessError('token_malformed', `the token's claim ${quote(name)} holds a NUL`)
  // A string has at most 3 bytes of UTF-8 a code unit, so most need not be measured.
  if (raw.length * 3 > MAX_VALUE_BYTES && Buffer.byteLength(raw) > MAX_VALUE_BYTES) {
    throw new AccessError('token_malformed', `the token's claim ${quote(name)} is longer than ${MAX_VALUE_BYTES} bytes`)
  }
  return raw
}

function auditClaims(
  preset: Preset,
  issuer: IssuerConfig,
  values: ReadonlyMap<string, ClaimValue>,
): Readonly<Record<string, ClaimValue>> {
  const named = preset.name === 'generic' ? [...Object.keys(issuer.claims), ...issuer.tenancy] : []
  const specs: Readonly<Record<string, ClaimSpec>> = preset.claims
  return Object.fromEntries(
    [...values].filter(([name]) => {
      if (Object.hasOwn(specs, name)) return specs[name]?.audit === true
      const prefixes = typeof preset.openClaims === 'boolean' ? [] : preset.openClaims
      if (prefixes.some(({ prefix, audit }) => audit === true && name.startsWith(prefix))) return true
      return named.includes(name) || Object.hasOwn(issuer.require, name)
    }),
  )
}

function seconds(value: unknown): number {
  return typeof value === 'number' && Number.isSafeInteger(value) ? value : 0
}
