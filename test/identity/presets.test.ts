import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { buildkiteClaims, githubClaims, gitlabClaims, jenkinsClaims } from '../../src/cli/demo/ci-claims.ts'
import { PRESET_NAMES } from '../../src/config/schema.ts'
import { PRESETS } from '../../src/identity/presets/index.ts'
import { issuerUrl, principalFromClaims } from '../../src/identity/principal-from-claims.ts'
import { ISSUED, issuerConfig, registered } from '../support/tokens.ts'

const SHA = '4f1c8f0b7a0d0c3f2a9be1d6c5e4f3a2b1c0d9e8'
const GITHUB = 'https://token.actions.githubusercontent.com'

function github(claims: Record<string, unknown> = {}, config = issuerConfig('github-actions')) {
  return principalFromClaims('github', config, { ...registered(issuerUrl(config) ?? ''), ...githubClaims(claims) })
}

describe('GitHub Actions', () => {
  test('a job on github.com', () => {
    const principal = github({ jti: 'f3e483ff-5a6b-43f1-a3fc-083dca53be0c' })
    expect(principal).toMatchObject({
      provider: 'github-actions',
      iss: GITHUB,
      subject: 'repo:acme@9100001/shop@784500001:environment:production',
      issuedAt: ISSUED * 1000,
      expiresAt: (ISSUED + 300) * 1000,
      jobKey: JSON.stringify([GITHUB, '784500001', '18700000412', '1', '52900000412']),
    })
    expect(principal.job).toEqual({
      pipelineName: 'deploy',
      runId: '18700000412',
      runUrl: 'https://github.com/acme/shop/actions/runs/18700000412/attempts/1',
      runAttempt: '1',
      taskRunId: '52900000412',
      repositoryUrl: 'https://github.com/acme/shop',
      ref: 'refs/heads/main',
      commit: SHA,
      environment: 'production',
      actor: 'dana-dev',
    })
    expect(principal.auditClaims).toMatchObject({ repository_id: '784500001', actor: 'dana-dev', event_name: 'push' })
    for (const name of ['iss', 'aud', 'exp', 'iat', 'nbf', 'sub'])
      expect(principal.auditClaims).not.toHaveProperty(name)
  })

  test('a pull request has its number', () => {
    expect(github({ ref: 'refs/pull/17/merge' }).job.changeId).toBe('17')
  })

  test.each([
    ['https://git.acme.example/_services/token', 'https://git.acme.example/acme/shop', false],
    ['https://token.actions.acme-eu.ghe.com', 'https://acme-eu.ghe.com/acme/shop', false],
    [`${GITHUB}/acme-enterprise`, 'https://github.com/acme/shop', true],
    ['https://elsewhere.example/tokens', undefined, false],
  ])('links of issuer %s begin with %s', (url, repositoryUrl, shared) => {
    expect(github({}, issuerConfig('github-actions', { url })).job.repositoryUrl).toBe(repositoryUrl)
    expect(PRESETS['github-actions'].sharedIssuer(url)).toBe(shared)
  })

  test('a configured base of links wins over the derived one', () => {
    const config = issuerConfig('github-actions', { run_url_base: 'https://git.acme.example/' })
    expect(github({}, config).job.runUrl).toBe('https://git.acme.example/acme/shop/actions/runs/18700000412/attempts/1')
  })

  test('two jobs of one run are two jobs; without check_run_id the token is the job', () => {
    const key = (claims: Record<string, unknown>, sha256: string) =>
      principalFromClaims('github', issuerConfig('github-actions'), githubClaims(claims), { sha256 }).jobKey
    expect(key({}, 'aa')).toBe(key({}, 'bb'))
    expect(key({}, 'aa')).not.toBe(key({ check_run_id: '52900000413' }, 'aa'))
    expect(key({}, 'aa')).not.toBe(key({ run_attempt: '2' }, 'aa'))
    expect(key({ check_run_id: undefined }, 'aa')).not.toBe(key({ check_run_id: undefined }, 'bb'))
  })

  test('no claim can lead a link out of its place', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (repository, run_id) => {
        const { runUrl, repositoryUrl } = github({
          repository: repository.replaceAll('\0', ''),
          run_id: run_id.replaceAll('\0', ''),
        }).job
        for (const link of [runUrl, repositoryUrl]) {
          if (link === undefined) continue
          const url = new URL(link)
          expect(url.origin).toBe('https://github.com')
          expect(url.href).toBe(link)
          expect(url.search + url.hash).toBe('')
        }
      }),
    )
    expect(github({ repository: '../../login?x=', run_id: '1' }).job.runUrl).toBeUndefined()
    expect(github({ repository: 'acme/shop', run_id: '1#x' }).job.runUrl).toContain('/runs/1%23x/')
  })
})

