/** What each CI system says of a job of acme/shop, from the samples of its documentation; registered claims are the issuer's. */
import type { Claims } from '../../../src/cli/demo/ci-claims.ts'
import { SAMPLES } from '../../identity/samples/index.ts'
import type { Sample } from '../../identity/samples/sample.ts'

/** Those that `pgusher` recognises by themselves. */
export const CI_NAMES = [
  'github-actions',
  'forgejo',
  'gitlab',
  'buildkite',
  'circleci',
  'jenkins',
  'kubernetes',
  'codefresh',
  'azure-devops',
  'bitbucket',
  'semaphore',
  'spacelift',
  'hcp-terraform',
  'harness',
  'google',
  'aws',
] as const

export type CiName = (typeof CI_NAMES)[number]

/** Of a provider's usual edition, which is its first. */
export function sampleOf(name: CiName): Sample {
  const sample = SAMPLES.find(({ issuer }) => issuer.preset === name)
  if (sample === undefined) throw new Error(`no sample of ${name}`)
  return sample
}

/** Of each token anew. */
const REGISTERED = new Set(['iss', 'aud', 'iat', 'nbf', 'exp', 'jti'])

export const CI_CLAIMS = Object.fromEntries(
  CI_NAMES.map((name) => [
    name,
    Object.fromEntries(Object.entries(sampleOf(name).claims).filter(([claim]) => !REGISTERED.has(claim))),
  ]),
) as Record<CiName, Claims>
