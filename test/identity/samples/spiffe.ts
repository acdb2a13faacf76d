import { AUDIENCE, type Sample } from './sample.ts'

const ISSUER = 'https://oidc.spire.acme.example'

export const samples: readonly Sample[] = [
  {
    issuer: { preset: 'spiffe', url: ISSUER, audience: AUDIENCE, require: { trust_domain: 'acme.example' } },
    match: { sub: 'spiffe://acme.example/ci/shop/deploy' },
    claims: {
      sub: 'spiffe://acme.example/ci/shop/deploy',
      aud: [AUDIENCE],
      iss: ISSUER,
      iat: 1790000000,
      exp: 1790000300,
    },
    job: { pipelineName: '/ci/shop/deploy' },
  },
]
