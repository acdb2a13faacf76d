/** What the job's own token says of it. Nothing here is verified: it is for people to read, and the server decides. */
import { printable } from '../config/quote.ts'
import type { IssuerConfig, PresetName } from '../config/schema.ts'
import type { ClaimValue, JobFields, Principal } from '../identity/principal.ts'
import { principalFromClaims } from '../identity/principal-from-claims.ts'
import { ownClaims } from './token-text.ts'

/** @returns undefined for a ticket and anything else that is no JSON Web Token */
export function readClaims(token: string): Readonly<Record<string, unknown>> | undefined {
  try {
    return ownClaims(token)
  } catch {
    return undefined
  }
}

/** Milliseconds since the epoch; undefined where the token does not say it. */
export function expiryOf(token: string): number | undefined {
  const exp = readClaims(token)?.['exp']
  return typeof exp === 'number' ? exp * 1_000 : undefined
}

export interface OwnIdentity {
  job: Readonly<JobFields>
  /** As one `claim`, `value` each: who issued it and for whom, then what the preset says is worth recording. */
  claims: ReadonlyMap<string, string>
}

/** @returns undefined where the token cannot be read */
export function ownIdentity(token: string, preset: PresetName): OwnIdentity | undefined {
  const claims = readClaims(token)
  if (claims === undefined) return undefined
  const iss = typeof claims['iss'] === 'string' ? claims['iss'] : ''
  try {
    const principal = principalFromClaims('own', ownIssuer(preset, iss), claims)
    const shown = ['iss', 'aud', 'sub'].map((name) => [name, principal.claims.get(name)] as const)
    const others = preset === 'generic' ? unlistedClaims(principal) : Object.entries(principal.auditClaims)
    const all = [...shown, ...others].filter(([, value]) => value !== undefined && value !== '')
    return {
      job: principal.job,
      claims: new Map(all.map(([name, value]) => [printable(name), shownValue(value ?? '')])),
    }
  } catch {
    // A claim that no principal may have; the server will say so.
    return undefined
  }
}

/**
 * Outside of any CI that is known nobody says which claims matter; times and ids of tokens do not, and a CI's log is no place for
 * addresses of people.
 */
function unlistedClaims({ claims }: Principal): [string, ClaimValue][] {
  return [...claims].filter(([name]) => !/^(?:iss|aud|sub|iat|nbf|exp|jti)$|e-?mail/i.test(name))
}

function shownValue(value: ClaimValue): string {
  return printable(typeof value === 'string' ? value : value.join(', '))
}

/** An entry of `issuers` as it would be for this token, made up so that the preset can read the claims. */
function ownIssuer(preset: PresetName, url: string): IssuerConfig {
  return { preset, url, audience: '', require: {}, allow_events: [], claims: {}, tenancy: [], explain: true }
}
