/** What each CI system says of a job of acme/shop, from the samples of its documentation; registered claims are the issuer's. */
import type { Claims } from '../../../src/cli/demo/ci-claims.ts'
import { samples as aws } from '../../identity/samples/aws.ts'
import { samples as azureDevops } from '../../identity/samples/azure-devops.ts'
import { samples as bitbucket } from '../../identity/samples/bitbucket.ts'
import { samples as buildkite } from '../../identity/samples/buildkite.ts'
import { samples as circleci } from '../../identity/samples/circleci.ts'
import { samples as codefresh } from '../../identity/samples/codefresh.ts'
import { samples as forgejo } from '../../identity/samples/forgejo.ts'
import { samples as githubActions } from '../../identity/samples/github-actions.ts'
import { samples as gitlab } from '../../identity/samples/gitlab.ts'
import { samples as google } from '../../identity/samples/google.ts'
import { samples as harness } from '../../identity/samples/harness.ts'
import { samples as hcpTerraform } from '../../identity/samples/hcp-terraform.ts'
import { samples as jenkins } from '../../identity/samples/jenkins.ts'
import { samples as kubernetes } from '../../identity/samples/kubernetes.ts'
import type { Sample } from '../../identity/samples/sample.ts'
import { samples as semaphore } from '../../identity/samples/semaphore.ts'
import { samples as spacelift } from '../../identity/samples/spacelift.ts'

/** The first is a provider's usual edition. */
const SAMPLES = {
  'github-actions': githubActions,
  forgejo,
  gitlab,
  buildkite,
  circleci,
  jenkins,
  kubernetes,
  codefresh,
  'azure-devops': azureDevops,
  bitbucket,
  semaphore,
  spacelift,
  'hcp-terraform': hcpTerraform,
  harness,
  google,
  aws,
} satisfies Record<string, readonly Sample[]>

export type CiName = keyof typeof SAMPLES
export const CI_NAMES = Object.keys(SAMPLES) as CiName[]

/** Of each token anew. */
const REGISTERED = new Set(['iss', 'aud', 'iat', 'nbf', 'exp', 'jti'])

export function sampleOf(name: CiName): Sample {
  return SAMPLES[name][0]!
}

export const CI_CLAIMS = Object.fromEntries(
  CI_NAMES.map((name) => [
    name,
    Object.fromEntries(Object.entries(sampleOf(name).claims).filter(([claim]) => !REGISTERED.has(claim))),
  ]),
) as Record<CiName, Claims>
