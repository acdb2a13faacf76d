import type { Sample } from './sample.ts'

const ISSUER = 'https://acme.okta.com/oauth2/aus1pgproxy0001'

export const samples: readonly Sample[] = [
  {
    issuer: { preset: 'okta', url: ISSUER, audience: 'api://pgproxy' },
    match: { cid: '0oaacmeexample00001', scp: 'pgproxy.connect' },
    claims: {
      ver: 1,
      jti: 'AT.acmeExample0000000000000000000000000000001',
      iss: ISSUER,
      aud: 'api://pgproxy',
      cid: '0oaacmeexample00001',
      scp: ['pgproxy.connect'],
      sub: '0oaacmeexample00001',
      iat: 1790000000,
      exp: 1790003600,
    },
    job: { pipelineName: '0oaacmeexample00001' },
  },
]
