/**
 * Forgejo Actions, from 15 on with a runner from 12.5 on. Source: Forgejo documentation, "OpenID Connect"; its version floor,
 * that fork pull requests get no token, and the links to runs are not verified against an instance.
 */
import type { Preset } from '../preset.ts'
import { HOUR, isBelow, known, link, MINUTE, text } from './fields.ts'

/** The instance that belongs to an issuer; undefined for a URL of unknown shape, which needs `run_url_base`. */
function instance(iss: string): string | undefined {
  return /^(https?:\/\/.+)\/api\/actions$/.exec(iss)?.[1]
}

export const forgejo: Preset = {
  name: 'forgejo',
  issuerForm: { like: /^https?:\/\/.+\/api\/actions$/, shown: 'https://forgejo.example.com/api/actions' },
  sharedIssuer: () => false,
  tenancyClaims: [],
  claims: {
    sub: { class: 'mutable' },
    // The ids and head_ref are in newer versions only, so that older ones have nothing but the name.
    repository_id: { class: 'immutable', identifying: true, audit: true },
    repository_owner_id: { class: 'immutable', identifying: true, audit: true },
    repository: { class: 'mutable', identifying: true, audit: true },
    repository_owner: { class: 'mutable', audit: true },
    workflow_ref: { class: 'claimed', audit: true },
    workflow: { class: 'claimed', audit: true },
    ref: { class: 'claimed', audit: true, glob: true, wholeRef: true },
    ref_type: { class: 'claimed', audit: true },
    ref_protected: { class: 'trusted', audit: true },
    sha: { class: 'claimed', audit: true },
    head_ref: { class: 'claimed', audit: true, glob: true },
    base_ref: { class: 'claimed', audit: true, glob: true },
    event_name: { class: 'trusted', audit: true },
    actor: { class: 'mutable', audit: true },
    actor_id: { class: 'immutable', audit: true },
    run_id: { class: 'trusted', audit: true },
    run_number: { class: 'trusted', audit: true },
    run_attempt: { class: 'trusted', audit: true },
  },
  openClaims: false,
  algorithms: ['RS256'],
  maxTokenLife: HOUR,
  // A job can ask again at any time, so a token that is old has been kept somewhere.
  maxTokenAge: 10 * MINUTE,
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
    ' (the job needs enable-openid-connect: true)',
  refetchable: true,
  refusedAudiences: [],
  isDefaultAudience: (audience, url) => isBelow(instance(url), audience),
  job(claims, { iss, runUrlBase }) {
    const base = runUrlBase ?? instance(iss)
    const repository = text(claims, 'repository')
    const ref = text(claims, 'ref')
    return known({
      pipelineName: text(claims, 'workflow'),
      runId: text(claims, 'run_id'),
      runUrl: link(base, repository, 'actions', 'runs', text(claims, 'run_number')),
      runAttempt: text(claims, 'run_attempt'),
      repositoryUrl: link(base, repository),
      ref,
      commit: text(claims, 'sha'),
      changeId: /^refs\/pull\/(\d+)\//.exec(ref ?? '')?.[1],
      actor: text(claims, 'actor'),
    })
  },
  // No claim tells two jobs of a run apart, and two jobs must not share a login: the token is the job.
  jobKey: () => [undefined],
}