describe('GitLab', () => {
  const principal = principalFromClaims('gitlab', issuerConfig('gitlab'), gitlabClaims())

  test('a job on gitlab.com', () => {
    expect(principal.job).toEqual({
      pipelineName: 'acme/shop',
      runId: '1600000412',
      runUrl: 'https://gitlab.com/acme/shop/-/pipelines/1600000412',
      taskRunId: '8600000412',
      repositoryUrl: 'https://gitlab.com/acme/shop',
      ref: 'refs/heads/main',
      commit: SHA,
      environment: 'production',
      actor: 'dana',
    })
    expect(principal.jobKey).toBe(JSON.stringify(['https://gitlab.com', '20451', '1600000412', '8600000412']))
    expect(principal.claims.get('runner_id')).toBe('12000007')
  })

  test('a self-managed instance links to itself and is not shared', () => {
    const url = 'https://gitlab.acme.example'
    const { job } = principalFromClaims('gitlab', issuerConfig('gitlab', { url }), gitlabClaims())
    expect(job.runUrl).toBe(`${url}/acme/shop/-/pipelines/1600000412`)
    expect(PRESETS.gitlab.sharedIssuer(url)).toBe(false)
    expect(PRESETS.gitlab.sharedIssuer('https://gitlab.com')).toBe(true)
  })

  test('people’s addresses are not recorded', () => {
    expect(principal.claims.get('user_email')).toBe('dana@acme.example')
    expect(principal.auditClaims).not.toHaveProperty('user_email')
  })
})

describe('Buildkite', () => {
  test('a job', () => {
    const principal = principalFromClaims('buildkite', issuerConfig('buildkite'), buildkiteClaims())
    expect(principal.job).toEqual({
      pipelineName: 'acme/shop-deploy',
      runId: '412',
      runUrl: 'https://buildkite.com/acme/shop-deploy/builds/412#47e558ab-6452-4561-a8bf-090bf740187b',
      taskName: 'migrate',
      taskRunId: '47e558ab-6452-4561-a8bf-090bf740187b',
      ref: 'main',
      commit: SHA,
    })
  })

  test('two tokens of one job are one job, whichever optional claims it asked for', () => {
    const key = (claims: Record<string, unknown>) =>
      principalFromClaims('buildkite', issuerConfig('buildkite'), buildkiteClaims(claims)).jobKey
    expect(key({})).toBe(
      key({ organization_id: undefined, pipeline_id: undefined, build_id: undefined, queue_id: undefined }),
    )
  })

  test('a null claim is a missing claim', () => {
    const principal = principalFromClaims('buildkite', issuerConfig('buildkite'), buildkiteClaims({ step_key: null }))
    expect(principal.claims.has('step_key')).toBe(false)
    expect(principal.job).not.toHaveProperty('taskName')
  })
})

describe('Jenkins', () => {
  const url = 'https://jenkins.acme.example/oidc'

  test.each([
    ['https://jenkins.acme.example/job/acme/job/shop/job/main/', url, 'acme/shop/main'],
    ['https://jenkins.acme.example/job/acme/job/shop/job/main/', `${url}/job/acme/job/team`, 'acme/shop/main'],
    ['https://jenkins.acme.example/job/shop/job/feature%2Fx/', url, 'shop/feature%2Fx'],
  ])('a build of %s', (sub, issuer, pipelineName) => {
    const config = issuerConfig('jenkins', { url: issuer })
    expect(principalFromClaims('jenkins', config, jenkinsClaims({ sub }))).toMatchObject({
      job: { pipelineName, runId: '412', runUrl: `${sub}412/` },
      jobKey: JSON.stringify([issuer, sub, '412']),
    })
  })

  test('a sub outside the configured Jenkins gives no link', () => {
    for (const sub of [
      'https://evil.example/job/x/',
      'https://jenkins.acme.example.evil.example/job/x/',
      'free text',
    ]) {
      const { job } = principalFromClaims('jenkins', issuerConfig('jenkins', { url }), jenkinsClaims({ sub }))
      expect(job).toEqual({ pipelineName: sub, runId: '412' })
    }
  })

  test('a list of one audience and an integer build number are read as they are', () => {
    const claims = { ...jenkinsClaims(), aud: ['https://pgusher.acme.example'] }
    const principal = principalFromClaims('jenkins', issuerConfig('jenkins', { url }), claims)
    expect(principal.claims.get('aud')).toEqual(['https://pgusher.acme.example'])
    expect(principal.claims.get('build_number')).toBe('412')
  })
})

