import { AUDIENCE, type Sample } from './sample.ts'

const ISSUER = 'https://app.harness.io/ng/api/oidc/account/acmeAcct01'

export const samples: readonly Sample[] = [
  {
    issuer: { preset: 'harness', url: ISSUER, audience: AUDIENCE, require: { account_id: 'acmeAcct01' } },
    match: { organization_id: 'platform', project_id: 'shop', pipeline_id: 'deploy', environment_id: 'prod' },
    claims: {
      sub: 'account/acmeAcct01:org/platform:project/shop:pipeline/deploy',
      account_id: 'acmeAcct01',
      organization_id: 'platform',
      project_id: 'shop',
      pipeline_id: 'deploy',
      connector_id: 'pgproxy',
      connector_name: 'pgproxy',
      environment_id: 'prod',
      environment_type: 'Production',
      service_id: 'shop_api',
      triggered_by_name: 'dana',
      trigger_by_email: 'dana@acme.example',
      stage_type: 'Deployment',
      step_type: 'ShellScript',
      context: 'PIPELINE_EXECUTION',
      iss: ISSUER,
      aud: AUDIENCE,
      iat: 1790000000,
      exp: 1790003600,
    },
    job: { pipelineName: 'deploy', environment: 'prod', actor: 'dana' },
  },
]
