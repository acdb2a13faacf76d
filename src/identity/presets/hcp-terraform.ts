/**
 * HCP Terraform and Terraform Enterprise. Source: HashiCorp documentation, "Workload identity tokens". The links to runs are not
 * verified. Tokens of stacks and of module tests have no workspace and are refused.
 */
import type { Preset } from '../preset.ts'
import { HOUR, hostOf, known, link, text } from './fields.ts'

export const hcpTerraform: Preset = {
  name: 'hcp-terraform',
  issuer: 'https://app.terraform.io',
  // The European service has a name of its own, and as many tenants.
  sharedIssuer: (url) => /^app\.([a-z0-9-]+\.)?terraform\.io$/.test(hostOf(url) ?? ''),
  tenancyClaims: ['terraform_organization_id', 'terraform_project_id', 'terraform_workspace_id'],
  claims: {
    // organization:<name>:project:<name>:workspace:<name>:run_phase:<phase>, and names can be given to others.
    sub: { class: 'mutable' },
    jti: { class: 'immutable', audit: true },
    terraform_organization_id: { class: 'immutable', identifying: true, audit: true },
    terraform_project_id: { class: 'immutable', identifying: true, audit: true },
    terraform_workspace_id: { class: 'immutable', identifying: true, audit: true },
    terraform_organization_name: { class: 'mutable', audit: true },
    terraform_project_name: { class: 'mutable', audit: true },
    terraform_workspace_name: { class: 'mutable', audit: true },
    terraform_full_workspace: { class: 'mutable', audit: true },
    terraform_run_phase: { class: 'trusted', audit: true },
    terraform_run_id: { class: 'trusted', audit: true },
  },
  ruleNeeds: [
    {
      anyOf: ['terraform_run_phase'],
      level: 'error',
      why: 'a pull request runs as plan, with code that nobody has merged yet; give writing rights to apply only',
    },
  ],
  openClaims: false,
  algorithms: ['RS256'],
  // `exp` is the timeout of the plan or apply, of hours; the age is what limits a leaked token.
  maxTokenLife: 24 * HOUR,
  maxTokenAge: HOUR,
  executionMarkers: ['terraform_workspace_id', 'terraform_run_id'],
  refused: [],
  mustAgree: [],
  tokenRecipe:
    '$TFC_WORKLOAD_IDENTITY_TOKEN, where the workspace has the variable TFC_WORKLOAD_IDENTITY_AUDIENCE with the value AUD',
  refetchable: false,
  // What Terraform's own dynamic credentials for AWS, Vault and others ask for when nothing is set.
  refusedAudiences: [/^[a-z]+\.workload\.identity$/],
  job(claims, { iss, runUrlBase }) {
    const organization = text(claims, 'terraform_organization_name')
    const workspace = text(claims, 'terraform_workspace_name')
    const run = text(claims, 'terraform_run_id')
    return known({
      pipelineName: organization === undefined || workspace === undefined ? undefined : `${organization}/${workspace}`,
      runId: run,
      runUrl: link(runUrlBase ?? iss, 'app', organization, 'workspaces', workspace, 'runs', run),
      taskName: text(claims, 'terraform_run_phase'),
    })
  },
  jobKey: (claims) =>
    ['terraform_workspace_id', 'terraform_run_id', 'terraform_run_phase'].map((name) => text(claims, name)),
}
