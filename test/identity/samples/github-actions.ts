import { AUDIENCE, COMMIT, type Sample } from './sample.ts'

const claims = {
  jti: 'f3e483ff-5a6b-43f1-a3fc-083dca53be0c',
  sub: 'repo:acme@9100001/shop@784500001:environment:production',
  aud: AUDIENCE,
  ref: 'refs/heads/main',
  sha: COMMIT,
  repository: 'acme/shop',
  repository_owner: 'acme',
  repository_owner_id: '9100001',
  repository_id: '784500001',
  repository_visibility: 'private',
  run_id: '18700000412',
  run_number: '412',
  run_attempt: '1',
  check_run_id: '52900000412',
  actor: 'dana-dev',
  actor_id: '5500001',
  workflow: 'deploy',
  workflow_ref: 'acme/shop/.github/workflows/deploy.yml@refs/heads/main',
  workflow_sha: COMMIT,
  job_workflow_ref: 'acme/platform-workflows/.github/workflows/db-migrate.yml@refs/tags/v3',
  job_workflow_sha: '9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b',
  head_ref: '',
  base_ref: '',
  event_name: 'push',
  ref_type: 'branch',
  ref_protected: 'true',
  environment: 'production',
  runner_environment: 'github-hosted',
  iss: 'https://token.actions.githubusercontent.com',
  nbf: 1789999400,
  iat: 1790000000,
  exp: 1790000300,
}

const match = { repository_id: '784500001', environment: 'production', ref: 'refs/heads/main' }

function edition(name: string, iss: string, web: string): Sample {
  return {
    edition: name,
    issuer: { preset: 'github-actions', url: iss, audience: AUDIENCE, require: { repository_owner_id: '9100001' } },
    match,
    claims: { ...claims, iss },
    job: {
      pipelineName: 'deploy',
      runId: '18700000412',
      runUrl: `${web}/acme/shop/actions/runs/18700000412/attempts/1`,
      runAttempt: '1',
      taskRunId: '52900000412',
      repositoryUrl: `${web}/acme/shop`,
      ref: 'refs/heads/main',
      commit: COMMIT,
      environment: 'production',
      actor: 'dana-dev',
    },
  }
}

export const samples: readonly Sample[] = [
  edition('github.com', claims.iss, 'https://github.com'),
  edition('github.com, enterprise with its slug', `${claims.iss}/acme-enterprise`, 'https://github.com'),
  edition('data residency', 'https://token.actions.acme-eu.ghe.com', 'https://acme-eu.ghe.com'),
  edition('Enterprise Server', 'https://git.acme.example/_services/token', 'https://git.acme.example'),
]
