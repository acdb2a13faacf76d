/**
 * Azure DevOps Pipelines, tokens of pipelines (`p://`). Sources: Azure DevOps REST API, "Oidctoken - Create"; Teleport's
 * integration. Not verified: how long tokens live, and whether Microsoft's end of this issuer for service connections
 * (July 2027) means these tokens too, which is why another issuer can be configured.
 */
import type { Preset } from '../preset.ts'
import { HOUR, known, link, MINUTE, text, webUrl } from './fields.ts'

/** One key set is said to sign for every organisation, so the id in the URL must be that of the token. */
const ISSUER = /^https:\/\/vstoken\.dev\.azure\.com\/(?<tenant>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/

/** `p://organisation/project/pipeline`. */
const SUBJECT = /^p:\/\/([^/]+)\/([^/]+)\/(.+)$/

export const azureDevops: Preset = {
  name: 'azure-devops',
  issuerForm: {
    like: ISSUER,
    shown: 'https://vstoken.dev.azure.com/ followed by the id of the organisation',
    tenantClaim: 'org_id',
  },
  sharedIssuer: (url) => !ISSUER.test(url),
  tenancyClaims: ['org_id'],
  claims: {
    sub: { class: 'mutable', audit: true },
    jti: { class: 'immutable', audit: true },
    org_id: { class: 'immutable', identifying: true, audit: true, uuid: true },
    prj_id: { class: 'immutable', identifying: true, audit: true, uuid: true },
    def_id: { class: 'immutable', identifying: true, audit: true },
    organization: { fromSubject: (subject) => SUBJECT.exec(subject)?.[1], class: 'mutable', audit: true },
    project: { fromSubject: (subject) => SUBJECT.exec(subject)?.[2], class: 'mutable', audit: true },
    pipeline: { fromSubject: (subject) => SUBJECT.exec(subject)?.[3], class: 'mutable', audit: true },
    rpo_id: { class: 'mutable', audit: true },
    rpo_uri: { class: 'mutable', audit: true },
    // Whoever starts a run by hand chooses both.
    rpo_ref: { class: 'claimed', audit: true, glob: true, wholeRef: true },
    rpo_ver: { class: 'claimed', audit: true },
    run_id: { class: 'trusted', audit: true },
  },
  ruleNeeds: [
    {
      anyOf: ['prj_id'],
      level: 'error',
      why: "every service that takes tokens of the organisation takes this one, so the organisation's jobs are too many to trust",
    },
  ],
  openClaims: false,
  algorithms: ['RS256'],
  maxTokenLife: HOUR,
  // A job can ask again at any time.
  maxTokenAge: 10 * MINUTE,
  executionMarkers: ['run_id'],
  demands: [
    {
      claim: 'sub',
      like: SUBJECT,
      wanted: 'p://organisation/project/pipeline',
      why: 'a token of a service connection (sc://) opens what is in Azure; ask for one without serviceConnectionId',
    },
  ],
  refused: [
    {
      claim: 'rpo_ref',
      like: /^refs\/pull\//,
      event: 'pull_request',
      why: 'it runs code that nobody has reviewed yet',
    },
  ],
  mustAgree: [],
  tokenRecipe:
    'curl -sSf -X POST -H "Authorization: Bearer $SYSTEM_ACCESSTOKEN" -H "Content-Length: 0" "$SYSTEM_OIDCREQUESTURI?api-version=7.1" | jq -r .oidcToken' +
    ' (the step needs env: { SYSTEM_ACCESSTOKEN: $(System.AccessToken) })',
  refetchable: true,
  refusedAudiences: [],
  fixedAudience: () => 'api://AzureADTokenExchange',
  job(claims, { runUrlBase }) {
    const organization = text(claims, 'organization')
    const project = text(claims, 'project')
    const run = text(claims, 'run_id')
    const base = runUrlBase ?? 'https://dev.azure.com'
    const page = link(base, organization, project, '_build', 'results')
    const ref = text(claims, 'rpo_ref')
    return known({
      pipelineName: text(claims, 'pipeline'),
      runId: run,
      runUrl: page === undefined || run === undefined ? undefined : `${page}?buildId=${encodeURIComponent(run)}`,
      repositoryUrl: webUrl(text(claims, 'rpo_uri')),
      ref,
      commit: text(claims, 'rpo_ver'),
      changeId: /^refs\/pull\/(\d+)\//.exec(ref ?? '')?.[1],
    })
  },
  // No claim tells two jobs of a run apart, and two jobs must not share a login: the token is the job.
  jobKey: () => [undefined],
}
