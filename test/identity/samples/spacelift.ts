import type { Sample } from './sample.ts'

const SPACE = 'production-01KACME0000000000000000001'

export const samples: readonly Sample[] = [
  {
    issuer: { preset: 'spacelift', url: 'https://acme.app.spacelift.io', audience: 'acme.app.spacelift.io' },
    match: { spaceId: SPACE, callerId: 'shop-db', runType: 'TRACKED', scope: 'write' },
    claims: {
      iss: 'https://acme.app.spacelift.io',
      aud: 'acme.app.spacelift.io',
      sub: `space:${SPACE}:stack:shop-db:run_type:TRACKED:scope:write`,
      jti: '01KACME0000000000000000412',
      nbf: 1790000000,
      iat: 1790000000,
      exp: 1790003600,
      spaceId: SPACE,
      callerType: 'stack',
      callerId: 'shop-db',
      runType: 'TRACKED',
      runId: '01KACME0000000000000000412',
      scope: 'write',
    },
    job: {
      pipelineName: 'shop-db',
      runId: '01KACME0000000000000000412',
      runUrl: 'https://acme.app.spacelift.io/stack/shop-db/run/01KACME0000000000000000412',
      taskName: 'TRACKED',
    },
  },
]