describe('CircleCI', () => {
  const url = 'https://oidc.circleci.com/org/4dd693bc-c4ef-44dd-be67-47fcf47891fb'
  const claims = {
    sub: 'org/4dd693bc-c4ef-44dd-be67-47fcf47891fb/project/c387aaa1-c223-46c5-88ec-6075186bff38/user/cb51f098-ee94-4768-a6be-b9bbcb9c6f55',
    'oidc.circleci.com/org-id': '4dd693bc-c4ef-44dd-be67-47fcf47891fb',
    'oidc.circleci.com/project-id': 'c387aaa1-c223-46c5-88ec-6075186bff38',
    'oidc.circleci.com/workflow-id': '2008694d-b084-406b-8fe8-baa396c064bb',
    'oidc.circleci.com/job-id': '1fe6708e-951b-40bd-be40-d1915242df0a',
    'oidc.circleci.com/context-ids': ['f4ded289-3656-4066-945e-9cbb0af497dd'],
    'oidc.circleci.com/ssh-rerun': false,
    'oidc.circleci.com/vcs-origin': 'github.com/acme/shop',
    'oidc.circleci.com/vcs-ref': 'refs/heads/main',
  }

  test('a job; the values keep their kind', () => {
    const principal = principalFromClaims('circleci', issuerConfig('circleci', { url }), claims)
    expect(principal.job).toEqual({
      pipelineName: 'github.com/acme/shop',
      runId: '2008694d-b084-406b-8fe8-baa396c064bb',
      runUrl: 'https://app.circleci.com/pipelines/workflows/2008694d-b084-406b-8fe8-baa396c064bb',
      taskRunId: '1fe6708e-951b-40bd-be40-d1915242df0a',
      repositoryUrl: 'https://github.com/acme/shop',
      ref: 'refs/heads/main',
      actor: 'cb51f098-ee94-4768-a6be-b9bbcb9c6f55',
    })
    expect(principal.claims.get('oidc.circleci.com/ssh-rerun')).toBe('false')
    expect(principal.auditClaims['oidc.circleci.com/context-ids']).toEqual(['f4ded289-3656-4066-945e-9cbb0af497dd'])
  })

  test('the default audience and the root issuer are told apart', () => {
    const { refusedAudiences, sharedIssuer } = PRESETS.circleci
    expect(refusedAudiences.some((audience) => audience.test('4dd693bc-c4ef-44dd-be67-47fcf47891fb'))).toBe(true)
    expect(sharedIssuer(url)).toBe(false)
    expect(sharedIssuer('https://oidc.circleci.com')).toBe(true)
  })
})

describe('Kubernetes', () => {
  const url = 'https://oidc.eks.eu-west-1.amazonaws.com/id/00AC3E000000000000000000000000AA'
  const pod = { name: 'shop-deploy-412-x7k2p', uid: 'd999ee1d-cb24-446d-b0e1-eb9ea22ea640' }
  const serviceaccount = { name: 'shop-deploy', uid: '251ea4a9-eaa4-4720-9c07-6582cb669658' }
  const claims = {
    sub: 'system:serviceaccount:ci:shop-deploy',
    'kubernetes.io': { namespace: 'ci', pod, serviceaccount },
  }
  const config = issuerConfig('kubernetes', { url })

  test('nested claims have selectors of their own', () => {
    const principal = principalFromClaims('cluster', config, claims)
    expect(principal.claims.get('kubernetes.io.namespace')).toBe('ci')
    expect(principal.claims.get('kubernetes.io.serviceaccount.uid')).toBe(serviceaccount.uid)
    expect(principal.claims.has('kubernetes.io')).toBe(false)
    expect(principal.job).toEqual({
      pipelineName: 'shop-deploy',
      runId: pod.uid,
      taskName: pod.name,
      taskRunId: pod.uid,
    })
    expect(principal.jobKey).toBe(JSON.stringify([url, 'ci', pod.uid]))
  })

  test('a top-level claim cannot pass for a nested one', () => {
    const forged = { ...claims, 'kubernetes.io': {}, 'kubernetes.io.namespace': 'kube-system' }
    expect(principalFromClaims('cluster', config, forged).claims.has('kubernetes.io.namespace')).toBe(false)
  })

  test('a token without a pod is a job of its own', () => {
    const bare = { ...claims, 'kubernetes.io': { namespace: 'ci', serviceaccount } }
    expect(principalFromClaims('cluster', config, bare, { sha256: 'ab' }).jobKey).toBe(
      JSON.stringify([url, 'token', 'ab']),
    )
  })
})

