/**
 * A job's surroundings as each CI system makes them: its variables, its token service on loopback, its commands on the PATH,
 * its files. What a real one would refuse is refused here too: a wrong header, a wrong command line, no audience.
 */
import { randomBytes } from 'node:crypto'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { Claims } from '../../../src/cli/demo/ci-claims.ts'
import { json } from '../tokens.ts'
import type { CiName } from './claims.ts'
import type { CiTokenOptions } from './issuer.ts'

/** Beside CI systems, issuers that a job asks by itself. */
export type SimulatedName = CiName | 'entra' | 'okta' | 'spiffe' | 'generic'

export interface TokenIssuer<Name extends SimulatedName> {
  /** The audience of a system that takes no other. */
  audience(name: Name): string
  token(name: Name, options: CiTokenOptions): Promise<string>
}

export interface SimulatedCi {
  /** Everything that the job has: PATH, and the CI system's own variables. */
  env: Record<string, string>
  /** Of the token service. */
  url: string
  /** Tokens that were asked for, by their audience. */
  readonly asked: readonly string[]
  /** The next requests to the token service get this status, one each. */
  failNext(...statuses: number[]): void
  close(): Promise<void>
}

interface Scene {
  audience(): string
  token(): Promise<string>
  directory: string
  url: string
  /** The token service wants it. */
  secret: string
}

type Question = IncomingMessage & { path: string; query: URLSearchParams; body: string }
interface Setting {
  env: Record<string, string>
  /** The audience of a proper request; undefined for one that the service refuses. Without it there is no service. */
  audienceOf?(request: Question): string | undefined
  /** What of the token depends on the request; undefined for a claim that it is without. */
  claimsOf?(request: Question): Claims
  answer?(token: string, response: ServerResponse): void
  /** Headers of what the service answers at its root. */
  greeting?: Record<string, string>
  /**
   * Name of a command and what it checks before it asks the service, as the body of a function of `args` and `env` that gives the audience,
   * the secret and further parameters; `print` makes its output of the `token`.
   */
  command?: { name: string; check: string; print?: string }
}

