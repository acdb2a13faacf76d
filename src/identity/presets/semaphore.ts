/**
 * Semaphore. Source: Semaphore documentation, "OpenID Connect". Not verified: how long tokens live, the words of `job_type` other
 * than pipeline_job, and the links to jobs.
 */
import type { Preset } from '../preset.ts'
import { HOUR, known, link, text } from './fields.ts'

export const semaphore: Preset = {
  name: 'semaphore',
  issuerForm: { like: /^https:\/\/[^/]+$/, shown: 'https://ORGANISATION.semaphoreci.com' },
  sharedIssuer: () => false,
  tenancyClaims: ['prj_id'],
  claims: {
    sub: { class: 'mutable' },
    jti: { class: 'immutable', audit: true },
    prj_id: { class: 'immutable', identifying: true, audit: true },
    repo: { class: 'mutable', audit: true },
    repo_slug: { class: 'mutable', audit: true },
    ref: { class: 'claimed', audit: true, glob: true, wholeRef: true },
    ref_type: { class: 'claimed', audit: true },
    tag: { class: 'claimed', audit: true, glob: true },
    pr: { class: 'trusted', audit: true, absenceMeaningful: true },
    pr_branch: { class: 'claimed', audit: true },
    wf_id: { class: 'trusted', audit: true },
    ppl_id: { class: 'trusted', audit: true },
    job_id: { class: 'trusted', audit: true },
    job_type: { class: 'trusted', audit: true },
    trg: { class: 'trusted', audit: true },
  },
  ruleNeeds: [
    {
      anyOf: ['prj_id'],
      level: 'error',
      why: "the issuer's URL holds the organisation's name, which can be given up and taken by somebody else, and every service takes this token",
    },
  ],
  notForRules: { branch: 'for a pull request it is the branch that it asks to be merged into; name ref and ref_type' },
  openClaims: false,
  algorithms: ['RS256'],
  maxTokenLife: HOUR,
  maxTokenAge: HOUR,
  executionMarkers: ['job_id'],
  demands: [
    {
      claim: 'job_type',
      like: /^pipeline_job$/,
      wanted: '"pipeline_job"',
      why: 'a debug job has a person at its shell',
    },
  ],
  refused: [
    { claim: 'pr', like: /./s, event: 'pull_request', why: 'it runs code that nobody has merged yet' },
    { claim: 'ref_type', like: /^pull/, event: 'pull_request', why: 'it runs code that nobody has merged yet' },
  ],
  mustAgree: [],
  tokenRecipe: '$SEMAPHORE_OIDC_TOKEN, which is in every job',
  refetchable: false,
  refusedAudiences: [],
  fixedAudience: (url) => url,
  job(claims, { iss, runUrlBase }) {
    const job = text(claims, 'job_id')
    const base = runUrlBase ?? iss
    return known({
      pipelineName: text(claims, 'repo_slug') ?? text(claims, 'repo'),
      runId: text(claims, 'wf_id'),
      runUrl: link(base, 'workflows', text(claims, 'wf_id')),
      taskRunId: job,
      ref: text(claims, 'ref'),
      changeId: text(claims, 'pr'),
    })
  },
  jobKey: (claims) => ['prj_id', 'wf_id', 'job_id'].map((name) => text(claims, name)),
}
