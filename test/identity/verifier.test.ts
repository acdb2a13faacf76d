import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { buildkiteClaims, githubClaims, gitlabClaims, jenkinsClaims } from '../../src/cli/demo/ci-claims.ts'
import type { IssuerConfig } from '../../src/config/schema.ts'
import { AccessError } from '../../src/errors.ts'
import { createVerifier, type Verifier } from '../../src/identity/verifier.ts'
import { AUDIENCE, forged, ISSUED, issuerConfig, registered, signingKey } from '../support/tokens.ts'

const GITHUB = 'https://token.actions.githubusercontent.com'
const JENKINS = 'https://jenkins.acme.example/oidc'
const key = signingKey('k1')
const stranger = signingKey('k1')
let directory: string
let configs: Record<string, IssuerConfig>
let now = ISSUED * 1000

/** One key file serves all issuers: which key is an issuer's own is the subject of issuer-keys.test.ts. */
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'pgusher-verifier-'))
  const jwks_file = join(directory, 'keys.json')
  await writeFile(jwks_file, JSON.stringify({ keys: [key.jwk] }))
  const base = { jwks_file, algorithms: ['ES256' as const] }
  configs = {
    github: issuerConfig('github-actions', { ...base, require: { repository_owner_id: '9100001' } }),
    gitlab: issuerConfig('gitlab', base),
    buildkite: issuerConfig('buildkite', base),
    jenkins: issuerConfig('jenkins', { ...base, url: JENKINS }),
    circleci: issuerConfig('circleci', { ...base, url: 'https://oidc.circleci.com/org/acme' }),
  }
})
afterAll(() => rm(directory, { recursive: true }))

function verifier(changes: Partial<IssuerConfig> = {}): Verifier {
  now = ISSUED * 1000
  const changed = Object.entries(configs).map(([name, config]) => [name, { ...config, ...changes }] as const)
  return createVerifier(Object.fromEntries(changed), { now: () => now })
}

const github = (claims: Record<string, unknown> = {}) => ({ ...githubClaims(), ...registered(GITHUB), ...claims })

async function refusal(payload: object | string, changes: Partial<IssuerConfig> = {}): Promise<AccessError> {
  const token = await key.sign(payload)
  return refusalOf(verifier(changes), token)
}

async function refusalOf(subject: Verifier, token: string): Promise<AccessError> {
  const error: unknown = await subject.verify(token).then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  if (!(error instanceof AccessError)) throw new Error(`not refused as it should be: ${String(error)}`)
  for (const part of token.split('.')) {
    if (part.length >= 8)
      expect(`${error.message} ${error.detail} ${error.hint} ${String(error.cause)}`).not.toContain(part)
  }
  return error
}

describe('a good token', () => {
  test('gives the principal', async () => {
    const principal = await verifier().verify(await key.sign(github()))
    expect(principal).toMatchObject({
      issuerName: 'github',
      provider: 'github-actions',
      iss: GITHUB,
      tenancyMatches: true,
    })
    expect(principal.tokenSha256).toMatch(/^[0-9a-f]{64}$/)
    expect(principal.expiresAt).toBe((ISSUED + 300) * 1000)
  })

  test('of another tenant gives a principal too, which says so: the policy denies it', async () => {
    const principal = await verifier().verify(await key.sign(github({ repository_owner_id: '666' })))
    expect(principal.tenancyMatches).toBe(false)
  })

  test('without a kid is verified by the only key that fits', async () => {
    const token = await key.sign(github(), { kid: undefined })
    expect((await verifier().verify(token)).issuerName).toBe('github')
  })

  test('ids over 2^53 keep every digit', async () => {
    const payload = JSON.stringify(github()).replace('"784500001"', '9007199254740993')
    expect((await verifier().verify(await key.sign(payload))).claims.get('repository_id')).toBe('9007199254740993')
  })

  test('is a Jenkins token with a list of one audience, no nbf and no jti', async () => {
    const { nbf: _, ...times } = registered(JENKINS, ISSUED, 3600)
    const token = await key.sign({ ...jenkinsClaims(), ...times, aud: [AUDIENCE] })
    expect((await verifier().verify(token)).job.runId).toBe('412')
  })
})

