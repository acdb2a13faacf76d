/** Buildkite agents. Source: Buildkite documentation, "OIDC with Buildkite" and `buildkite-agent oidc request-token`. */
import type { Preset } from '../preset.ts'
import { encodeSegment, hostOf, known, link, MINUTE, text } from './fields.ts'

export const buildkite: Preset = {
  name: 'buildkite',
  issuer: 'https://agent.buildkite.com',
  sharedIssuer: (url) => hostOf(url) === 'agent.buildkite.com',
  // Slugs can be renamed and taken by others; the ids need `--claim organization_id,pipeline_id` in the job.
  tenancyClaims: ['organization_id', 'pipeline_id'],
  claims: {
    // The job itself chooses what `sub` is (`--subject-claim`).
    sub: { class: 'claimed' },
    jti: { class: 'immutable', audit: true },
    organization_id: { class: 'immutable', identifying: true, audit: true },
    pipeline_id: { class: 'immutable', identifying: true, audit: true },
    cluster_id: { class: 'immutable', identifying: true, audit: true },
    queue_id: { class: 'immutable', identifying: true, audit: true },
    organization_slug: { class: 'mutable', audit: true },
    pipeline_slug: { class: 'mutable', audit: true },
    cluster_name: { class: 'mutable', audit: true },
    queue_key: { class: 'mutable', audit: true },
    // A build started by hand or by API names any branch and commit, and a fork's branch may be called main.
    build_branch: { class: 'claimed', audit: true, glob: true },
    build_tag: { class: 'claimed', audit: true, glob: true, absenceMeaningful: true },
    build_commit: { class: 'claimed', audit: true },
    build_source: { class: 'trusted', audit: true },
    build_number: { class: 'trusted', audit: true },
    build_id: { class: 'trusted', audit: true },
    step_key: { class: 'claimed', audit: true },
    job_id: { class: 'trusted', audit: true },
    agent_id: { class: 'trusted', audit: true },
    runner_environment: { class: 'trusted', audit: true },
  },
  openClaims: [{ prefix: 'agent_tag:' }],
  algorithms: ['RS256'],
  maxTokenLife: 5 * MINUTE,
  maxTokenAge: 5 * MINUTE,
  executionMarkers: ['job_id'],
  refused: [],
  mustAgree: [],
  tokenRecipe: 'buildkite-agent oidc request-token --audience AUD --claim organization_id,pipeline_id',
  refetchable: true,
  refusedAudiences: [/^https:\/\/buildkite\.com\/[^/]+\/?$/],
  job(claims, { runUrlBase }) {
    const organization = text(claims, 'organization_slug')
    const pipeline = text(claims, 'pipeline_slug')
    const build = text(claims, 'build_number')
    const job = text(claims, 'job_id')
    const run = link(runUrlBase ?? 'https://buildkite.com', organization, pipeline, 'builds', build)
    return known({
      pipelineName: organization === undefined || pipeline === undefined ? undefined : `${organization}/${pipeline}`,
      // build_id is there only when the job asked for it, so two steps of one build could differ by it.
      runId: build,
      runUrl: run === undefined || job === undefined ? run : `${run}#${encodeSegment(job)}`,
      taskName: text(claims, 'step_key'),
      taskRunId: job,
      ref: text(claims, 'build_tag') ?? text(claims, 'build_branch'),
      commit: text(claims, 'build_commit'),
    })
  },
  // Claims that are always there: a job may ask for two tokens with different optional ones. A retry has a new job_id.
  jobKey: (claims) =>
    ['organization_slug', 'pipeline_slug', 'build_number', 'job_id'].map((name) => text(claims, name)),
}
