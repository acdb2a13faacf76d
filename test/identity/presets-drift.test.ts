/**
 * The samples of providers' tokens against the presets: each verifies, is read into the same fields of a job, and without a claim
 * that the preset or the rule rests on is refused with the claim's name. A provider that changes its tokens is told by this first.
 */
import { describe, expect, test } from 'vitest'
import { PRESET_NAMES } from '../../src/config/schema.ts'
import { AccessError } from '../../src/errors.ts'
import type { Principal } from '../../src/identity/principal.ts'
import { type Claims, gate, presetOf } from './samples/gate.ts'
import { SAMPLES } from './samples/index.ts'
import type { Sample } from './samples/sample.ts'

/** Where a claim stands in the payload, by its selector; undefined where it is a part of `sub`. */
function placeOf(sample: Sample, claim: string): readonly string[] | undefined {
  const { claims, openClaims } = presetOf(sample)
  const spec = claims[claim]
  if (spec?.fromSubject !== undefined) return undefined
  if (spec?.path !== undefined) return spec.path
  for (const { prefix, path } of typeof openClaims === 'boolean' ? [] : openClaims) {
    if (path !== undefined && claim.startsWith(prefix)) return [...path, claim.slice(prefix.length)]
  }
  return [claim]
}

function without(claims: Claims, [first, ...rest]: readonly string[]): Claims {
  if (first === undefined || !Object.hasOwn(claims, first)) throw new Error(`the sample has no ${first}`)
  const { [first]: value, ...others } = claims
  return rest.length === 0 ? others : { ...others, [first]: without(value as Claims, rest) }
}

/** Every claim that a decision on this sample rests on. */
function neededClaims(sample: Sample): string[] {
  const { claims, executionMarkers, demands, refused, issuerForm } = presetOf(sample)
  const tenant = issuerForm?.like.exec(String(sample.claims['iss']))?.groups?.['tenant']
  return [
    ...['exp', 'iat', 'sub'],
    ...executionMarkers,
    ...(tenant === undefined || issuerForm?.tenantClaim === undefined ? [] : [issuerForm.tenantClaim]),
    ...(demands ?? []).map(({ claim }) => claim),
    ...refused.map(({ claim }) => claim).filter((claim) => claims[claim]?.absenceMeaningful !== true),
    ...Object.keys(sample.issuer['require'] ?? {}),
    ...Object.keys(sample.match),
  ]
}

const named = SAMPLES.map(
  (sample) => [[sample.issuer.preset, sample.edition].filter(Boolean).join(': '), sample] as const,
)

test('every preset has a sample', () => {
  expect([...new Set(SAMPLES.map(({ issuer }) => issuer.preset))].sort()).toEqual([...PRESET_NAMES].sort())
})

describe.each(named)('%s', (_, sample) => {
  test('verifies, and is read into the fields of a job', async () => {
    const principal = await (await gate(sample))(sample.claims)
    expect(principal).toMatchObject({
      provider: sample.issuer.preset,
      iss: sample.claims['iss'],
      subject: sample.claims['sub'],
      expiresAt: Number(sample.claims['exp']) * 1000,
      tenancyMatches: true,
    })
    expect((principal as Principal).job).toEqual(sample.job)
  })

  test('without a claim that it needs is refused with the name of that claim', async () => {
    const decide = await gate(sample)
    const places = new Map(
      neededClaims(sample).flatMap((claim) => {
        const place = placeOf(sample, claim)
        return place === undefined ? [] : [[claim, place] as const]
      }),
    )
    expect(places.size).toBeGreaterThanOrEqual(3)
    for (const [claim, place] of places) {
      const refusal = await decide(without(sample.claims, place))
      expect(refusal, claim).toBeInstanceOf(AccessError)
      expect((refusal as AccessError).message.split(/[\s,;:()"]+/)).toContain(claim)
      expect(['token_malformed', 'claim_missing'], claim).toContain((refusal as AccessError).code)
    }
  })

  test('every claim of it is known to the preset', () => {
    const preset = presetOf(sample)
    if (preset.openClaims === true) return
    const known = [
      ...['iss', 'aud', 'exp', 'iat', 'nbf'],
      ...Object.keys(preset.claims).map((claim) => placeOf(sample, claim)?.join(' ')),
      ...Object.keys(preset.notForRules ?? {}),
    ]
    const prefixes = (typeof preset.openClaims === 'boolean' ? [] : preset.openClaims).map(({ path }) =>
      path?.join(' '),
    )
    const unknown = leaves(sample.claims).filter(
      (path) => !known.includes(path.join(' ')) && !prefixes.includes(path.slice(0, -1).join(' ')),
    )
    expect(unknown).toEqual([])
  })
})

function leaves(value: Claims, path: readonly string[] = []): (readonly string[])[] {
  return Object.entries(value).flatMap(([name, inner]) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? leaves(inner as Claims, [...path, name])
      : [[...path, name]],
  )
}
