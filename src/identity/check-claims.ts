/**
 * What a verified token must say besides being signed: time, audience, and that it belongs to a running job. The signature
 * is good by now, so errors show the job its own claims and how to get a better token.
 */
import { quote, quoteList } from '../config/quote.ts'
import type { IssuerConfig } from '../config/schema.ts'
import { AccessError } from '../errors.ts'
import { checkDemands, checkRefused, checkTenant } from './preset-rules.ts'
import { PRESETS } from './presets/index.ts'
import type { Principal } from './principal.ts'
import { span } from './span.ts'

export const LEEWAY = 30_000

type Claims = Readonly<Record<string, unknown>>

interface Times {
  exp: number
  iat: number
  nbf: number | undefined
}

/** `exp` and `iat` in milliseconds. @throws AccessError `token_malformed` where a required claim is missing or of a wrong type. */
export function checkRequired(claims: Claims): Times {
  const exp = claims['exp']
  const iat = claims['iat']
  const nbf = claims['nbf']
  const sub = claims['sub']
  if (typeof exp !== 'number') throw new AccessError('token_malformed', missing('exp', 'a time in whole seconds'))
  if (typeof iat !== 'number') throw new AccessError('token_malformed', missing('iat', 'a time in whole seconds'))
  if (nbf !== undefined && typeof nbf !== 'number') {
    throw new AccessError('token_malformed', missing('nbf', 'a time in whole seconds'))
  }
  if (typeof sub !== 'string' || sub === '') throw new AccessError('token_malformed', missing('sub', 'a text'))
  return { exp: exp * 1000, iat: iat * 1000, nbf: nbf === undefined ? undefined : nbf * 1000 }
}

function missing(claim: string, wanted: string): string {
  return `the token's claim ${claim} is missing or not ${wanted}`
}

/** @throws AccessError `token_expired`, `token_not_yet_valid` or `token_too_old`. `now` in milliseconds since the epoch. */
export function checkTime(times: Times, name: string, issuer: IssuerConfig, now: number): void {
  checkEnd(times, issuer, now)
  checkBegin(times, now)
  checkAge(times, name, issuer, now)
  checkLife(times, name, issuer)
}

/** As `checkTime`, but a token that is over, and has nothing else against it, passes where `mayOutlive` says so. */
export async function checkTimeUnless(
  mayOutlive: () => boolean | Promise<boolean>,
  times: Times,
  name: string,
  issuer: IssuerConfig,
  now: number,
): Promise<void> {
  if (!isOver(times, issuer, now) || !(await mayOutlive())) {
    checkTime(times, name, issuer, now)
    return
  }
  checkBegin(times, now)
  checkLife(times, name, issuer)
}

/** Whether a token of these times is over by itself, whatever window is open for it. */
export function isOver({ exp, iat }: Pick<Times, 'exp' | 'iat'>, issuer: IssuerConfig, now: number): boolean {
  return now >= exp + LEEWAY || now - iat > maxAgeOf(issuer) + LEEWAY
}

function maxAgeOf(issuer: IssuerConfig): number {
  return issuer.max_token_age ?? PRESETS[issuer.preset].maxTokenAge
}

function checkEnd({ exp }: Times, issuer: IssuerConfig, now: number): void {
  if (now >= exp + LEEWAY) {
    throw new AccessError('token_expired', `the token expired ${span(now - exp)} ago; ${freshToken(issuer)}`, {
      detail: `exp is ${time(exp)}, pgusher's clock says ${time(now)}.`,
      hint: longJobs(issuer),
    })
  }
}

function checkBegin({ iat, nbf }: Times, now: number): void {
  const valid = Math.max(iat, nbf ?? iat)
  if (valid > now + LEEWAY) {
    throw new AccessError('token_not_yet_valid', `the token is valid only ${span(valid - now)} from now`, {
      detail: `${valid === iat ? 'iat' : 'nbf'} is ${time(valid)}, pgusher's clock says ${time(now)}.`,
      hint: "Compare the clocks of the token's issuer and of pgusher.",
    })
  }
}

function checkAge({ iat }: Times, name: string, issuer: IssuerConfig, now: number): void {
  const maxAge = maxAgeOf(issuer)
  if (now - iat > maxAge + LEEWAY) {
    throw new AccessError(
      'token_too_old',
      `the token was issued ${span(now - iat)} ago, and issuer ${quote(name)} takes tokens up to ${span(maxAge)} old; ${freshToken(issuer)}`,
      { detail: `iat is ${time(iat)}, pgusher's clock says ${time(now)}.`, hint: longJobs(issuer) },
    )
  }
}

