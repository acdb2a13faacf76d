import { AUDIENCE, type Sample } from './sample.ts'

const ISSUER = 'https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc'
const WORKSPACE = 'b3092e13-4f52-4a78-bda1-7393185cb03e'
const REPOSITORY = 'd138899d-3be0-4589-890c-279360f86b23'
const ENVIRONMENT = '38d23e11-0ef9-4590-9ade-83b0f2225b74'
const PIPELINE = '98947900-6eef-4dff-ae58-39d8bb6669c4'
const STEP = '7f287176-1521-49c8-8749-fc1ac469526b'

export const samples: readonly Sample[] = [
  {
    issuer: { preset: 'bitbucket', url: ISSUER, audience: AUDIENCE, require: { workspaceUuid: WORKSPACE } },
    match: { repositoryUuid: REPOSITORY, deploymentEnvironmentUuid: ENVIRONMENT },
    claims: {
      sub: `{${REPOSITORY}}:{${ENVIRONMENT}}:{${STEP}}`,
      aud: [`ari:cloud:bitbucket::workspace/${WORKSPACE}`, AUDIENCE],
      iss: ISSUER,
      workspaceUuid: `{${WORKSPACE}}`,
      repositoryUuid: `{${REPOSITORY}}`,
      pipelineUuid: `{${PIPELINE}}`,
      pipelineRunUuid: '{d9a1e90d-95d9-49eb-9712-b1890c619c08}',
      stepUuid: `{${STEP}}`,
      deploymentEnvironmentUuid: `{${ENVIRONMENT}}`,
      branchName: 'main',
      iat: 1790000000,
      exp: 1790003600,
    },
    job: { pipelineName: REPOSITORY, runId: PIPELINE, taskRunId: STEP, ref: 'main', environment: ENVIRONMENT },
  },
]