describe('before the signature is verified, the text is terse', () => {
  test('invariant 12: unknown issuer, also one that differs in a slash or in case', async () => {
    for (const iss of ['https://evil.example', `${GITHUB}/`, GITHUB.toUpperCase(), '', undefined, 7, [GITHUB]]) {
      const error = await refusal(github({ iss }))
      expect(error).toMatchObject({ code: 'issuer_unknown', sqlstate: '28P01', detail: undefined })
      expect(error.message).toBe("the token's issuer is not configured here")
      // The same for all, and nothing of what is configured.
      expect(error.hint).toMatch(
        /^pgusher whoami --local prints the token's iss where the job runs: it must be, byte for byte,/,
      )
      expect(error.hint).not.toMatch(/https?:/)
    }
  })

  test.each([
    [
      'ACTIONS_ID_TOKEN_REQUEST_TOKEN',
      { iss: 'https://vstoken.actions.githubusercontent.com', scp: 'Actions.Results:1:2' },
    ],
    ['System.AccessToken', { iss: 'app.vstoken.visualstudio.com', scp: 'app_token' }],
  ])('a token of the CI system’s machinery is told to be %s', async (name, claims) => {
    const error = await refusal(claims)
    expect(error).toMatchObject({ code: 'issuer_unknown', message: expect.stringContaining(name) })
    expect(error.message).toContain('it is what one asks for a token with')
  })

  test('the issuer comes before anything else of an unknown token', async () => {
    expect((await refusal({ iss: 'https://evil.example' })).code).toBe('issuer_unknown')
  })

  test.each(['none', 'HS256', 'RS256', 'ES384'])('invariant 11: algorithm %s is not the issuer’s', async (alg) => {
    const error = await refusalOf(verifier(), forged({ alg, kid: 'k1' }, github()))
    expect(error).toMatchObject({ code: 'signature_invalid', sqlstate: '28P01' })
    expect(error.message).not.toContain(alg)
  })

  test('a signature by another key under the same kid, and a changed payload', async () => {
    const subject = verifier()
    expect((await refusalOf(subject, await stranger.sign(github()))).code).toBe('signature_invalid')
    const [header, , signature] = (await key.sign(github())).split('.')
    const changed = Buffer.from(JSON.stringify(github({ ref: 'refs/heads/evil' }))).toString('base64url')
    const error = await refusalOf(subject, `${header}.${changed}.${signature}`)
    expect(error.code).toBe('signature_invalid')
    expect(`${error.message} ${error.hint}`).not.toContain('evil')
  })

  test('a bad signature is told before a wrong time or audience', async () => {
    const error = await refusalOf(verifier(), await stranger.sign(github({ exp: 1, aud: 'other' })))
    expect(error.code).toBe('signature_invalid')
  })
})

test('a refusal names the job once its signature holds, and never before', async () => {
  const named = async (token: string): Promise<string | undefined> => {
    let subject: string | undefined
    await verifier()
      .verify(token, {
        onRefused: (signed) => {
          subject = signed.subject
        },
      })
      .catch(() => {})
    return subject
  }
  const { sub } = github()
  expect(await named(await key.sign(github({ exp: 1 })))).toBe(sub)
  expect(await named(await key.sign(github({ aud: 'other' })))).toBe(sub)
  expect(await named(await key.sign(github({ event_name: 'pull_request_target' })))).toBe(sub)
  expect(await named(await key.sign(github({ aud: 'other', sub: undefined })))).toBeUndefined()
  expect(await named(await stranger.sign(github({ exp: 1 })))).toBeUndefined()
})

