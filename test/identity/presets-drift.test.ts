/**
 * The samples of providers' tokens against the presets: each verifies, is read into the same fields of a job, and without a claim
 * that the preset or the rule rests on is refused with the claim's name. A provider that changes its tokens is told by this first.
 */
import { describe, expect, test } from 'vitest'
import { stringify } from 'yaml'
import { formatDiagnostics } from '../../src/config/diagnostics.ts'
import { PRESET_NAMES, type PresetName } from '../../src/config/schema.ts'
import { AccessError } from '../../src/errors.ts'
import { PRESETS } from '../../src/identity/presets/index.ts'
import type { Principal } from '../../src/identity/principal.ts'
import { createVerifier } from '../../src/identity/verifier.ts'
import { evaluate } from '../../src/policy/evaluate.ts'
import { loadPolicy } from '../../src/policy/load.ts'
import { writeConfig } from '../config/write-config.ts'
import { signingKey } from '../support/tokens.ts'
import * as aws from './samples/aws.ts'
import * as azureDevops from './samples/azure-devops.ts'
import * as bitbucket from './samples/bitbucket.ts'
import * as buildkite from './samples/buildkite.ts'
import * as circleci from './samples/circleci.ts'
import * as codefresh from './samples/codefresh.ts'
import * as entra from './samples/entra.ts'
import * as forgejo from './samples/forgejo.ts'
import * as generic from './samples/generic.ts'
import * as githubActions from './samples/github-actions.ts'
import * as gitlab from './samples/gitlab.ts'
import * as google from './samples/google.ts'
import * as harness from './samples/harness.ts'
import * as hcpTerraform from './samples/hcp-terraform.ts'
import * as jenkins from './samples/jenkins.ts'
import * as kubernetes from './samples/kubernetes.ts'
import * as okta from './samples/okta.ts'
import type { Sample } from './samples/sample.ts'
import * as semaphore from './samples/semaphore.ts'
import * as spacelift from './samples/spacelift.ts'
import * as spiffe from './samples/spiffe.ts'

type Claims = Readonly<Record<string, unknown>>

const SAMPLES: readonly Sample[] = [
  ...[aws, azureDevops, bitbucket, buildkite, circleci, codefresh, entra, forgejo, generic, githubActions, gitlab],
  ...[google, harness, hcpTerraform, jenkins, kubernetes, okta, semaphore, spacelift, spiffe],
].flatMap(({ samples }) => samples)

const key = signingKey('k1', 'RS256')

function presetOf({ issuer }: Sample) {
  return PRESETS[issuer.preset as PresetName]
}

/** What `serve` does with a token: the principal, or the refusal of the verifier or of the policy. */
async function gate(sample: Sample): Promise<(claims: Claims) => Promise<Principal | AccessError>> {
  const config = {
    version: 1,
    listen: { address: '127.0.0.1:6432', plaintext: 'allow' },
    audit: { stdout: true },
    issuers: { ci: { ...sample.issuer, jwks_file: 'jwks.json' } },
    databases: {
      shop: { host: 'pg1.internal', credentials: { kind: 'ephemeral-role', admin: { user: 'admin', password: 'x' } } },
    },
    rules: [{ name: 'migrate', issuer: 'ci', match: sample.match, allow: { database: 'shop', role: 'migrator' } }],
  }
  const file = await writeConfig(stringify(config), { 'jwks.json': JSON.stringify({ keys: [key.jwk] }) })
  const now = (Number(sample.claims['iat']) + 60) * 1000
  const result = await loadPolicy(file, {}, { now })
  if (!result.ok) throw new Error(formatDiagnostics(result.diagnostics))
  const verifier = createVerifier(result.loaded.config.issuers, { now: () => now })
  return async (claims) => {
    try {
      const principal = await verifier.verify(await key.sign(claims))
      const decision = evaluate(result.policy, principal, { database: 'shop', user: 'migrator' }, now)
      return decision.allowed ? principal : decision.error
    } catch (error) {
      if (error instanceof AccessError) return error
      throw error
    }
  }
}

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