function checkLife({ exp, iat }: Times, name: string, issuer: IssuerConfig): void {
  const maxLife = issuer.max_token_life ?? PRESETS[issuer.preset].maxTokenLife
  if (exp - iat > maxLife) {
    throw new AccessError(
      'token_too_old',
      `the token lives ${span(exp - iat)}, and issuer ${quote(name)} takes tokens that live up to ${span(maxLife)}; ask for one with a shorter life`,
      { hint: `In the job: ${recipe(issuer)}. Or the operator raises max_token_life of the issuer.` },
    )
  }
}

/**
 * @throws AccessError `audience_mismatch`: ours must be the only one, or whoever shares it could use the token here; except
 *   where the provider adds its own to each token.
 */
export function checkAudience(claims: Claims, issuer: IssuerConfig): void {
  const aud = claims['aud']
  const list: unknown[] = Array.isArray(aud) ? aud : [aud]
  if (list.length === 1 && list[0] === issuer.audience) return
  if (PRESETS[issuer.preset].audienceAmongOthers === true && list.includes(issuer.audience)) return
  const texts = list.filter((item) => typeof item === 'string')
  const wanted = quote(issuer.audience)
  if (texts.length === 0) {
    throw new AccessError('audience_mismatch', `the token has no audience; ask for one with audience ${wanted}`, {
      hint: `In the job: ${recipe(issuer)}`,
    })
  }
  const message =
    list.length > 1 && texts.includes(issuer.audience)
      ? `the token is for several audiences (${quoteList(texts, 'and', 5)}); ask for one with audience ${wanted} only`
      : `the token is for audience ${quoteList(texts, 'and', 5)}; ask for one with audience ${wanted}`
  throw new AccessError('audience_mismatch', message, { hint: `In the job: ${recipe(issuer)}` })
}

/**
 * The preset's own rules, which no policy can forget: a token of a running job, of an event that may be trusted.
 * @throws AccessError `claim_missing`, `denied_by_rule` or `tenancy_mismatch`.
 */
export function checkPresetRules(principal: Principal, issuer: IssuerConfig): void {
  const preset = PRESETS[issuer.preset]
  for (const marker of preset.executionMarkers) {
    if (principal.claims.has(marker)) continue
    throw new AccessError(
      'claim_missing',
      `the token has no ${marker}: it was not issued to a running job; get one inside the job: ${shortRecipe(issuer)}`,
      { hint: `In the job: ${recipe(issuer)}` },
    )
  }
  checkTenant(principal, issuer)
  checkDemands(principal, preset, shortRecipe(issuer))
  checkRefused(principal, issuer)
  for (const { claims, why } of preset.mustAgree) {
    const [left, right] = claims.map((claim) => principal.claims.get(claim))
    if (left === undefined || right === undefined || String(left) === String(right)) continue
    throw new AccessError(
      'tenancy_mismatch',
      `${claims[0]} is ${quote(String(left))} and ${claims[1]} is ${quote(String(right))}: ${why}`,
    )
  }
}

/** For MESSAGE: what to do about a token that is over. */
function freshToken(issuer: IssuerConfig): string {
  return PRESETS[issuer.preset].refetchable
    ? `fetch one at connect time, in the step that connects: ${shortRecipe(issuer)}`
    : 'a job gets this token once, at its start: connect earlier in the job, or put the database work into a job of its own'
}

function longJobs(issuer: IssuerConfig): string {
  const again = PRESETS[issuer.preset].refetchable ? 'fetches a token for every connection' : 'keeps a way in open'
  return `The token: ${recipe(issuer)}. For programs that connect again and again, "pgusher exec -- COMMAND" ${again}.`
}

function recipe(issuer: IssuerConfig): string {
  return PRESETS[issuer.preset].tokenRecipe.replaceAll('AUD', () => issuer.audience)
}

/** Without the remark in brackets at its end, so that it fits into MESSAGE. */
function shortRecipe(issuer: IssuerConfig): string {
  return recipe(issuer).replace(/ \([^()]*\)$/, '')
}

function time(milliseconds: number): string {
  return Number.isFinite(milliseconds) && Math.abs(milliseconds) < 8.64e15
    ? new Date(milliseconds).toISOString().replace('.000Z', 'Z')
    : 'out of range'
}
