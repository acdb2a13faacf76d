/** What four CI systems say of a job that migrates production from main, of an organisation that does not exist: acme. */

export const ISSUER_SHAPES = ['github', 'gitlab', 'buildkite', 'jenkins'] as const
export type IssuerShape = (typeof ISSUER_SHAPES)[number]

export type Claims = Readonly<Record<string, unknown>>

/** Where links to runs of the demo's jobs would go: its issuers are on this machine, so `run_url_base` needs it. */
export const RUN_URL_BASE: Readonly<Record<IssuerShape, string>> = {
  github: 'https://github.com',
  gitlab: 'https://gitlab.com',
  buildkite: 'https://buildkite.com',
  jenkins: 'https://jenkins.acme.example',
}

const COMMIT = '4f1c8f0b7a0d0c3f2a9be1d6c5e4f3a2b1c0d9e8'

/** A claim that is set to undefined is left out of the token. `ref` changes what follows from it, as a real issuer would. */
export function githubClaims(claims: Claims = {}): Claims {
  const ref = typeof claims['ref'] === 'string' ? claims['ref'] : 'refs/heads/main'
  return {
    sub: 'repo:acme@9100001/shop@784500001:environment:production',
    ref,
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
    workflow_ref: `acme/shop/.github/workflows/deploy.yml@${ref}`,
    workflow_sha: COMMIT,
    job_workflow_ref: 'acme/platform-workflows/.github/workflows/db-migrate.yml@refs/tags/v3',
    job_workflow_sha: '9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b',
    head_ref: '',
    base_ref: '',
    event_name: 'push',
    ref_type: 'branch',
    ref_protected: String(ref === 'refs/heads/main'),
    environment: 'production',
    runner_environment: 'github-hosted',
    ...claims,
  }
}

export function gitlabClaims(claims: Claims = {}): Claims {
  const ref = typeof claims['ref'] === 'string' ? claims['ref'] : 'main'
  return {
    sub: `project_path:acme/shop:ref_type:branch:ref:${ref}`,
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
    ref,
    ref_type: 'branch',
    ref_path: `refs/heads/${ref}`,
    ref_protected: String(ref === 'main'),
    environment: 'production',
    environment_protected: 'true',
    environment_action: 'start',
    deployment_tier: 'production',
    runner_id: 12000007,
    runner_environment: 'gitlab-hosted',
    sha: COMMIT,
    project_visibility: 'private',
    ci_config_ref_uri: `gitlab.com/acme/shop//.gitlab-ci.yml@refs/heads/${ref}`,
    ci_config_sha: COMMIT,
    ...claims,
  }
}

export function buildkiteClaims(claims: Claims = {}): Claims {
  const branch = typeof claims['build_branch'] === 'string' ? claims['build_branch'] : 'main'
  return {
    sub: `organization:acme:pipeline:shop-deploy:ref:refs/heads/${branch}:commit:${COMMIT}:step:migrate`,
    organization_slug: 'acme',
    organization_id: 'd94f33ab-8ac6-4ccc-bdd8-c709f28aa794',
    pipeline_slug: 'shop-deploy',
    pipeline_id: '7ddd6920-d6cb-492b-9a36-e6482a2e780b',
    build_number: 412,
    build_id: '9b751937-f957-4bb6-abac-da9a7769844e',
    build_branch: branch,
    build_commit: COMMIT,
    build_source: 'webhook',
    step_key: 'migrate',
    job_id: '47e558ab-6452-4561-a8bf-090bf740187b',
    agent_id: '770f4575-e79f-43df-aece-2f98a96c2d9f',
    runner_environment: 'self-hosted',
    queue_id: '9aac19be-097e-4e6c-ab84-f10382d9e1fd',
    ...claims,
  }
}

/** The plugin's defaults and two templates; the plugin sets no `jti`. */
export function jenkinsClaims(claims: Claims = {}): Claims {
  return {
    sub: 'https://jenkins.acme.example/job/acme/job/shop/job/main/',
    build_number: 412,
    job_name: 'acme/shop/main',
    build_url: 'https://jenkins.acme.example/job/acme/job/shop/job/main/412/',
    jti: undefined,
    ...claims,
  }
}

export const DEFAULT_CLAIMS: Readonly<Record<IssuerShape, (claims?: Claims) => Claims>> = {
  github: githubClaims,
  gitlab: gitlabClaims,
  buildkite: buildkiteClaims,
  jenkins: jenkinsClaims,
}
