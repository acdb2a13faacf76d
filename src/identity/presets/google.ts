/**
 * Google ID tokens of service accounts, which Cloud Build's are too. Source: Google Cloud documentation, "Get an ID token". They
 * name the account that a job runs as and nothing of the build, its repository or branch: one account for each trigger, and few
 * who may attach it, is what a rule can rest on.
 */
import type { Preset } from '../preset.ts'
import { HOUR, known, text } from './fields.ts'

export const google: Preset = {
  name: 'google',
  issuer: 'https://accounts.google.com',
  // People sign in with it too, everybody's.
  sharedIssuer: () => true,
  tenancyClaims: ['sub'],
  claims: {
    // The account's number, which is never used again.
    sub: { class: 'immutable', identifying: true, audit: true },
    azp: { class: 'immutable', audit: true },
    email: { class: 'mutable', audit: true },
    email_verified: { class: 'trusted', audit: true },
    'google.compute_engine.project_id': {
      path: ['google', 'compute_engine', 'project_id'],
      class: 'mutable',
      audit: true,
    },
    'google.compute_engine.instance_id': {
      path: ['google', 'compute_engine', 'instance_id'],
      class: 'trusted',
      audit: true,
    },
  },
  openClaims: false,
  algorithms: ['RS256'],
  maxTokenLife: HOUR,
  // The metadata server gives one token out again until shortly before its end.
  maxTokenAge: HOUR,
  executionMarkers: [],
  refused: [],
  mustAgree: [],
  tokenRecipe:
    "curl -sSf -H 'Metadata-Flavor: Google' 'http://metadata/computeMetadata/v1/instance/service-accounts/default/identity?audience=AUD&format=full'" +
    ' (in Cloud Build: gcloud auth print-identity-token --audiences=AUD --include-email)',
  refetchable: true,
  // Those of sign-ins by people, where the audience is the program that they signed in to; and of workload identity pools.
  refusedAudiences: [/\.apps\.googleusercontent\.com$/, /^(https:)?\/\/iam\.googleapis\.com\//],
  job: (claims) => known({ pipelineName: text(claims, 'email') }),
  // Two builds of one account cannot be told apart.
  jobKey: () => [undefined],
}