describe('invariant 13: time', () => {
  test('expired: how long ago, and how to get a fresh one', async () => {
    const subject = verifier()
    now += 300_000 + 12 * 60_000
    const error = await refusalOf(subject, await key.sign(github()))
    expect(error.code).toBe('token_expired')
    expect(error.message).toMatch(/^the token expired 12 min ago; fetch one at connect time, .*: curl .* jq -r .value$/)
    expect(error.message).toContain(`ACTIONS_ID_TOKEN_REQUEST_URL&audience=${AUDIENCE}`)
    expect(error.message.length).toBeLessThan(300)
    expect(error.detail).toBe("exp is 2026-09-21T14:18:20Z, pgusher's clock says 2026-09-21T14:30:20Z.")
    expect(error.hint).toContain('permissions: id-token: write')
  })

  test('expired at GitLab, where a job has one token: nobody is told to ask for another', async () => {
    const error = await refusal({ ...gitlabClaims(), ...registered('https://gitlab.com', ISSUED - 3600, 1800) })
    expect(error.code).toBe('token_expired')
    expect(error.message).toContain('a job gets this token once, at its start: connect earlier in the job')
  })

  test('leeway is 30 seconds each way', async () => {
    const subject = verifier()
    const token = await key.sign(github())
    now = (ISSUED + 300 + 29) * 1000
    await subject.verify(token)
    now = (ISSUED + 300 + 30) * 1000
    expect((await refusalOf(subject, token)).code).toBe('token_expired')
    now = (ISSUED - 30) * 1000
    await subject.verify(token)
    now = (ISSUED - 31) * 1000
    expect((await refusalOf(subject, token)).code).toBe('token_not_yet_valid')
  })

  test.each([
    ['iat', { iat: ISSUED + 120, exp: ISSUED + 300 }],
    ['nbf', { nbf: ISSUED + 120 }],
  ])('%s in the future', async (claim, claims) => {
    const error = await refusal(github(claims))
    expect(error).toMatchObject({ code: 'token_not_yet_valid', message: 'the token is valid only 2 min from now' })
    expect(error.detail).toContain(`${claim} is `)
  })

  test('nbf ten minutes before iat is how GitHub does it', async () => {
    await verifier().verify(await key.sign(github({ nbf: ISSUED - 600 })))
  })

  test('too old, though not expired', async () => {
    const claims = { ...gitlabClaims(), ...registered('https://gitlab.com', ISSUED - 7200, 36_000) }
    const error = await refusal(claims)
    expect(error.code).toBe('token_too_old')
    expect(error.message).toMatch(
      /^the token was issued 2 h ago, and issuer "gitlab" takes tokens up to 60 min old; a job gets this token once/,
    )
    const allowed = verifier({ max_token_age: 3 * 3_600_000 })
    expect((await allowed.verify(await key.sign(claims))).issuerName).toBe('gitlab')
  })

  test('too long a life', async () => {
    const claims = { ...buildkiteClaims(), ...registered('https://agent.buildkite.com', ISSUED, 7200) }
    const error = await refusal(claims)
    expect(error.code).toBe('token_too_old')
    expect(error.message).toBe(
      'the token lives 2 h, and issuer "buildkite" takes tokens that live up to 5 min; ask for one with a shorter life',
    )
    await verifier({ max_token_life: 7_200_000 }).verify(await key.sign(claims))
  })

  test.each(['exp', 'iat', 'sub'])('%s is required', async (claim) => {
    for (const value of [undefined, null, '', [], {}]) {
      expect(await refusal(github({ [claim]: value }))).toMatchObject({
        code: 'token_malformed',
        message: expect.stringContaining(`claim ${claim} is missing or not`),
      })
    }
  })

  test('a time as text or beyond 2^53 is no time', async () => {
    expect((await refusal(github({ exp: String(ISSUED + 300) }))).code).toBe('token_malformed')
    const endless = JSON.stringify(github()).replace(`"exp":${ISSUED + 300}`, '"exp":99999999999999999999')
    expect((await refusal(endless)).code).toBe('token_malformed')
    expect((await refusal(github({ exp: Number.MAX_SAFE_INTEGER }))).code).toBe('token_too_old')
  })
})

describe('invariant 13: audience', () => {
  test('a wrong one: which one the token has, which one to ask for, and how', async () => {
    const error = await refusal(github({ aud: 'https://github.com/acme' }))
    expect(error).toMatchObject({ code: 'audience_mismatch', sqlstate: '28P01' })
    expect(error.message).toBe(
      `the token is for audience "https://github.com/acme"; ask for one with audience "${AUDIENCE}"`,
    )
    expect(error.hint).toContain(`&audience=${AUDIENCE}`)
  })

  test('ours among others is not enough', async () => {
    const error = await refusal(github({ aud: [AUDIENCE, 'https://vault.acme.example'] }))
    expect(error.message).toContain(`several audiences ("${AUDIENCE}" and "https://vault.acme.example")`)
  })

  test('none, an empty list, or one in another case', async () => {
    for (const aud of [undefined, [], null, AUDIENCE.toUpperCase(), `${AUDIENCE}/`, [[AUDIENCE]], { 0: AUDIENCE }]) {
      expect((await refusal(github({ aud }))).code).toBe('audience_mismatch')
    }
  })

  test('a hostile value is shown without its controls', async () => {
    const error = await refusal(github({ aud: 'x\u001b[2J\n\u202etxt' }))
    expect(error.message).toContain('x\\u{1b}[2J\\n\\u{202e}txt')
  })

  test('the time is told before the audience', async () => {
    expect((await refusal(github({ aud: 'other', iat: ISSUED - 900, exp: ISSUED - 600 }))).code).toBe('token_expired')
  })
})

