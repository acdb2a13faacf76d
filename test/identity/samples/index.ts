/** The samples of all providers. */
import * as aws from './aws.ts'
import * as azureDevops from './azure-devops.ts'
import * as bitbucket from './bitbucket.ts'
import * as buildkite from './buildkite.ts'
import * as circleci from './circleci.ts'
import * as codefresh from './codefresh.ts'
import * as entra from './entra.ts'
import * as forgejo from './forgejo.ts'
import * as generic from './generic.ts'
import * as githubActions from './github-actions.ts'
import * as gitlab from './gitlab.ts'
import * as google from './google.ts'
import * as harness from './harness.ts'
import * as hcpTerraform from './hcp-terraform.ts'
import * as jenkins from './jenkins.ts'
import * as kubernetes from './kubernetes.ts'
import * as okta from './okta.ts'
import type { Sample } from './sample.ts'
import * as semaphore from './semaphore.ts'
import * as spacelift from './spacelift.ts'
import * as spiffe from './spiffe.ts'

export const SAMPLES: readonly Sample[] = [
  ...[aws, azureDevops, bitbucket, buildkite, circleci, codefresh, entra, forgejo, generic, githubActions, gitlab],
  ...[google, harness, hcpTerraform, jenkins, kubernetes, okta, semaphore, spacelift, spiffe],
].flatMap(({ samples }) => samples)
