/** What presets refuse by themselves: tokens that are not what they seem, and rules that would let in more than they say. */
import { describe, expect, test } from 'vitest'
import { AccessError } from '../../src/errors.ts'
import { PRESETS } from '../../src/identity/presets/index.ts'
import { type Claims, gate, told } from './samples/gate.ts'
import { SAMPLES } from './samples/index.ts'
import type { Sample } from './samples/sample.ts'

const OTHER = '00000000-1111-2222-3333-444444444444'
const STS = 'https://sts.amazonaws.com/'

function sampleOf(preset: string): Sample {
  const sample = SAMPLES.find(({ issuer }) => issuer.preset === preset)
  if (sample === undefined) throw new Error(`no sample of ${preset}`)
  return sample
}

/** `code: message` of the refusal, or `let in`. */
async function outcome(preset: string, changes: Claims, sample: Sample = sampleOf(preset)): Promise<string> {
  const decide = await gate(sample)
  const claims = Object.entries({ ...sample.claims, ...changes }).filter(([, value]) => value !== undefined)
  const decided = await decide(Object.fromEntries(claims))
  return decided instanceof AccessError ? `${decided.code}: ${decided.message}` : 'let in'
}

describe('a token', () => {
  test.each<[string, string, Claims, RegExp]>([
    [
      'of a service connection',
      'azure-devops',
      { sub: 'sc://acme/shop/azure' },
      /^denied_by_rule: sub is "sc:\/\/acme\/shop\/azure" and must be p:\/\/organisation\/project\/pipeline: .* without serviceConnectionId$/,
    ],
    [
      'of another organisation under the same keys',
      'azure-devops',
      { org_id: OTHER },
      /^tenancy_mismatch: org_id is "0.*" and the issuer's URL is that of "dbe9/,
    ],
    [
      'of a pull request',
      'azure-devops',
      { rpo_ref: 'refs/pull/7/merge' },
      /^denied_by_rule: rpo_ref is "refs\/pull\/7/,
    ],
    [
      'of another organisation',
      'circleci',
      { 'oidc.circleci.com/org-id': OTHER },
      /^tenancy_mismatch: oidc\.circleci\.com\/org-id is/,
    ],
    ['of a job rerun with SSH', 'circleci', { 'oidc.circleci.com/ssh-rerun': true }, /^denied_by_rule: .*at its shell/],
    ['of another tenant', 'entra', { tid: OTHER }, /^tenancy_mismatch: tid is/],
    ['of a person', 'entra', { scp: 'user_impersonation' }, /^denied_by_rule: scp is .*a person who signed in/],
    ['of a person by its type', 'entra', { idtyp: 'user' }, /^denied_by_rule: idtyp is "user"/],
    [
      "of a connector's test",
      'harness',
      { context: 'CONNECTOR_VALIDATION' },
      /^denied_by_rule: context is "CONNECTOR_VALIDATION" and must be "PIPELINE_EXECUTION"/,
    ],
    ['of an account with other capitals', 'harness', { account_id: 'ACMEacct01' }, /^tenancy_mismatch: account_id is/],
    ['of another account', 'harness', { account_id: 'mallory' }, /^tenancy_mismatch: account_id is "mallory"/],
    ['of a debug session', 'semaphore', { job_type: 'debug_job' }, /^denied_by_rule: job_type is .*at its shell/],
    ['of a pull request, by its number', 'semaphore', { pr: '17' }, /^denied_by_rule: pr is "17"/],
    ['of a pull request, by its ref', 'semaphore', { ref_type: 'pull-request' }, /^denied_by_rule: ref_type is/],
    ['of a preview', 'spacelift', { runType: 'PROPOSED' }, /^denied_by_rule: runType is "PROPOSED"/],
    [
      'of a pull request',
      'codefresh',
      { scm_pull_request_target_branch: 'main' },
      /^denied_by_rule: scm_pull_request_target_branch is "main": .*pull request/,
    ],
    [
      "of a module's test",
      'hcp-terraform',
      { terraform_workspace_id: undefined, sub: 'organization:acme:module:m:operation:test_run' },
      /^claim_missing: the token has no terraform_workspace_id/,
    ],
    [
      'of a plan',
      'hcp-terraform',
      { terraform_run_phase: 'plan' },
      /^no_matching_rule: .*terraform_run_phase is "plan"/,
    ],
    ['of a person', 'okta', { uid: '00u1' }, /^denied_by_rule: uid is .*a person/],
    ['of another subject than its client', 'okta', { sub: 'dana@acme.example' }, /^tenancy_mismatch: sub is "dana@/],
    ['of another trust domain', 'spiffe', { sub: 'spiffe://evil.example/ci/shop/deploy' }, /^tenancy_mismatch: /],
    ['of a trust domain itself', 'spiffe', { sub: 'spiffe://acme.example' }, /^denied_by_rule: sub is/],
    ['of no SPIFFE ID', 'spiffe', { sub: 'spiffe://acme.example/ci/../x y' }, /^denied_by_rule: sub is/],
    ['of another workspace', 'bitbucket', { workspaceUuid: `{${OTHER}}` }, /^tenancy_mismatch: /],
    [
      'for the default audience alone',
      'bitbucket',
      { aud: 'ari:cloud:bitbucket::workspace/x' },
      /^audience_mismatch: the token is for audience "ari:/,
    ],
    ['of an unreviewed branch', 'forgejo', { ref_protected: 'false' }, /^no_matching_rule: .*ref_protected is "false"/],
    ['of a pull request', 'forgejo', { event_name: 'pull_request' }, /^denied_by_rule: event_name is "pull_request"/],
    ['for several audiences', 'aws', { aud: ['https://pgusher.acme.example', 'b'] }, /^audience_mismatch: /],
    [
      'with a tag that whoever asked for it wrote',
      'aws',
      { [STS]: { aws_account: '123456789012', request_tags: { env: 'production' } } },
      /^claim_missing: .*no claim principal_tags\.env/,
    ],
    [
      'whose tag stands at the top',
      'aws',
      { 'principal_tags.env': 'production', [STS]: { aws_account: '123456789012' } },
      /^claim_missing: .*no claim principal_tags\.env/,
    ],
    [
      'whose account stands at the top',
      'aws',
      { aws_account: '123456789012', [STS]: {} },
      /^claim_missing: .*aws_account/,
    ],
  ])('%s is refused by %s', async (_what, preset, changes, expected) => {
    expect(await outcome(preset, changes)).toMatch(expected)
  })

  test('is let in however the provider writes an id, and with an empty mark of a pull request', async () => {
    const bare = { aud: 'https://pgusher.acme.example', workspaceUuid: 'B3092E13-4F52-4A78-BDA1-7393185CB03E' }
    expect(await outcome('bitbucket', bare)).toBe('let in')
    const organisation = String(sampleOf('azure-devops').claims['org_id']).toUpperCase()
    expect(await outcome('azure-devops', { org_id: organisation })).toBe('let in')
    expect(await outcome('codefresh', { scm_pull_request_target_branch: '' })).toBe('let in')
    expect(await outcome('semaphore', { pr: undefined, pr_branch: undefined })).toBe('let in')
  })

  test('of an event that the operator accepts is let in', async () => {
    const accepting = (preset: string): Sample => {
      const sample = sampleOf(preset)
      const { scm_ref: _ref, rpo_ref: _rpo, ...match } = sample.match
      return { ...sample, match, issuer: { ...sample.issuer, allow_events: ['pull_request'] } }
    }
    const build = { scm_pull_request_target_branch: 'main' }
    expect(await outcome('codefresh', build, accepting('codefresh'))).toBe('let in')
    const rerun = {
      ...sampleOf('circleci'),
      match: { 'oidc.circleci.com/project-id': 'c387aaa1-c223-46c5-88ec-6075186bff38' },
    }
    const shell = { 'oidc.circleci.com/ssh-rerun': true }
    expect(await outcome('circleci', shell, rerun)).toMatch(/^denied_by_rule/)
    const issuer = { ...rerun.issuer, allow_events: ['ssh-rerun'] }
    expect(await outcome('circleci', shell, { ...rerun, issuer })).toBe('let in')
    const merge = { rpo_ref: 'refs/pull/7/merge' }
    expect(await outcome('azure-devops', merge, accepting('azure-devops'))).toBe('let in')
  })

  test('of SPIFFE is matched by whole segments of its path', async () => {
    const sample: Sample = { ...sampleOf('spiffe'), match: { path: { glob: '/ci/shop/*' } } }
    expect(await outcome('spiffe', {}, sample)).toBe('let in')
    for (const path of ['/ci/shop/deploy/x', '/ci/shop', '/ci/shop-evil/deploy'])
      expect(await outcome('spiffe', { sub: `spiffe://acme.example${path}` }, sample)).toMatch(/^no_matching_rule/)
  })
})

const FIXED =
  /^warning: a job of [\w-]+ cannot choose its token's audience: every service that a job shows its token to/

const OF_ANOTHER_SERVICE =
  /^error: ".+" is the audience of another service \| a token that a job shows there would be good here; choose a URL of your own, such as/

describe('a configuration', () => {
  test.each(SAMPLES.map((sample) => [sample.issuer.preset, sample.edition ?? '', sample] as const))(
    'of %s %s is told what no check can rule out, and nothing else',
    async (preset, _, sample) => {
      const expected = PRESETS[sample.issuer.preset as keyof typeof PRESETS]
      const warnings = await told(sample)
      if (expected.fixedAudience !== undefined) expect(warnings).toEqual([expect.stringMatching(FIXED)])
      else if (preset === 'harness')
        expect(warnings).toEqual([expect.stringContaining('API key of the Harness account')])
      else if (preset === 'jenkins' || preset === 'kubernetes')
        expect(warnings.filter((one) => one.startsWith('error'))).toEqual([])
      else expect(warnings).toEqual([])
    },
  )

  test.each<[string, string, Claims, RegExp]>([
    [
      'an audience that no token has',
      'azure-devops',
      { audience: 'https://pgusher.acme.example' },
      /never have the audience .* \| write "api:\/\/AzureADTokenExchange"$/,
    ],
    [
      'an audience that no token has',
      'codefresh',
      { audience: 'https://pgusher.acme.example' },
      /\| write "https:\/\/g\.codefresh\.io"$/,
    ],
    [
      'an audience that no token has',
      'spacelift',
      { audience: 'https://acme.app.spacelift.io' },
      /\| write "acme\.app\.spacelift\.io"$/,
    ],
    [
      'an audience that no token has',
      'semaphore',
      { audience: 'acme' },
      /\| write "https:\/\/acme\.semaphoreci\.com"$/,
    ],
    ['the default audience', 'bitbucket', { audience: `ari:cloud:bitbucket::workspace/${OTHER}` }, /default audience/],
    ['the default audience', 'okta', { audience: 'api://default' }, /default audience/],
    ['the default audience', 'hcp-terraform', { audience: 'aws.workload.identity' }, /default audience/],
    ['an audience of sign-ins', 'google', { audience: '1-a.apps.googleusercontent.com' }, /default audience/],
    ['the audience of Graph', 'entra', { audience: 'https://graph.microsoft.com' }, /default audience/],
    ['the audience of AWS', 'aws', { audience: 'sts.amazonaws.com' }, /default audience/],
    ["an owner's URL", 'forgejo', { audience: 'https://forgejo.acme.example/acme' }, /default audience/],
    [
      "an owner's URL",
      'github-actions',
      { audience: 'https://git.acme.example/acme', url: 'https://git.acme.example/_services/token' },
      /default audience/,
    ],
    [
      "an owner's URL",
      'github-actions',
      { audience: 'https://acme-eu.ghe.com/acme', url: 'https://token.actions.acme-eu.ghe.com' },
      /default audience/,
    ],
    [
      "the instance's URL",
      'gitlab',
      { audience: 'https://gitlab.acme.example/', url: 'https://gitlab.acme.example' },
      /default audience/,
    ],
    [
      "the cluster's URL",
      'kubernetes',
      { audience: 'https://k8s.acme.example', url: 'https://k8s.acme.example' },
      /default audience/,
    ],
    ["AWS' audience", 'github-actions', { audience: 'sts.amazonaws.com' }, OF_ANOTHER_SERVICE],
    ["AWS' audience", 'gitlab', { audience: 'sts.amazonaws.com' }, OF_ANOTHER_SERVICE],
    ["Azure's audience", 'gitlab', { audience: 'api://AzureADTokenExchange' }, OF_ANOTHER_SERVICE],
    ["Sigstore's audience", 'github-actions', { audience: 'sigstore' }, OF_ANOTHER_SERVICE],
    ["Vault's audience", 'kubernetes', { audience: 'vault' }, OF_ANOTHER_SERVICE],
    ["another provider's audience", 'buildkite', { audience: 'https://gitlab.com' }, OF_ANOTHER_SERVICE],
    [
      'no URL',
      'azure-devops',
      { url: undefined },
      /needs the issuer's url \| .*: https:\/\/vstoken\.dev\.azure\.com\/ followed by/,
    ],
  ])('with %s is refused: %s', async (_what, preset, issuer, expected) => {
    const sample = sampleOf(preset)
    const changed = Object.fromEntries(
      Object.entries({ ...sample.issuer, ...issuer }).filter(([, value]) => value !== undefined),
    )
    const errors = (await told({ ...sample, issuer: changed as Sample['issuer'] })).filter((one) =>
      one.startsWith('error'),
    )
    expect(errors).toEqual([expect.stringMatching(expected)])
  })

  test("of a generic issuer with another service's audience is warned of: perhaps its jobs can choose no other", async () => {
    const sample = sampleOf('generic')
    const warnings = await told({ ...sample, issuer: { ...sample.issuer, audience: 'sts.amazonaws.com' } })
    expect(warnings).toEqual([
      expect.stringMatching(/^warning: "sts\.amazonaws\.com" is the audience of another service \| .* choose a URL/),
    ])
  })

  test.each([
    ['azure-devops', 'https://vstoken.dev.azure.com/acme'],
    ['bitbucket', 'https://api.bitbucket.org/2.0/workspaces/acme'],
    ['entra', 'https://login.microsoftonline.com/common/v2.0'],
    ['entra', 'https://sts.windows.net/5c0bb7e6-4efb-4df9-9c4c-a764e2e0f431'],
    ['aws', 'https://sts.amazonaws.com'],
    ['okta', 'https://acme.okta.com'],
    ['harness', 'https://app.harness.io/ng/api/oidc'],
    ['forgejo', 'https://forgejo.acme.example'],
    ['circleci', 'https://oidc.circleci.com/org/acme'],
  ])('of %s with the URL %s is warned of', async (preset, url) => {
    const sample = sampleOf(preset)
    const warnings = await told({ ...sample, issuer: { ...sample.issuer, url } })
    expect(warnings).toContainEqual(expect.stringMatching(/^warning: .* is not the form of [\w-]+ issuers: https:/))
  })

  test.each<[string, string, Claims, RegExp]>([
    [
      'not the workspace',
      'bitbucket',
      { repositoryUuid: 'd138899d-3be0-4589-890c-279360f86b23' },
      /must: the issuer's URL holds the workspace's name/,
    ],
    ['an id in braces', 'bitbucket', { workspaceUuid: `{${OTHER}}` }, /never is "\{0.*\| write "00000000-1111/],
    ['only an organisation', 'azure-devops', { org_id: OTHER }, /does not name "prj_id"/],
    ['only an account', 'codefresh', { account_id: 'a' }, /does not name "pipeline_id"/],
    ['no account', 'codefresh', { pipeline_id: 'a' }, /does not name "account_id"/],
    ['no phase', 'hcp-terraform', { terraform_workspace_id: 'ws-1' }, /does not name "terraform_run_phase"/],
    [
      'no tenant of a shared issuer',
      'hcp-terraform',
      { terraform_workspace_name: 'shop', terraform_run_phase: 'apply' },
      /issues tokens to everybody.*\| terraform_workspace_name is a name/,
    ],
    [
      'the branch that a pull request is for',
      'semaphore',
      { prj_id: 'a', branch: 'main' },
      /"branch" of semaphore is not for rules \| .*name ref and ref_type/,
    ],
    ['a name of a person', 'entra', { azp: OTHER, preferred_username: 'dana' }, /is not for rules \|/],
    ['only a tenant', 'entra', { tid: OTHER }, /does not name "azp", "appid", "oid" or "roles"/],
    ['an address that is not verified', 'google', { sub: '1', email: 'a@b.example' }, /email without email_verified/],
    ['only an address', 'google', { email: 'a@b.example', email_verified: 'true' }, /issues tokens to everybody/],
    ['a pipeline of any project', 'harness', { pipeline_id: 'deploy' }, /pipeline_id without project_id/],
    ['only an account', 'harness', { account_id: 'a' }, /does not name "project_id" or "pipeline_id"/],
    ['only an account', 'aws', { aws_account: '123456789012' }, /does not say whose jobs it lets in: none of "sub"/],
    ['a tag alone', 'aws', { 'principal_tags.env': 'production' }, /does not say whose jobs it lets in/],
    ['tags in general', 'aws', { sub: 'arn', principal_tags: 'production' }, /carry no claim "principal_tags"/],
    ['a scope alone', 'okta', { scp: 'pgusher' }, /does not say whose jobs it lets in: none of "cid"/],
    ['all of a trust domain', 'spiffe', { trust_domain: 'acme.example' }, /does not name "sub" or "path"/],
    ['no trust domain', 'spiffe', { sub: 'spiffe://acme.example/ci' }, /does not name "trust_domain"/],
    [
      'a pattern on sub',
      'spiffe',
      { trust_domain: 'acme.example', sub: { glob: 'spiffe://acme.example/*' } },
      /sub takes no pattern/,
    ],
    ['another kind of run', 'spacelift', { spaceId: 'a', callerId: 'b' }, /does not name "runType"/],
  ])('whose rule names %s is refused: %s', async (_what, preset, match, expected) => {
    const sample = sampleOf(preset)
    const { require: _, ...issuer } = sample.issuer
    const errors = (await told({ ...sample, issuer: issuer as Sample['issuer'], match })).filter((one) =>
      one.startsWith('error'),
    )
    expect(errors).toContainEqual(expect.stringMatching(expected))
  })

  test('is warned of names, of a fork’s origin and of events that the preset refuses', async () => {
    const warnings = async (preset: string, match: Claims) => {
      const sample = sampleOf(preset)
      return (await told({ ...sample, match })).filter((one) => one.startsWith('warning')).join('\n')
    }
    expect(await warnings('forgejo', { repository: 'acme/shop' })).toMatch(/only "repository".*\| add repository_id/)
    expect(await warnings('forgejo', { repository_id: '74', ref: 'main' })).toMatch(/write refs\/heads\/main/)
    expect(await warnings('circleci', { 'oidc.circleci.com/project-id': OTHER })).toMatch(/builds of forks/)
    expect(await warnings('azure-devops', { prj_id: OTHER, rpo_ref: 'refs/pull/7/merge' })).toMatch(
      /refuses rpo_ref .*add pull_request to allow_events/,
    )
    const shared = {
      ...sampleOf('google'),
      issuer: { preset: 'generic', url: 'https://accounts.google.com', audience: 'x' },
    }
    expect(await told({ ...shared, match: { sub: '1' } })).toEqual([
      expect.stringMatching(/preset google knows \| write google/),
    ])
    expect(await warnings('harness', { account_id: 'a', project_id: 'shop' })).toMatch(
      /project_id without organization_id/,
    )
  })
})
