import { AUDIENCE, type Sample } from './sample.ts'

const ORGANISATION = '4dd693bc-c4ef-44dd-be67-47fcf47891fb'
const PROJECT = 'c387aaa1-c223-46c5-88ec-6075186bff38'
const USER = 'cb51f098-ee94-4768-a6be-b9bbcb9c6f55'
const WORKFLOW = '2008694d-b084-406b-8fe8-baa396c064bb'
const JOB = '1fe6708e-951b-40bd-be40-d1915242df0a'
const ISSUER = `https://oidc.circleci.com/org/${ORGANISATION}`

export const samples: readonly Sample[] = [
  {
    issuer: { preset: 'circleci', url: ISSUER, audience: AUDIENCE },
    match: {
      'oidc.circleci.com/project-id': PROJECT,
      'oidc.circleci.com/vcs-origin': 'github.com/acme/shop',
      'oidc.circleci.com/vcs-ref': 'refs/heads/main',
      'oidc.circleci.com/ssh-rerun': 'false',
    },
    claims: {
      iss: ISSUER,
      sub: `org/${ORGANISATION}/project/${PROJECT}/user/${USER}/vcs-origin/github.com/acme/shop/vcs-ref/refs/heads/main`,
      aud: AUDIENCE,
      iat: 1790000000,
      exp: 1790003600,
      'oidc.circleci.com/org-id': ORGANISATION,
      'oidc.circleci.com/project-id': PROJECT,
      'oidc.circleci.com/pipeline-definition-id': '639eb02f-881b-4c43-b12a-d33dba931311',
      'oidc.circleci.com/pipeline-id': 'cbea39eb-b9f7-4710-b9e8-ace743f6d88c',
      'oidc.circleci.com/workflow-id': WORKFLOW,
      'oidc.circleci.com/job-id': JOB,
      'oidc.circleci.com/context-ids': ['f4ded289-3656-4066-945e-9cbb0af497dd'],
      'oidc.circleci.com/ssh-rerun': false,
      'oidc.circleci.com/vcs-origin': 'github.com/acme/shop',
      'oidc.circleci.com/vcs-ref': 'refs/heads/main',
    },
    job: {
      pipelineName: 'github.com/acme/shop',
      runId: WORKFLOW,
      runUrl: `https://app.circleci.com/pipelines/workflows/${WORKFLOW}`,
      taskRunId: JOB,
      repositoryUrl: 'https://github.com/acme/shop',
      ref: 'refs/heads/main',
      actor: USER,
    },
  },
]
