/**
 * GitHub Actions: github.com, Enterprise Cloud with data residency, Enterprise Server.
 * Source: GitHub documentation, "OpenID Connect reference" and "About security hardening with OpenID Connect".
 */
import type { Preset } from '../preset.ts'
import { hostOf, isBelow, known, link, MINUTE, text } from './fields.ts'

const ISSUER = 'https://token.actions.githubusercontent.com'

/** The web host that belongs to an issuer; undefined for a URL of unknown shape, which needs `run_url_base`. */
function webBase(iss: string): string | undefined {
  if (!URL.canParse(iss)) return undefined
  const url = new URL(iss)
  if (url.hostname === 'token.actions.githubusercontent.com') return 'https://github.com'
  const residency = /^token\.actions\.([a-z0-9-]+\.ghe\.com)$/.exec(url.hostname)
  if (residency !== null) return `https://${residency[1]}`
  return url.pathname.replace(/\/$/, '') === '/_services/token' ? url.origin : undefined
}

export const githubActions: Preset = {
  name: 'github-actions',
  issuer: ISSUER,
  // An enterprise may have the issuer with its slug appended: the keys are the same as everybody's.
  sharedIssuer: (url) => hostOf(url) === 'token.actions.githubusercontent.com',
  tenancyClaims: ['repository_owner_id', 'repository_id', 'enterprise_id'],
  claims: {
    // Repository administrators can rewrite `sub` by a template, and it has four shapes without one.
    sub: { class: 'mutable' },
    jti: { class: 'immutable', audit: true },
    repository_id: { class: 'immutable', identifying: true, audit: true },
    repository_owner_id: { class: 'immutable', identifying: true, audit: true },
    enterprise_id: { class: 'immutable', identifying: true, audit: true },
    repository: { class: 'mutable', audit: true },
    repository_owner: { class: 'mutable', audit: true },
    enterprise: { class: 'mutable', audit: true },
    repository_visibility: { class: 'trusted', audit: true },
    job_workflow_ref: { class: 'mutable', audit: true },
    job_workflow_sha: { class: 'immutable', audit: true },
    workflow_ref: { class: 'claimed', audit: true },
    workflow_sha: { class: 'claimed' },
    workflow: { class: 'claimed', audit: true },
    ref: { class: 'claimed', audit: true, glob: true, wholeRef: true },
    ref_type: { class: 'claimed', audit: true },
    ref_protected: { class: 'trusted', audit: true },
    sha: { class: 'claimed', audit: true },
    head_ref: { class: 'claimed', audit: true, glob: true },
    base_ref: { class: 'claimed', audit: true, glob: true },
    // A workflow that names an environment which does not exist creates it, without protection.
    environment: { class: 'claimed', audit: true, glob: true, absenceMeaningful: true },
    environment_node_id: { class: 'immutable', audit: true },
    event_name: { class: 'trusted', audit: true },
    actor: { class: 'mutable', audit: true },
    actor_id: { class: 'immutable', audit: true },
    run_id: { class: 'trusted', audit: true },
    run_number: { class: 'trusted', audit: true },
    run_attempt: { class: 'trusted', audit: true },
    check_run_id: { class: 'trusted', audit: true },
    runner_environment: { class: 'trusted', audit: true },
  },
  openClaims: [{ prefix: 'repo_property_' }],
  algorithms: ['RS256'],
  maxTokenLife: 5 * MINUTE,
  maxTokenAge: 5 * MINUTE,
  executionMarkers: ['run_id'],
  refused: [
    {
      claim: 'event_name',
      values: ['pull_request_target', 'workflow_run', 'issue_comment'],
      why: "it has the base repository's identity and may run a stranger's code",
    },
    {
      claim: 'event_name',
      values: ['pull_request', 'pull_request_review', 'pull_request_review_comment'],
      why: 'it runs code that nobody has reviewed yet',
    },
  ],
  mustAgree: [],
  tokenRecipe:
    'curl -sSf -H "Authorization: bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=AUD" | jq -r .value' +
    ' (the job needs permissions: id-token: write)',
  refetchable: true,
  refusedAudiences: [/^https:\/\/github\.com\/[^/]+\/?$/],
  isDefaultAudience: (audience, url) => isBelow(webBase(url), audience),
  job(claims, { iss, runUrlBase }) {
    const base = runUrlBase ?? webBase(iss)
    const ref = text(claims, 'ref')
    const run = link(base, text(claims, 'repository'), 'actions', 'runs', text(claims, 'run_id'))
    const attempt = text(claims, 'run_attempt')
    return known({
      pipelineName: text(claims, 'workflow'),
      runId: text(claims, 'run_id'),
      runUrl: attempt === undefined ? run : link(run, 'attempts', attempt),
      runAttempt: attempt,
      taskRunId: text(claims, 'check_run_id'),
      repositoryUrl: link(base, text(claims, 'repository')),
      ref,
      commit: text(claims, 'sha'),
      changeId: /^refs\/pull\/(\d+)\//.exec(ref ?? '')?.[1],
      environment: text(claims, 'environment'),
      actor: text(claims, 'actor'),
    })
  },
  jobKey: (claims) => ['repository_id', 'run_id', 'run_attempt', 'check_run_id'].map((name) => text(claims, name)),
}