describe('generic', () => {
  const config = issuerConfig('generic', {
    url: 'https://sso.acme.example',
    claims: { team: ['acme', 'team'], flags: ['acme', 'flags'] },
    tenancy: ['team'],
    require: { realm: 'ci' },
  })

  test('nested claims are named by the configuration, and those it uses are recorded', () => {
    const claims = {
      sub: 'svc-1',
      realm: 'ci',
      note: 'x',
      acme: { team: 7, flags: [true, 2, 'three'] },
      list: [{}],
      none: null,
    }
    const principal = principalFromClaims('sso', config, claims, { sha256: 'cd' })
    expect(principal.auditClaims).toEqual({ sub: 'svc-1', realm: 'ci', team: '7', flags: ['true', '2', 'three'] })
    expect(principal.claims.get('note')).toBe('x')
    expect(principal.claims.has('list')).toBe(false)
    expect(principal.job).toEqual({})
    expect(principal.jobKey).toBe(JSON.stringify(['https://sso.acme.example', 'token', 'cd']))
  })

  test('shared issuers stay shared', () => {
    expect(PRESETS.generic.sharedIssuer('https://accounts.google.com')).toBe(true)
    expect(PRESETS.generic.sharedIssuer('https://sso.acme.example')).toBe(false)
  })
})

describe('any preset', () => {
  test('tenancy: every required claim must have its value', () => {
    const matches = (require: Record<string, string>) =>
      github({}, issuerConfig('github-actions', { require })).tenancyMatches
    expect(matches({})).toBe(true)
    expect(matches({ repository_owner_id: '9100001' })).toBe(true)
    expect(matches({ repository_owner_id: '9100001', repository_id: '1' })).toBe(false)
    expect(matches({ enterprise_id: '' })).toBe(false)
    expect(matches({ constructor: 'x' })).toBe(false)
  })

  test.each([
    ['a NUL', 'a\0b'],
    ['more than 4 KiB', 'é'.repeat(2049)],
  ])('a value with %s is refused', (_what, value) => {
    expect(() => github({ workflow: value })).toThrow(expect.objectContaining({ code: 'token_malformed' }))
    expect(() => github({ labels: ['fine', value] })).toThrow(expect.objectContaining({ code: 'token_malformed' }))
  })

  test('other control characters stay as they are, for those who show them to escape', () => {
    const ref = 'refs/heads/\u202emain\n\u001b[2J'
    expect(github({ ref }).claims.get('ref')).toBe(ref)
    expect(github({ workflow: 'é'.repeat(2048) }).claims.get('workflow')).toHaveLength(2048)
  })

  test.each(PRESET_NAMES)('%s: what it says of itself holds together', (name) => {
    const preset = PRESETS[name]
    expect(preset.name).toBe(name)
    for (const claim of preset.tenancyClaims) expect(preset.claims[claim]?.identifying).toBe(true)
    const referred = [
      ...preset.executionMarkers,
      ...preset.refused.map(({ claim }) => claim),
      ...(preset.demands ?? []).map(({ claim }) => claim),
      ...(preset.ruleNeeds ?? []).flatMap(({ anyOf }) => anyOf),
      ...(preset.issuerForm?.tenantClaim === undefined ? [] : [preset.issuerForm.tenantClaim]),
      ...preset.mustAgree.flatMap(({ claims }) => claims),
    ]
    // `pgusher why` decides again by what is on record, with `sub`.
    for (const claim of referred) expect(claim === 'sub' || preset.claims[claim]?.audit, claim).toBe(true)
    for (const spec of Object.values(preset.claims)) {
      if (spec.glob === true) expect([spec.class, spec.identifying ?? false]).toEqual(['claimed', false])
      if (spec.identifying === true) expect(['immutable', 'mutable']).toContain(spec.class)
    }
    expect(preset.algorithms.every((alg) => /^(RS|PS|ES)(256|384|512)$|^EdDSA$/.test(alg))).toBe(true)
    expect(preset.maxTokenAge).toBeLessThanOrEqual(preset.maxTokenLife)
    expect(preset.tokenRecipe.includes('AUD')).toBe(preset.fixedAudience === undefined)
    expect(preset.refusedAudiences.some((audience) => audience.test('https://pgusher.acme.example'))).toBe(false)
  })
})
