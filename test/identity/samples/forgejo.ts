import { AUDIENCE, COMMIT, type Sample } from './sample.ts'

const ISSUER = 'https://forgejo.acme.example/api/actions'

export const samples: readonly Sample[] = [
  {
    issuer: { preset: 'forgejo', url: ISSUER, audience: AUDIENCE },
    match: { repository_id: '74', ref: 'refs/heads/main', ref_protected: 'true', event_name: 'push' },
    claims: {
      actor: 'dana',
      actor_id: '12',
      aud: AUDIENCE,
      base_ref: '',
      event_name: 'push',
      exp: 1790003600,
      head_ref: '',
      iat: 1790000000,
      iss: ISSUER,
      nbf: 1790000000,
      ref: 'refs/heads/main',
      ref_protected: 'true',
      ref_type: 'branch',
      repository: 'acme/shop',
      repository_id: '74',
      repository_owner: 'acme',
      repository_owner_id: '65',
      run_attempt: '1',
      run_id: '43',
      run_number: '43',
      sha: COMMIT,
      sub: 'repo:acme/shop:ref:refs/heads/main',
      workflow: 'deploy.yml',
      workflow_ref: 'acme/shop/.forgejo/workflows/deploy.yml@refs/heads/main',
    },
    job: {
      pipelineName: 'deploy.yml',
      runId: '43',
      runUrl: 'https://forgejo.acme.example/acme/shop/actions/runs/43',
      runAttempt: '1',
      repositoryUrl: 'https://forgejo.acme.example/acme/shop',
      ref: 'refs/heads/main',
      commit: COMMIT,
      actor: 'dana',
    },
  },
]
