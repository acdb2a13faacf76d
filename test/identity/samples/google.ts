import { AUDIENCE, type Sample } from './sample.ts'

export const samples: readonly Sample[] = [
  {
    issuer: { preset: 'google', audience: AUDIENCE },
    match: {
      sub: '109876543210987654321',
      email: 'shop-deploy@acme-prod.iam.gserviceaccount.com',
      email_verified: 'true',
      'google.compute_engine.project_id': 'acme-prod',
    },
    claims: {
      iss: 'https://accounts.google.com',
      azp: '109876543210987654321',
      aud: AUDIENCE,
      sub: '109876543210987654321',
      email: 'shop-deploy@acme-prod.iam.gserviceaccount.com',
      email_verified: true,
      iat: 1790000000,
      exp: 1790003600,
      google: { compute_engine: { project_id: 'acme-prod', instance_id: '1152921500000000000' } },
    },
    job: { pipelineName: 'shop-deploy@acme-prod.iam.gserviceaccount.com' },
  },
]
