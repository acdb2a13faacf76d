import type { Sample } from './sample.ts'

const AUDIENCE = 'https://g.codefresh.io'
const ACCOUNT = '5fac3e000000000000000001'
const PIPELINE = '64ac3e000000000000000002'
const BUILD = '64ac3e000000000000000412'

export const samples: readonly Sample[] = [
  {
    issuer: { preset: 'codefresh', audience: AUDIENCE, require: { account_id: ACCOUNT } },
    match: { pipeline_id: PIPELINE, scm_ref: 'main' },
    claims: {
      sub: `account:${ACCOUNT}:pipeline:${PIPELINE}:scm_repo_url:https://github.com/acme/shop:scm_user_name:dana-dev:scm_ref:main`,
      account_id: ACCOUNT,
      account_name: 'acme',
      pipeline_id: PIPELINE,
      pipeline_name: 'shop/deploy',
      workflow_id: BUILD,
      scm_user_name: 'dana-dev',
      scm_repo_url: 'https://github.com/acme/shop',
      scm_ref: 'main',
      aud: AUDIENCE,
      iss: 'https://oidc.codefresh.io',
      iat: 1790000000,
      exp: 1790000300,
    },
    job: {
      pipelineName: 'shop/deploy',
      runId: BUILD,
      runUrl: `https://g.codefresh.io/build/${BUILD}`,
      repositoryUrl: 'https://github.com/acme/shop',
      ref: 'main',
      actor: 'dana-dev',
    },
  },
]
