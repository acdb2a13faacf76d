import { COMMIT, type Sample } from './sample.ts'

const ORGANISATION = 'dbe992a5-7541-453f-a93d-704731e9e2a5'
const PROJECT = 'f9857125-8a0d-4d3d-92c1-a8d8fb9b6694'
const ISSUER = `https://vstoken.dev.azure.com/${ORGANISATION}`
const AUDIENCE = 'api://AzureADTokenExchange'

export const samples: readonly Sample[] = [
  {
    issuer: { preset: 'azure-devops', url: ISSUER, audience: AUDIENCE, require: { org_id: ORGANISATION } },
    match: { prj_id: PROJECT, def_id: '12', rpo_ref: 'refs/heads/main' },
    claims: {
      jti: 'ed24641a-a39b-4079-851e-475a5f7d4ce1',
      sub: 'p://acme/shop/shop-deploy',
      aud: AUDIENCE,
      iss: ISSUER,
      nbf: 1790000000,
      iat: 1790000000,
      exp: 1790000600,
      org_id: ORGANISATION,
      prj_id: PROJECT,
      def_id: '12',
      rpo_id: 'acme/shop',
      rpo_uri: 'https://github.com/acme/shop.git',
      rpo_ver: COMMIT,
      rpo_ref: 'refs/heads/main',
      run_id: '345',
    },
    job: {
      pipelineName: 'shop-deploy',
      runId: '345',
      runUrl: 'https://dev.azure.com/acme/shop/_build/results?buildId=345',
      repositoryUrl: 'https://github.com/acme/shop',
      ref: 'refs/heads/main',
      commit: COMMIT,
    },
  },
]
