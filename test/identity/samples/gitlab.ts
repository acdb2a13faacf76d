import { AUDIENCE, COMMIT, type Sample } from './sample.ts'

const claims = {
  namespace_id: '72',
  namespace_path: 'acme',
  project_id: '20451',
  project_path: 'acme/shop',
  job_namespace_id: '72',
  job_namespace_path: 'acme',
  job_project_id: '20451',
  job_project_path: 'acme/shop',
  user_id: '1187',
  user_login: 'dana',
  user_email: 'dana@acme.example',
  user_access_level: 'maintainer',
  pipeline_id: '1600000412',
  pipeline_source: 'push',
  job_id: '8600000412',
  job_source: 'push',
  ref: 'main',
  ref_type: 'branch',
  ref_path: 'refs/heads/main',
  ref_protected: 'true',
  environment: 'production',
  environment_protected: 'true',
  environment_action: 'start',
  deployment_tier: 'production',
  runner_id: 12000007,
  runner_environment: 'gitlab-hosted',
  sha: COMMIT,
  project_visibility: 'private',
  ci_config_ref_uri: 'gitlab.com/acme/shop//.gitlab-ci.yml@refs/heads/main',
  ci_config_sha: COMMIT,
  jti: '1b90720f-54ff-4295-8dee-02eb20845960',
  iss: 'https://gitlab.com',
  sub: 'project_path:acme/shop:ref_type:branch:ref:main',
  aud: AUDIENCE,
  nbf: 1789999995,
  iat: 1790000000,
  exp: 1790003600,
}

function edition(name: string, iss: string): Sample {
  return {
    edition: name,
    issuer: { preset: 'gitlab', url: iss, audience: AUDIENCE, require: { namespace_id: '72' } },
    match: {
      project_id: '20451',
      job_project_id: '20451',
      ref_path: 'refs/heads/main',
      ref_protected: 'true',
      environment: 'production',
    },
    claims: { ...claims, iss },
    job: {
      pipelineName: 'acme/shop',
      runId: '1600000412',
      runUrl: `${iss}/acme/shop/-/pipelines/1600000412`,
      taskRunId: '8600000412',
      repositoryUrl: `${iss}/acme/shop`,
      ref: 'refs/heads/main',
      commit: COMMIT,
      environment: 'production',
      actor: 'dana',
    },
  }
}

export const samples: readonly Sample[] = [
  edition('gitlab.com', 'https://gitlab.com'),
  edition('self-managed', 'https://gitlab.acme.example'),
]
