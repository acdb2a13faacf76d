/**
 * Harness CI, tokens of OIDC connectors. Source: Harness documentation of connectors. Not verified: nearly all of it, pipeline
 * identities most of all, and whether the API that makes tokens takes the names of project and pipeline from its caller. Until
 * that is known every claim but account_id counts as one that a holder of an API key of the account may choose.
 */
import type { Preset } from '../preset.ts'
import { HOUR, known, text } from './fields.ts'

/** The host depends on the cluster: app, app3, accounts, accounts.eu. */
const ISSUER = /^https:\/\/[^/]+\/ng\/api\/oidc\/account\/(?<tenant>[^/]+)$/

export const harness: Preset = {
  name: 'harness',
  issuerForm: {
    like: ISSUER,
    shown: 'https://app.harness.io/ng/api/oidc/account/ followed by the id of the account',
    tenantClaim: 'account_id',
  },
  sharedIssuer: (url) => !ISSUER.test(url),
  tenancyClaims: ['account_id'],
  claims: {
    // Its parts depend on flags of the account.
    sub: { class: 'mutable' },
    account_id: { class: 'immutable', identifying: true, audit: true },
    // Identifiers that people choose, and can use again after a deletion.
    organization_id: { class: 'mutable', audit: true },
    project_id: { class: 'mutable', identifying: true, audit: true },
    pipeline_id: { class: 'mutable', identifying: true, audit: true },
    connector_id: { class: 'mutable', audit: true },
    connector_name: { class: 'mutable', audit: true },
    environment_id: { class: 'mutable', audit: true },
    environment_type: { class: 'trusted', audit: true },
    service_id: { class: 'mutable', audit: true },
    triggered_by_name: { class: 'mutable', audit: true },
    trigger_by_email: { class: 'mutable' },
    stage_type: { class: 'trusted', audit: true },
    step_type: { class: 'claimed', audit: true },
    context: { class: 'trusted', audit: true },
  },
  ruleNeeds: [
    {
      anyOf: ['project_id', 'pipeline_id'],
      level: 'error',
      why: 'all pipelines of the account get tokens from its issuer',
    },
  ],
  caution:
    'it is not known whether a holder of an API key of the Harness account can get a token that names any project and pipeline of it',
  openClaims: false,
  algorithms: ['RS256'],
  maxTokenLife: HOUR,
  maxTokenAge: HOUR,
  executionMarkers: ['pipeline_id'],
  demands: [
    {
      claim: 'context',
      like: /^PIPELINE_EXECUTION$/,
      wanted: '"PIPELINE_EXECUTION"',
      why: 'a test of a connector gets a token too',
    },
  ],
  refused: [],
  mustAgree: [],
  tokenRecipe: '$PLUGIN_OIDC_TOKEN_ID in a step that uses an OIDC connector whose audience is AUD',
  refetchable: false,
  refusedAudiences: [],
  job(claims) {
    return known({
      pipelineName: text(claims, 'pipeline_id'),
      environment: text(claims, 'environment_id'),
      actor: text(claims, 'triggered_by_name'),
    })
  },
  // Nothing in the token names the run.
  jobKey: () => [undefined],
}
