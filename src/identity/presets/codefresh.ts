/**
 * Codefresh. Source: Codefresh documentation, "OpenID Connect for pipelines". All accounts share the issuer and the audience, so
 * the account's id is the only thing that tells them apart.
 */
import type { Preset } from '../preset.ts'
import { known, link, MINUTE, text, webUrl } from './fields.ts'

const ISSUER = 'https://oidc.codefresh.io'
const PLATFORM = 'https://g.codefresh.io'

export const codefresh: Preset = {
  name: 'codefresh',
  issuer: ISSUER,
  sharedIssuer: (url) => url === ISSUER,
  tenancyClaims: ['account_id'],
  claims: {
    // Its parts depend on what started the build.
    sub: { class: 'mutable' },
    account_id: { class: 'immutable', identifying: true, audit: true },
    pipeline_id: { class: 'immutable', identifying: true, audit: true },
    account_name: { class: 'mutable', audit: true },
    pipeline_name: { class: 'mutable', audit: true },
    workflow_id: { class: 'trusted', audit: true },
    initiator: { class: 'mutable', audit: true },
    scm_user_name: { class: 'mutable', audit: true },
    scm_repo_url: { class: 'mutable', audit: true },
    scm_ref: { class: 'claimed', audit: true, glob: true },
    scm_pull_request_target_branch: { class: 'claimed', audit: true, absenceMeaningful: true },
    runner_environment: { class: 'trusted', audit: true },
    platform_url: { class: 'trusted' },
  },
  ruleNeeds: [
    {
      anyOf: ['account_id'],
      level: 'error',
      why: 'all accounts of Codefresh share issuer and audience',
    },
    {
      anyOf: ['pipeline_id'],
      level: 'error',
      why: 'every service that takes tokens of the account takes this one, so all of its pipelines are too many to trust',
    },
  ],
  openClaims: false,
  algorithms: ['RS256'],
  maxTokenLife: 5 * MINUTE,
  maxTokenAge: 5 * MINUTE,
  executionMarkers: ['workflow_id'],
  refused: [
    {
      claim: 'scm_pull_request_target_branch',
      like: /./s,
      event: 'pull_request',
      why: 'the build is of a pull request and runs code that nobody has merged yet',
    },
  ],
  mustAgree: [],
  tokenRecipe: 'curl -sSf -H "Authorization: $CF_OIDC_REQUEST_TOKEN" "$CF_OIDC_REQUEST_URL" | jq -r .id_token',
  refetchable: true,
  refusedAudiences: [],
  fixedAudience: (url) => (url === ISSUER ? PLATFORM : undefined),
  job(claims, { iss, runUrlBase }) {
    const build = text(claims, 'workflow_id')
    return known({
      pipelineName: text(claims, 'pipeline_name'),
      runId: build,
      // Never platform_url: a claim is not the base of a link.
      runUrl: link(runUrlBase ?? (iss === ISSUER ? PLATFORM : undefined), 'build', build),
      repositoryUrl: webUrl(text(claims, 'scm_repo_url')),
      ref: text(claims, 'scm_ref'),
      actor: text(claims, 'scm_user_name') ?? text(claims, 'initiator'),
    })
  },
  // The steps of a build are one job: they share a machine and a volume.
  jobKey: (claims) => ['account_id', 'pipeline_id', 'workflow_id'].map((name) => text(claims, name)),
}
