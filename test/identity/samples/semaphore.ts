import type { Sample } from './sample.ts'

const ISSUER = 'https://acme.semaphoreci.com'
const PROJECT = '75b65f77-61ac-4016-ac55-f9548c64ac4c'
const WORKFLOW = 'c8ad0847-22ec-4e88-ae7b-4ffee8ad8a01'
const JOB = 'd23beca8-0125-41b3-8ac9-51145949e709'

export const samples: readonly Sample[] = [
  {
    issuer: { preset: 'semaphore', url: ISSUER, audience: ISSUER },
    match: { prj_id: PROJECT, ref: 'refs/heads/main', ref_type: 'branch', job_type: 'pipeline_job' },
    claims: {
      iss: ISSUER,
      aud: ISSUER,
      sub: `org:acme:project:${PROJECT}:repo:shop:ref_type:branch:ref:refs/heads/main`,
      jti: '2sacme0000000000000000a1',
      nbf: 1790000000,
      iat: 1790000000,
      exp: 1790003600,
      branch: 'main',
      pr_branch: '',
      pr: '',
      ref: 'refs/heads/main',
      ref_type: 'branch',
      tag: '',
      repo: 'shop',
      repo_slug: 'acme/shop',
      prj_id: PROJECT,
      wf_id: WORKFLOW,
      ppl_id: '6f1eb108-1e3a-4821-8f38-71b39a761632',
      job_type: 'pipeline_job',
      job_id: JOB,
      trg: 'h:f-i:f',
    },
    job: {
      pipelineName: 'acme/shop',
      runId: WORKFLOW,
      runUrl: `${ISSUER}/workflows/${WORKFLOW}`,
      taskRunId: JOB,
      ref: 'refs/heads/main',
    },
  },
]