describe('what presets refuse whatever the rules say', () => {
  test('a Jenkins token that was made outside a build', async () => {
    const error = await refusal({ ...jenkinsClaims({ build_number: undefined }), ...registered(JENKINS, ISSUED, 3600) })
    expect(error).toMatchObject({
      code: 'claim_missing',
      message: expect.stringMatching(
        /^the token has no build_number: it was not issued to a running job; get one inside the job: withCredentials/,
      ),
    })
    expect(error.message.length).toBeLessThan(300)
  })

  test.each(['pull_request_target', 'workflow_run', 'issue_comment', 'pull_request'])(
    'GitHub event %s',
    async (event_name) => {
      const error = await refusal(github({ event_name }))
      expect(error).toMatchObject({ code: 'denied_by_rule', sqlstate: '42501' })
      expect(error.message).toContain(`event_name is "${event_name}": such a job is refused`)
      expect(error.hint).toContain(`allow_events: [${event_name}]`)
      await verifier({ allow_events: [event_name] }).verify(await key.sign(github({ event_name })))
    },
  )

  test('a CircleCI job that was rerun with SSH', async () => {
    const iss = 'https://oidc.circleci.com/org/acme'
    const claims = { sub: 'org/acme', 'oidc.circleci.com/job-id': '1', 'oidc.circleci.com/ssh-rerun': true }
    const error = await refusal({ ...claims, ...registered(iss) })
    expect(error.message).toContain('a person at its shell')
  })

  test("a fork's merge request that runs in the parent GitLab project", async () => {
    const claims = gitlabClaims({ project_id: '666', pipeline_source: 'web' })
    const error = await refusal({ ...claims, ...registered('https://gitlab.com') })
    expect(error.code).toBe('tenancy_mismatch')
    expect(error.message).toBe(
      'project_id is "666" and job_project_id is "20451": the job runs another project\'s code',
    )
  })

  test('GitLab before 18.4, which says nothing of the job’s project', async () => {
    const claims = gitlabClaims({ job_project_id: undefined, job_namespace_id: undefined })
    await verifier().verify(await key.sign({ ...claims, ...registered('https://gitlab.com') }))
  })
})

describe('the cache', () => {
  test('one token gives one principal, until it expires', async () => {
    const subject = verifier()
    const token = await key.sign(github())
    const first = await subject.verify(token)
    expect(await subject.verify(token)).toBe(first)
    now += 331_000
    expect((await refusalOf(subject, token)).code).toBe('token_expired')
  })

  test('invariant 15: a token that was refused is looked at again', async () => {
    const subject = verifier()
    const token = await key.sign(github({ nbf: ISSUED + 60 }))
    expect((await refusalOf(subject, token)).code).toBe('token_not_yet_valid')
    // What was refused is not remembered as if it had been let in.
    expect((await refusalOf(subject, token)).code).toBe('token_not_yet_valid')
    const elsewhere = await key.sign(github({ aud: 'https://vault.acme.example' }))
    for (const _time of [1, 2]) expect((await refusalOf(subject, elsewhere)).code).toBe('audience_mismatch')
    now += 60_000
    expect((await subject.verify(token)).issuerName).toBe('github')
  })
})

describe('configuration', () => {
  test('two issuers with one url, and one without', () => {
    const config = issuerConfig('github-actions')
    expect(() => createVerifier({ one: config, two: config })).toThrow('issuers "one" and "two" have the same url')
    expect(() => createVerifier({ ci: issuerConfig('jenkins') })).toThrow('issuer "ci" has no url')
  })
})
