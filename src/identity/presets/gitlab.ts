/** GitLab CI/CD `id_tokens`. Source: GitLab documentation, "OpenID Connect authentication using ID tokens". */
import type { Preset } from '../preset.ts'
import { HOUR, hostOf, known, link, text } from './fields.ts'

const ANOTHER = "the job runs another project's code"

export const gitlab: Preset = {
  name: 'gitlab',
  issuer: 'https://gitlab.com',
  sharedIssuer: (url) => hostOf(url) === 'gitlab.com',
  tenancyClaims: ['project_id', 'namespace_id', 'job_project_id', 'job_namespace_id'],
  claims: {
    // A project setting chooses the components of `sub`.
    sub: { class: 'mutable' },
    jti: { class: 'immutable', audit: true },
    project_id: { class: 'immutable', identifying: true, audit: true },
    namespace_id: { class: 'immutable', identifying: true, audit: true },
    job_project_id: { class: 'immutable', identifying: true, audit: true },
    job_namespace_id: { class: 'immutable', identifying: true, audit: true },
    project_path: { class: 'mutable', audit: true },
    namespace_path: { class: 'mutable', audit: true },
    job_project_path: { class: 'mutable', audit: true },
    job_namespace_path: { class: 'mutable', audit: true },
    project_visibility: { class: 'trusted', audit: true },
    ref: { class: 'claimed', audit: true, glob: true },
    ref_type: { class: 'claimed', audit: true },
    ref_path: { class: 'claimed', audit: true, glob: true, wholeRef: true },
    ref_protected: { class: 'trusted', audit: true },
    sha: { class: 'claimed', audit: true },
    environment: { class: 'claimed', audit: true, glob: true, absenceMeaningful: true },
    // Always false without a paid edition.
    environment_protected: { class: 'trusted', audit: true },
    environment_action: { class: 'claimed', audit: true },
    deployment_tier: { class: 'claimed', audit: true },
    pipeline_id: { class: 'trusted', audit: true },
    pipeline_source: { class: 'trusted', audit: true },
    job_id: { class: 'trusted', audit: true },
    job_source: { class: 'trusted', audit: true },
    user_id: { class: 'immutable', audit: true },
    user_login: { class: 'mutable', audit: true },
    user_email: { class: 'mutable' },
    user_access_level: { class: 'trusted', audit: true },
    groups_direct: { class: 'mutable' },
    ci_config_ref_uri: { class: 'mutable', audit: true },
    ci_config_sha: { class: 'claimed', audit: true },
    runner_id: { class: 'trusted', audit: true },
    runner_environment: { class: 'trusted', audit: true },
  },
  openClaims: false,
  algorithms: ['RS256'],
  // `exp` is the job's timeout, of which a project may choose hours; the age is what limits a leaked token.
  maxTokenLife: 24 * HOUR,
  maxTokenAge: HOUR,
  executionMarkers: ['job_id'],
  refused: [
    {
      claim: 'pipeline_source',
      values: ['merge_request_event', 'external_pull_request_event'],
      why: 'it runs code that nobody has merged yet, from forks too',
    },
  ],
  // From 18.4 on project_* is the source of a fork's merge request and job_project_* is where the job runs.
  mustAgree: [
    { claims: ['project_id', 'job_project_id'], why: ANOTHER },
    { claims: ['namespace_id', 'job_namespace_id'], why: ANOTHER },
  ],
  tokenRecipe: 'id_tokens: { PG_ID_TOKEN: { aud: AUD } } in the job, then $PG_ID_TOKEN',
  refetchable: false,
  refusedAudiences: [/^https:\/\/gitlab\.com\/?$/],
  isDefaultAudience: (audience, url) => audience.replace(/\/$/, '') === url.replace(/\/$/, ''),
  job(claims, { iss, runUrlBase }) {
    const base = runUrlBase ?? iss
    const refPath = text(claims, 'ref_path')
    const project = text(claims, 'job_project_path') ?? text(claims, 'project_path')
    return known({
      pipelineName: project,
      runId: text(claims, 'pipeline_id'),
      runUrl: link(base, project, '-', 'pipelines', text(claims, 'pipeline_id')),
      taskRunId: text(claims, 'job_id'),
      repositoryUrl: link(base, project),
      ref: refPath ?? text(claims, 'ref'),
      commit: text(claims, 'sha'),
      changeId: /^refs\/merge-requests\/(\d+)\//.exec(refPath ?? '')?.[1],
      environment: text(claims, 'environment'),
      actor: text(claims, 'user_login'),
    })
  },
  // A retried job has a new job_id.
  jobKey: (claims) => ['project_id', 'pipeline_id', 'job_id'].map((name) => text(claims, name)),
}
