/**
 * Bitbucket Pipelines (Cloud). Source: Atlassian documentation, "Integrate Pipelines with resource servers using OIDC". Not
 * verified: how long tokens live, whether there is a `jti`, and what `branchName` is for a pull request. Nothing in a token tells
 * a pull request from a push, and repositories have no protected-branch claim: only a deployment environment with permissions
 * says who may get one.
 */
import type { Preset } from '../preset.ts'
import { HOUR, known, text } from './fields.ts'

export const bitbucket: Preset = {
  name: 'bitbucket',
  issuerForm: {
    like: /^https:\/\/api\.bitbucket\.org\/2\.0\/workspaces\/[^/]+\/pipelines-config\/identity\/oidc$/,
    shown: 'https://api.bitbucket.org/2.0/workspaces/WORKSPACE/pipelines-config/identity/oidc',
  },
  sharedIssuer: () => false,
  tenancyClaims: ['workspaceUuid'],
  claims: {
    // {repositoryUuid}:[{environmentUuid}:]{stepUuid}: another one in each step.
    sub: { class: 'mutable' },
    workspaceUuid: { class: 'immutable', identifying: true, audit: true, uuid: true },
    repositoryUuid: { class: 'immutable', identifying: true, audit: true, uuid: true },
    deploymentEnvironmentUuid: { class: 'immutable', identifying: true, audit: true, uuid: true },
    pipelineUuid: { class: 'trusted', audit: true, uuid: true },
    pipelineRunUuid: { class: 'trusted', audit: true, uuid: true },
    stepUuid: { class: 'trusted', audit: true, uuid: true },
    branchName: { class: 'claimed', audit: true, glob: true },
  },
  ruleNeeds: [
    {
      anyOf: ['workspaceUuid'],
      level: 'error',
      why: "the issuer's URL holds the workspace's name, which can be given up and taken by somebody else",
    },
  ],
  openClaims: false,
  algorithms: ['RS256'],
  maxTokenLife: HOUR,
  maxTokenAge: HOUR,
  executionMarkers: ['stepUuid'],
  refused: [],
  mustAgree: [],
  tokenRecipe: 'oidc: { audiences: [AUD] } in the step, then $BITBUCKET_STEP_OIDC_TOKEN',
  refetchable: false,
  refusedAudiences: [/^ari:cloud:bitbucket::workspace\//],
  // A token carries the workspace's own audience beside those of the step, and there is one token a step: a service that is
  // shown it can use it here, which only a step of its own for the database rules out.
  audienceAmongOthers: true,
  job(claims) {
    return known({
      // No name of the repository and no number of the build is in the token, so there is nothing to link to.
      pipelineName: text(claims, 'repositoryUuid'),
      runId: text(claims, 'pipelineUuid'),
      taskRunId: text(claims, 'stepUuid'),
      ref: text(claims, 'branchName'),
      environment: text(claims, 'deploymentEnvironmentUuid'),
    })
  },
  // A step that is run again has a new pipelineRunUuid.
  jobKey: (claims) =>
    ['workspaceUuid', 'repositoryUuid', 'pipelineRunUuid', 'stepUuid'].map((name) => text(claims, name)),
}
