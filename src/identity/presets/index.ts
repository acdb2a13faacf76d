/** Every provider that pgusher knows. */
import type { PresetName } from '../../config/schema.ts'
import type { Preset } from '../preset.ts'
import { aws } from './aws.ts'
import { azureDevops } from './azure-devops.ts'
import { bitbucket } from './bitbucket.ts'
import { buildkite } from './buildkite.ts'
import { circleci } from './circleci.ts'
import { codefresh } from './codefresh.ts'
import { entra } from './entra.ts'
import { forgejo } from './forgejo.ts'
import { generic } from './generic.ts'
import { githubActions } from './github-actions.ts'
import { gitlab } from './gitlab.ts'
import { google } from './google.ts'
import { harness } from './harness.ts'
import { hcpTerraform } from './hcp-terraform.ts'
import { jenkins } from './jenkins.ts'
import { kubernetes } from './kubernetes.ts'
import { okta } from './okta.ts'
import { semaphore } from './semaphore.ts'
import { spacelift } from './spacelift.ts'
import { spiffe } from './spiffe.ts'

export const PRESETS: Readonly<Record<PresetName, Preset>> = {
  'github-actions': githubActions,
  gitlab,
  buildkite,
  jenkins,
  circleci,
  forgejo,
  bitbucket,
  'azure-devops': azureDevops,
  spacelift,
  'hcp-terraform': hcpTerraform,
  semaphore,
  codefresh,
  harness,
  kubernetes,
  google,
  aws,
  entra,
  okta,
  spiffe,
  generic,
}
