import { AUDIENCE, type Sample } from './sample.ts'

/** An attestor in front of Drone, which has no tokens of its own: a secret extension that signs what the server says of the build. */
export const samples: readonly Sample[] = [
  {
    edition: 'attestor for Drone',
    issuer: {
      preset: 'generic',
      url: 'https://pgusher.acme.example/attest/drone',
      audience: AUDIENCE,
      tenancy: ['repo_uid'],
      require: { repo_uid: '784500001' },
    },
    match: { event: 'push', ref: 'refs/heads/main', source_repo: 'acme/shop' },
    claims: {
      iss: 'https://pgusher.acme.example/attest/drone',
      aud: AUDIENCE,
      sub: 'drone:acme/shop:event:push:ref:refs/heads/main',
      jti: '90d89852-8db0-4847-8994-bac35a4b85f3',
      iat: 1790000000,
      nbf: 1790000000,
      exp: 1790000600,
      drone_server: 'https://drone.acme.example',
      repo_slug: 'acme/shop',
      repo_id: '17',
      repo_uid: '784500001',
      event: 'push',
      ref: 'refs/heads/main',
      source_repo: 'acme/shop',
      target: 'main',
      deploy_to: '',
      build_number: '412',
      sender: 'dana-dev',
      attested_by: 'shared-secret',
    },
    job: {},
  },
]
