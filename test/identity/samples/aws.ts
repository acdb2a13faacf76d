import { AUDIENCE, type Sample } from './sample.ts'

const ISSUER = 'https://d4a6bf20-41de-4c92-812a-c9c30fda9898.tokens.sts.global.api.aws'
const ROLE = 'arn:aws:iam::123456789012:role/shop-deploy'

export const samples: readonly Sample[] = [
  {
    issuer: { preset: 'aws', url: ISSUER, audience: AUDIENCE, require: { aws_account: '123456789012' } },
    match: { sub: ROLE, 'principal_tags.env': 'production' },
    claims: {
      iss: ISSUER,
      aud: AUDIENCE,
      sub: ROLE,
      iat: 1790000000,
      exp: 1790000300,
      jti: '828ed7d6-bf1b-4581-a9a2-e21e0520391b',
      'https://sts.amazonaws.com/': {
        aws_account: '123456789012',
        source_region: 'eu-west-1',
        org_id: 'o-abc1234567',
        ou_path: ['o-abc1234567/r-ab12/ou-ab12-11111111/'],
        principal_id: ROLE,
        original_session_exp: '2026-09-21T16:13:20Z',
        principal_tags: { env: 'production' },
        request_tags: { job: '412' },
      },
    },
    job: { pipelineName: 'shop-deploy' },
  },
]
