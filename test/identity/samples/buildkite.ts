import { AUDIENCE, COMMIT, type Sample } from './sample.ts'

export const samples: readonly Sample[] = [
  {
    issuer: {
      preset: 'buildkite',
      audience: AUDIENCE,
      require: { organization_id: 'd94f33ab-8ac6-4ccc-bdd8-c709f28aa794' },
    },
    match: {
      pipeline_id: '7ddd6920-d6cb-492b-9a36-e6482a2e780b',
      queue_id: '9aac19be-097e-4e6c-ab84-f10382d9e1fd',
      build_branch: 'main',
    },
    claims: {
      iss: 'https://agent.buildkite.com',
      sub: `organization:acme:pipeline:shop-deploy:ref:refs/heads/main:commit:${COMMIT}:step:migrate`,
      aud: AUDIENCE,
      iat: 1790000000,
      nbf: 1790000000,
      exp: 1790000300,
      organization_slug: 'acme',
      organization_id: 'd94f33ab-8ac6-4ccc-bdd8-c709f28aa794',
      pipeline_slug: 'shop-deploy',
      pipeline_id: '7ddd6920-d6cb-492b-9a36-e6482a2e780b',
      build_number: 412,
      build_id: '9b751937-f957-4bb6-abac-da9a7769844e',
      build_branch: 'main',
      build_commit: COMMIT,
      build_source: 'webhook',
      step_key: 'migrate',
      job_id: '47e558ab-6452-4561-a8bf-090bf740187b',
      agent_id: '770f4575-e79f-43df-aece-2f98a96c2d9f',
      runner_environment: 'self-hosted',
      queue_id: '9aac19be-097e-4e6c-ab84-f10382d9e1fd',
    },
    job: {
      pipelineName: 'acme/shop-deploy',
      runId: '412',
      runUrl: 'https://buildkite.com/acme/shop-deploy/builds/412#47e558ab-6452-4561-a8bf-090bf740187b',
      taskName: 'migrate',
      taskRunId: '47e558ab-6452-4561-a8bf-090bf740187b',
      ref: 'main',
      commit: COMMIT,
    },
  },
]
