/** CircleCI. Source: CircleCI documentation, "Using OpenID Connect tokens in jobs". */
import type { Preset } from '../preset.ts'
import { HOUR, known, link, text } from './fields.ts'

const CLAIM = 'oidc.circleci.com/'
const KNOWN_HOSTS = /^(github\.com|gitlab\.com|bitbucket\.org)\/(.+)$/

export const circleci: Preset = {
  name: 'circleci',
  issuerForm: {
    // The issuer of CircleCI Server is not known; of another host no more is demanded than of any issuer.
    like: /^https:\/\/(?:oidc\.circleci\.com\/org\/(?<tenant>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})|oidc\.circleci\.com|(?!oidc\.circleci\.com).+)$/,
    shown: 'https://oidc.circleci.com/org/ followed by the id of the organisation',
    tenantClaim: `${CLAIM}org-id`,
  },
  // `https://oidc.circleci.com/org/<uuid>` is an organisation's own; `--root-issuer` gives the one without a path.
  sharedIssuer: (url) => !/^\/org\/[^/]+$/.test(URL.canParse(url) ? new URL(url).pathname : ''),
  tenancyClaims: [`${CLAIM}org-id`, `${CLAIM}project-id`],
  claims: {
    sub: { class: 'mutable' },
    jti: { class: 'immutable', audit: true },
    [`${CLAIM}org-id`]: { class: 'immutable', identifying: true, audit: true },
    [`${CLAIM}project-id`]: { class: 'immutable', identifying: true, audit: true },
    [`${CLAIM}pipeline-definition-id`]: { class: 'immutable', identifying: true, audit: true },
    // Contexts can be restricted to groups, so that one acts as an environment.
    [`${CLAIM}context-ids`]: { class: 'trusted', audit: true },
    [`${CLAIM}pipeline-id`]: { class: 'trusted', audit: true },
    [`${CLAIM}workflow-id`]: { class: 'trusted', audit: true },
    [`${CLAIM}job-id`]: { class: 'trusted', audit: true },
    [`${CLAIM}ssh-rerun`]: { class: 'trusted', audit: true },
    // A fork's build has the parent's project-id and its own vcs-origin.
    [`${CLAIM}vcs-origin`]: { class: 'mutable', audit: true },
    [`${CLAIM}vcs-ref`]: { class: 'claimed', audit: true, glob: true, wholeRef: true },
  },
  ruleNeeds: [
    {
      anyOf: [`${CLAIM}vcs-origin`],
      level: 'warning',
      why: "where a project passes secrets to builds of forks, these carry the project's own ids",
    },
  ],
  openClaims: false,
  algorithms: ['RS256'],
  maxTokenLife: HOUR,
  maxTokenAge: HOUR,
  executionMarkers: [`${CLAIM}job-id`],
  refused: [
    {
      claim: `${CLAIM}ssh-rerun`,
      like: /^true$/,
      event: 'ssh-rerun',
      why: 'a job that was rerun with SSH has a person at its shell',
    },
  ],
  mustAgree: [],
  tokenRecipe: `circleci run oidc get --claims '{"aud":"AUD"}'`,
  // By its command, which a custom audience needs anyway; not verified against a live job.
  refetchable: true,
  // The default is the organisation's UUID, the same for everybody who trusts that organisation.
  refusedAudiences: [/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i],
  job(claims, { runUrlBase }) {
    const workflow = text(claims, `${CLAIM}workflow-id`)
    const origin = text(claims, `${CLAIM}vcs-origin`)
    const [, host, repository] = KNOWN_HOSTS.exec(origin ?? '') ?? []
    return known({
      pipelineName: origin ?? text(claims, `${CLAIM}project-id`),
      runId: workflow,
      runUrl: link(runUrlBase ?? 'https://app.circleci.com', 'pipelines', 'workflows', workflow),
      taskRunId: text(claims, `${CLAIM}job-id`),
      repositoryUrl: host === undefined ? undefined : link(`https://${host}`, repository),
      ref: text(claims, `${CLAIM}vcs-ref`),
      // Before anything in it that a branch's name could be.
      actor: /^org\/[^/]+\/project\/[^/]+\/user\/([^/]+)/.exec(text(claims, 'sub') ?? '')?.[1],
    })
  },
  jobKey: (claims) => ['org-id', 'project-id', 'workflow-id', 'job-id'].map((name) => text(claims, CLAIM + name)),
}
