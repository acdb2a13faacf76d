/** Jobs whose definition lacks something: each is told what to add, in MESSAGE. And which source wins where there are several. */
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { findTokenSource, type TokenSourceOptions } from '../../../src/client/token-source.ts'
import { AccessError } from '../../../src/errors.ts'
import { forged } from '../../support/tokens.ts'

const TOKEN = forged({ alg: 'RS256' }, { iss: 'https://ci', aud: 'a', sub: 'one' })
const OTHER = forged({ alg: 'RS256' }, { iss: 'https://ci', aud: 'a', sub: 'other' })
/** Nobody listens there, so no machine that the tests run on is asked for its own account. */
const NO_METADATA = { GCE_METADATA_HOST: '127.0.0.1:1' }

let directory: string
const file = (name: string): string => join(directory, name)

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'pgusher-missing-'))
  await writeFile(file('token'), `${TOKEN}\n`)
})

afterAll(() => rm(directory, { recursive: true, force: true }))

async function refusal(options: TokenSourceOptions): Promise<AccessError> {
  const thrown = await findTokenSource({ mounted: file('none'), ...options })
    .then(
      (source) => source.fetch('https://pgusher.acme.example'),
      (error: unknown) => error,
    )
    .catch((error: unknown) => error)
  expect(thrown).toBeInstanceOf(AccessError)
  return thrown as AccessError
}

