import { AUDIENCE, type Sample } from './sample.ts'

const ISSUER = 'https://oidc.eks.eu-west-1.amazonaws.com/id/00AC3E000000000000000000000000AA'
const POD = { name: 'shop-deploy-412-x7k2p', uid: 'd999ee1d-cb24-446d-b0e1-eb9ea22ea640' }
const ACCOUNT = { name: 'shop-deploy', uid: '251ea4a9-eaa4-4720-9c07-6582cb669658' }

export const samples: readonly Sample[] = [
  {
    issuer: { preset: 'kubernetes', url: ISSUER, audience: AUDIENCE },
    match: {
      sub: 'system:serviceaccount:ci:shop-deploy',
      'kubernetes.io.namespace': 'ci',
      'kubernetes.io.serviceaccount.uid': ACCOUNT.uid,
    },
    claims: {
      aud: [AUDIENCE],
      iss: ISSUER,
      sub: 'system:serviceaccount:ci:shop-deploy',
      jti: '6a3c18be-11bb-4356-85a2-b93f10701db7',
      iat: 1790000000,
      nbf: 1790000000,
      exp: 1790000600,
      'kubernetes.io': {
        namespace: 'ci',
        node: { name: 'ip-10-0-3-17', uid: 'ee5e7b77-ddc6-479e-b9da-6fc550245e00' },
        pod: POD,
        serviceaccount: ACCOUNT,
      },
    },
    job: { pipelineName: 'shop-deploy', runId: POD.uid, taskName: POD.name, taskRunId: POD.uid },
  },
]
