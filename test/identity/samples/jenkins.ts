import { AUDIENCE, type Sample } from './sample.ts'

const SUBJECT = 'https://jenkins.acme.example/job/acme/job/shop/job/main/'

function credential(name: string, iss: string): Sample {
  return {
    edition: name,
    issuer: { preset: 'jenkins', url: iss, audience: AUDIENCE },
    match: { sub: SUBJECT },
    claims: {
      iss,
      aud: [AUDIENCE],
      iat: 1790000000,
      exp: 1790003600,
      sub: SUBJECT,
      build_number: 412,
      job_name: 'acme/shop/main',
      build_url: `${SUBJECT}412/`,
    },
    job: { pipelineName: 'acme/shop/main', runId: '412', runUrl: `${SUBJECT}412/` },
  }
}

export const samples: readonly Sample[] = [
  credential('credential at the root', 'https://jenkins.acme.example/oidc'),
  credential('credential of a folder', 'https://jenkins.acme.example/oidc/job/acme'),
]