test.each<[string, Record<string, string>, RegExp]>([
  [
    'GitHub without the permission',
    { GITHUB_ACTIONS: 'true', GITHUB_EVENT_NAME: 'push' },
    /add "permissions: \{ id-token: write, contents: read \}" to the job$/,
  ],
  [
    "GitHub's pull request",
    { GITHUB_ACTIONS: 'true', GITHUB_EVENT_NAME: 'pull_request' },
    /add "permissions: .*; if this pull request comes from a fork, GitHub gives it none/,
  ],
  [
    'Forgejo, which says that it is GitHub too',
    { GITHUB_ACTIONS: 'true', GITEA_ACTIONS: 'true', FORGEJO_ACTIONS: 'true' },
    /Forgejo .* add "enable-openid-connect: true"/,
  ],
  ['GitLab', { GITLAB_CI: 'true', PGUSHER_ID_TOKEN: ' ' }, /add "id_tokens: \{ PG_ID_TOKEN: \{ aud: AUDIENCE/],
  ['Jenkins', { JENKINS_URL: 'https://ci/', BUILD_NUMBER: '7' }, /withCredentials\(\[string\(.*'PG_ID_TOKEN'\)\]\)/],
  ['Bitbucket', { BITBUCKET_BUILD_NUMBER: '7' }, /add "oidc: \{ audiences: \[AUDIENCE\] \}" to the step/],
  ['Azure DevOps', { TF_BUILD: 'True' }, /SYSTEM_ACCESSTOKEN: \$\(System\.AccessToken\)/],
  [
    'Azure DevOps where the variable was not mapped',
    { TF_BUILD: 'True', SYSTEM_ACCESSTOKEN: '$(System.AccessToken)' },
    /add "env: \{ SYSTEM_ACCESSTOKEN/,
  ],
  ['Buildkite without its agent', { BUILDKITE: 'true', PATH: '/none' }, /buildkite-agent .* not on the PATH/],
  ['CircleCI for a fork', { CIRCLECI: 'true', PATH: '/none' }, /circleci is not on the PATH, and CIRCLE_OIDC_TOKEN_V2/],
  ['Codefresh', { CF_BUILD_ID: '6' }, /CF_OIDC_REQUEST_URL and CF_OIDC_REQUEST_TOKEN/],
  ['Semaphore', { SEMAPHORE: 'true' }, /SEMAPHORE_OIDC_TOKEN/],
  ['Spacelift', { TF_VAR_spacelift_run_id: '01K' }, /SPACELIFT_OIDC_TOKEN/],
  ['HCP Terraform', { TFC_RUN_ID: 'run-1' }, /TFC_WORKLOAD_IDENTITY_AUDIENCE/],
  ['Harness', { HARNESS_BUILD_ID: '7' }, /PLUGIN_OIDC_TOKEN_ID/],
  ['AWS without its command', { CODEBUILD_BUILD_ARN: 'arn', PATH: '/none' }, /command aws .* not on the PATH/],
  ['Drone, which has none', { DRONE: 'true' }, /Drone issues no identity tokens .* --token-command/],
  ['Woodpecker', { CI: 'woodpecker' }, /Woodpecker issues no identity tokens/],
  ['Gitea', { GITHUB_ACTIONS: 'true', GITEA_ACTIONS: 'true' }, /Gitea Actions issues no identity tokens/],
  [
    'a pod',
    { KUBERNETES_SERVICE_HOST: '10.0.0.1', ...NO_METADATA },
    /mount a projected volume at \/var\/run\/pgusher /,
  ],
  ['nothing known', NO_METADATA, /no CI system was recognised; name a source by --token-file/],
])('%s', async (_name, env, message) => {
  const { code, message: told } = await refusal({ env })
  expect(code).toBe('token_missing')
  expect(told).toMatch(message)
})

test('where nothing is recognised, the hint lists what was looked for', async () => {
  const { hint } = await refusal({ env: NO_METADATA })
  for (const word of ['GITHUB_ACTIONS', 'GITLAB_CI', 'BUILDKITE', 'CIRCLECI', 'JENKINS_URL', 'TF_BUILD', 'PG_ID_TOKEN'])
    expect(hint).toContain(word)
})

test('a token in a variable of another name is told of, not taken and not shown', async () => {
  const { hint } = await refusal({ env: { GITLAB_CI: 'true', VAULT_ID_TOKEN: TOKEN, CI_JOB_TOKEN: 'glcbt-1_abc' } })
  expect(hint).toMatch(/^There is a token in VAULT_ID_TOKEN: if it is for pgusher, name the variable by --token-env\./)
  expect(hint).not.toContain(TOKEN)
})

test.each<[string, TokenSourceOptions]>([
  ['--token-file', { env: {}, tokenFile: 'FILE' }],
  ['--token-env', { env: { MY_TOKEN: TOKEN }, tokenEnv: 'MY_TOKEN' }],
  ['--token-command', { env: {}, tokenCommand: 'cat "$FILE"' }],
])('%s wins over the CI that is recognised', async (_name, options) => {
  const env = { ...options.env, FILE: file('token'), GITLAB_CI: 'true', PG_ID_TOKEN: OTHER, PATH: '/usr/bin:/bin' }
  const source = await findTokenSource({
    ...options,
    env,
    ...(options.tokenFile === undefined ? {} : { tokenFile: file('token') }),
  })
  expect(source.preset).toBe('gitlab')
  expect(await source.fetch('')).toBe(TOKEN)
})

test('a file of a CI job is written once; one that a kubelet mounts, or that is there without a CI, may be new each time', async () => {
  const refetchable = async (env: Record<string, string>, tokenFile: string) =>
    (await findTokenSource({ env, tokenFile })).refetchable
  expect(await refetchable({ GITLAB_CI: 'true' }, file('token'))).toBe(false)
  expect(await refetchable({}, file('token'))).toBe(true)
  await mkdir(file('volume/..1'), { recursive: true })
  await symlink('..1', file('volume/..data'))
  expect(await refetchable({ GITLAB_CI: 'true' }, file('volume/token'))).toBe(true)
})

test('a command that names PGUSHER_AUDIENCE is told the audience, in the environment and not on its command line', async () => {
  const source = await findTokenSource({
    env: { PATH: '/usr/bin:/bin' },
    tokenCommand: 'printf "%s" "a.b.$(printf %s "$PGUSHER_AUDIENCE" | tr -dc a-z)"',
  })
  expect(source).toMatchObject({ fixedAudience: false, refetchable: true })
  expect(await source.fetch('https://$(id)`id`')).toBe('a.b.httpsidid')
  expect(await findTokenSource({ env: {}, tokenCommand: 'get-token' })).toMatchObject({ fixedAudience: true })
})

test('two sources at once are refused', async () => {
  const { message } = await refusal({ env: {}, tokenFile: 'a', tokenEnv: 'b' })
  expect(message).toMatch(/exclude each other/)
})

test("a pod's token for pgusher stands in for a CI that gives none, and its variable for a CI that is not known", async () => {
  const pod = await findTokenSource({ env: { JENKINS_URL: 'j', BUILD_NUMBER: '1' }, mounted: file('token') })
  expect(pod).toMatchObject({ name: 'Kubernetes', preset: 'kubernetes', refetchable: true })
  expect(await pod.fetch('')).toBe(TOKEN)
  const variable = await findTokenSource({ env: { DRONE: 'true', PG_ID_TOKEN: OTHER }, mounted: file('none') })
  expect(variable).toMatchObject({ name: 'the variable PG_ID_TOKEN', preset: 'generic', refetchable: false })
  expect(await variable.fetch('')).toBe(OTHER)
})

test("a file that a variable names is a pod's in a pod only", async () => {
  const env = { PGUSHER_ID_TOKEN_FILE: file('token') }
  expect(await findTokenSource({ env })).toMatchObject({ name: `the file ${file('token')}`, preset: 'generic' })
  const pod = await findTokenSource({ env: { ...env, KUBERNETES_SERVICE_HOST: '10.0.0.1' } })
  expect(pod).toMatchObject({ name: 'Kubernetes', preset: 'kubernetes' })
})

test("Jenkins' file credential is read", async () => {
  const env = { JENKINS_URL: 'j', BUILD_NUMBER: '1', PG_ID_TOKEN_FILE: file('token') }
  expect(await (await findTokenSource({ env })).fetch('')).toBe(TOKEN)
})
