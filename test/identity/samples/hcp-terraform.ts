import { AUDIENCE, type Sample } from './sample.ts'

export const samples: readonly Sample[] = [
  {
    issuer: {
      preset: 'hcp-terraform',
      audience: AUDIENCE,
      require: { terraform_organization_id: 'org-AcMeExample00001' },
    },
    match: { terraform_workspace_id: 'ws-AcMeExample000003', terraform_run_phase: 'apply' },
    claims: {
      jti: '7eade59d-da5d-45c2-ad8b-5736069b73ee',
      iss: 'https://app.terraform.io',
      aud: AUDIENCE,
      iat: 1790000000,
      nbf: 1789999995,
      exp: 1790007200,
      sub: 'organization:acme:project:shop:workspace:shop-prod:run_phase:apply',
      terraform_organization_id: 'org-AcMeExample00001',
      terraform_organization_name: 'acme',
      terraform_project_id: 'prj-AcMeExample00002',
      terraform_project_name: 'shop',
      terraform_workspace_id: 'ws-AcMeExample000003',
      terraform_workspace_name: 'shop-prod',
      terraform_full_workspace: 'organization:acme:project:shop:workspace:shop-prod',
      terraform_run_id: 'run-AcMeExample00412',
      terraform_run_phase: 'apply',
    },
    job: {
      pipelineName: 'acme/shop-prod',
      runId: 'run-AcMeExample00412',
      runUrl: 'https://app.terraform.io/app/acme/workspaces/shop-prod/runs/run-AcMeExample00412',
      taskName: 'apply',
    },
  },
]