export async function simulateCi<Name extends SimulatedName>(
  name: Name,
  issuer: TokenIssuer<Name>,
  options: CiTokenOptions = {},
): Promise<SimulatedCi> {
  const directory = await mkdtemp(join(tmpdir(), 'pgusher-ci-'))
  const secret = randomBytes(24).toString('base64url')
  const asked: string[] = []
  const failures: number[] = []
  const server = createServer(async (message, response) => {
    const { pathname: path, searchParams: query } = new URL(message.url ?? '/', 'http://ci')
    const request: Question = Object.assign(message, { path, query, body: await text(message) })
    const failure = failures.shift()
    if (failure !== undefined) return void response.writeHead(failure).end('{"message":"not now"}')
    if (setting.greeting !== undefined && request.url === '/') {
      return void response.writeHead(200, setting.greeting).end()
    }
    const audience = setting.audienceOf?.(request)
    if (audience === undefined) return void response.writeHead(401).end(`{"message":"bad request for a token"}`)
    asked.push(audience)
    const answer = setting.answer ?? ((token: string) => json(response, { token }))
    const claims = { ...setting.claimsOf?.(request), ...options.claims }
    issuer.token(name, { audience, ...options, claims }).then(
      (token) => answer(token, response),
      () => response.writeHead(500).end(),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const setting = await SETTINGS[name]({
    ...{ directory, url, secret },
    audience: () => issuer.audience(name),
    token: () => issuer.token(name, options),
  })
  if (setting.command !== undefined) await writeCommand(directory, url, setting.command)
  const path = [directory, dirname(process.execPath), '/usr/local/bin', '/usr/bin', '/bin'].join(':')
  return {
    env: { PATH: path, CI: 'true', ...setting.env },
    ...{ url, asked },
    failNext: (...statuses) => void failures.push(...statuses),
    async close() {
      await new Promise<void>((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      })
      await rm(directory, { recursive: true, force: true })
    },
  }
}

const bearer = ({ headers }: IncomingMessage, { secret }: Scene): boolean =>
  headers.authorization?.toLowerCase() === `bearer ${secret}`.toLowerCase()

/** GitHub's protocol: the URL has a query, the answer is in `value`. */
function actions(scene: Scene, env: Record<string, string>): Setting {
  return {
    env: {
      GITHUB_ACTIONS: 'true',
      GITHUB_EVENT_NAME: 'push',
      ...env,
      ACTIONS_ID_TOKEN_REQUEST_URL: `${scene.url}/42//idtoken/7/8?api-version=2.0`,
      ACTIONS_ID_TOKEN_REQUEST_TOKEN: scene.secret,
    },
    audienceOf(request) {
      const proper = request.method === 'GET' && bearer(request, scene) && request.query.get('api-version') === '2.0'
      return proper ? (request.query.get('audience') ?? 'https://github.com/acme') : undefined
    },
    answer: (value, response) => json(response, { count: 1, value }),
  }
}

/** A command that asks the service with its secret in the environment, as the CI's own would. */
const commandAudience =
  (scene: Scene) =>
  (request: Question): string | undefined =>
    bearer(request, scene) ? (request.query.get('audience') ?? undefined) : undefined

const SETTINGS: Readonly<Record<SimulatedName, (scene: Scene) => Setting | Promise<Setting>>> = {
  'github-actions': (scene) => actions(scene, {}),
  forgejo: (scene) => actions(scene, { GITEA_ACTIONS: 'true', FORGEJO_ACTIONS: 'true' }),
  gitlab: async (scene) => ({ env: { GITLAB_CI: 'true', PGUSHER_ID_TOKEN: await scene.token() } }),
  jenkins: async (scene) => ({
    env: {
      JENKINS_URL: 'https://jenkins.acme.example/',
      BUILD_NUMBER: '412',
      PG_ID_TOKEN: await scene.token(),
    },
  }),
  bitbucket: async (scene) => ({
    env: { BITBUCKET_BUILD_NUMBER: '412', BITBUCKET_STEP_OIDC_TOKEN: await scene.token() },
  }),
  semaphore: async (scene) => ({ env: { SEMAPHORE: 'true', SEMAPHORE_OIDC_TOKEN: await scene.token() } }),
  spacelift: async (scene) => ({ env: { SPACELIFT_OIDC_TOKEN: await scene.token() } }),
  'hcp-terraform': async (scene) => ({
    env: { TFC_RUN_ID: 'run-AcMeExample00412', TFC_WORKLOAD_IDENTITY_TOKEN: await scene.token() },
  }),
  harness: async (scene) => ({ env: { HARNESS_BUILD_ID: '412', PLUGIN_OIDC_TOKEN_ID: await scene.token() } }),
  async kubernetes(scene) {
    const file = join(scene.directory, 'token')
    await writeFile(file, await scene.token(), { mode: 0o600 })
    return { env: { KUBERNETES_SERVICE_HOST: '10.96.0.1', PGUSHER_ID_TOKEN_FILE: file } }
  },
  buildkite: (scene) => ({
    env: { BUILDKITE: 'true', BUILDKITE_JOB_ID: '47e558ab', BUILDKITE_AGENT_ACCESS_TOKEN: scene.secret },
    command: {
      name: 'buildkite-agent',
      check: `
        const [oidc, request, ...rest] = args
        const options = new Map(rest.flatMap((name, at) => at % 2 === 0 ? [[name, rest[at + 1] ?? '']] : []))
        const known = ['--audience', '--lifetime', '--claim']
        if (oidc !== 'oidc' || request !== 'request-token' || [...options.keys()].some((name) => !known.includes(name))) return undefined
        if (Number(options.get('--lifetime') ?? 300) > 7200) return undefined
        return [options.get('--audience') ?? '', env.BUILDKITE_AGENT_ACCESS_TOKEN, { claim: options.get('--claim') ?? '' }]`,
    },
    audienceOf: commandAudience(scene),
    claimsOf({ query }) {
      const wanted = query.get('claim')?.split(',') ?? []
      return Object.fromEntries(BUILDKITE_OPTIONAL.filter((claim) => !wanted.includes(claim)).map((claim) => [claim]))
    },
  }),
  circleci: (scene) => ({
    env: { CIRCLECI: 'true', CIRCLE_OIDC_TOKEN_V2: 'not.this.one', CIRCLE_TEST_SECRET: scene.secret },
    command: {
      name: 'circleci',
      check: `
        if (args.slice(0, 4).join(' ') !== 'run oidc get --claims') return undefined
        return [JSON.parse(args[4]).aud, env.CIRCLE_TEST_SECRET]`,
    },
    audienceOf: commandAudience(scene),
  }),
  aws: (scene) => ({
    env: {
      CODEBUILD_BUILD_ARN: 'arn:aws:codebuild:eu-west-1:123456789012:build/shop:1',
      AWS_TEST_SECRET: scene.secret,
    },
    command: {
      name: 'aws',
      check: `
        const option = (name) => args[args.indexOf(name) + 1]
        if (args.slice(0, 2).join(' ') !== 'sts get-web-identity-token') return undefined
        if (option('--query') !== 'WebIdentityToken' || option('--output') !== 'text') return undefined
        const { Audience, SigningAlgorithm, DurationSeconds } = args.includes('--cli-input-json')
          ? JSON.parse(option('--cli-input-json'))
          : { Audience: [option('--audience')], SigningAlgorithm: option('--signing-algorithm'), DurationSeconds: Number(option('--duration-seconds')) }
        if (!['RS256', 'ES384'].includes(SigningAlgorithm) || !(DurationSeconds >= 60)) return undefined
        return [Audience[0], env.AWS_TEST_SECRET]`,
    },
    audienceOf: commandAudience(scene),
  }),
  codefresh: (scene) => ({
    env: { CF_BUILD_ID: '64ac3e', CF_OIDC_REQUEST_URL: `${scene.url}/oidc/token`, CF_OIDC_REQUEST_TOKEN: scene.secret },
    audienceOf: ({ headers, query }) =>
      headers.authorization === scene.secret ? (query.get('audience') ?? 'https://g.codefresh.io') : undefined,
    answer: (id_token, response) => json(response, { id_token }),
  }),
  'azure-devops': (scene) => ({
    env: {
      TF_BUILD: 'True',
      SYSTEM_OIDCREQUESTURI: `${scene.url}/acme/f9857125/_apis/distributedtask/hubs/build/plans/1/jobs/2/oidctoken`,
      SYSTEM_ACCESSTOKEN: scene.secret,
    },
    audienceOf: (request) =>
      request.method === 'POST' && bearer(request, scene) && request.query.get('api-version') === '7.1'
        ? scene.audience()
        : undefined,
    answer: (oidcToken, response) => json(response, { oidcToken }),
  }),
  google: (scene) => ({
    env: { GCE_METADATA_HOST: scene.url.slice('http://'.length) },
    greeting: { 'metadata-flavor': 'Google' },
    audienceOf: ({ headers, path, query }) =>
      headers['metadata-flavor'] === 'Google' &&
      path === '/computeMetadata/v1/instance/service-accounts/default/identity'
        ? (query.get('audience') ?? undefined)
        : undefined,
    answer: (token, response) => void response.writeHead(200, { 'metadata-flavor': 'Google' }).end(token),
  }),
  okta: (scene) => ({
    env: { OKTA_CLIENT_ID: '0oaacmeexample00001', OKTA_CLIENT_SECRET: scene.secret },
    audienceOf({ method, path, headers, body }) {
      const [, client] = basic(headers.authorization)
      const proper = method === 'POST' && OKTA_PATH.test(path) && client === scene.secret
      return proper && grantOf(body) === 'client_credentials' ? scene.audience() : undefined
    },
    claimsOf: ({ path, headers, body }) => ({
      iss: `https://acme.okta.com${path.replace(OKTA_PATH, '$1')}`,
      cid: basic(headers.authorization)[0],
      scp: [new URLSearchParams(body).get('scope')],
    }),
    answer: (access_token, response) => json(response, { token_type: 'Bearer', expires_in: 3600, access_token }),
  }),
  entra: (scene) => ({
    // With what has a meaning in a form.
    env: { ENTRA_CLIENT_SECRET: `~+&=%41${scene.secret}` },
    audienceOf({ method, path, body }) {
      const form = new URLSearchParams(body)
      const proper =
        method === 'POST' && ENTRA_PATH.test(path) && form.get('client_secret') === `~+&=%41${scene.secret}`
      const scope = form.get('scope')?.endsWith('/.default') === true
      return proper && scope && grantOf(body) === 'client_credentials' ? scene.audience() : undefined
    },
    claimsOf: ({ path, body }) => ({
      iss: `https://login.microsoftonline.com${path.replace(ENTRA_PATH, '/$1/v2.0')}`,
      tid: path.replace(ENTRA_PATH, '$1'),
      azp: new URLSearchParams(body).get('client_id'),
    }),
    answer: (access_token, response) => json(response, { token_type: 'Bearer', expires_in: 3599, access_token }),
  }),
  spiffe: (scene) => ({
    env: { SPIRE_TEST_SECRET: scene.secret },
    command: {
      name: 'spire-agent',
      check: `
        const option = (name) => args[args.indexOf(name) + 1]
        if (args.length !== 7 || args.slice(0, 3).join(' ') !== 'api fetch jwt' || option('-output') !== 'json') return undefined
        return [option('-audience'), env.SPIRE_TEST_SECRET]`,
      print: `JSON.stringify([{ svids: [{ hint: '', svid: token }] }, { bundles: {} }])`,
    },
    audienceOf: commandAudience(scene),
  }),
  generic: (scene) => ({
    env: { ISSUER_TEST_SECRET: scene.secret },
    command: {
      name: 'your-token-command',
      check: `return args.length === 2 && args[0] === '--audience' ? [args[1], env.ISSUER_TEST_SECRET] : undefined`,
    },
    audienceOf: commandAudience(scene),
  }),
}

/** Ids that are in a token of Buildkite's only when the job asks for them. */
const BUILDKITE_OPTIONAL = ['organization_id', 'pipeline_id', 'cluster_id', 'queue_id', 'build_id']
const OKTA_PATH = /^(\/oauth2\/\w+)\/v1\/token$/
const ENTRA_PATH = /^\/([\w-]+)\/oauth2\/v2\.0\/token$/

const grantOf = (body: string): string | null => new URLSearchParams(body).get('grant_type')

function basic(authorization = ''): string[] {
  return Buffer.from(authorization.replace(/^Basic /, ''), 'base64')
    .toString()
    .split(':')
}

/** In the job's own Node, because what is on a test machine's PATH is not known. */
async function writeCommand(
  directory: string,
  url: string,
  { name, check, print = 'token' }: NonNullable<Setting['command']>,
): Promise<void> {
  const script = `
    const found = ((args, env) => {${check}
    })(process.argv.slice(2), process.env)
    const refuse = (text) => { console.error(text); process.exitCode = 1 }
    if (found === undefined) refuse('wrong usage: ' + process.argv.slice(2).join(' '))
    else fetch('${url}/?' + new URLSearchParams({ audience: found[0], ...found[2] }), { headers: { authorization: 'Bearer ' + found[1] } })
      .then(async (answer) => {
        if (!answer.ok) return refuse('fatal: the API said ' + answer.status)
        const { token } = await answer.json()
        console.log(${print})
      })
  `
  const [program, file] = [join(directory, `${name}.cjs`), join(directory, name)]
  await writeFile(program, script)
  // By a shell: a first line with #! takes no path with a blank.
  await writeFile(file, `#!/bin/sh\nexec '${process.execPath}' '${program}' "$@"\n`)
  await chmod(file, 0o755)
}
