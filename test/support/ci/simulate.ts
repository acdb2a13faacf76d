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
import { json } from '../tokens.ts'
import type { CiName } from './claims.ts'
import type { CiIssuer, CiTokenOptions } from './issuer.ts'

export interface SimulatedCi {
  /** Everything that the job has: PATH, and the CI system's own variables. */
  env: Record<string, string>
  /** Tokens that were asked for, by their audience. */
  readonly asked: readonly string[]
  /** The next requests to the token service get this status, one each. */
  failNext(...statuses: number[]): void
  close(): Promise<void>
}

interface Scene {
  issuer: CiIssuer
  options: CiTokenOptions
  name: CiName
  directory: string
  url: string
  /** The token service wants it. */
  secret: string
}

type Question = IncomingMessage & { query: URLSearchParams }
interface Setting {
  env: Record<string, string>
  /** The audience of a proper request; undefined for one that the service refuses. Without it there is no service. */
  audienceOf?(request: Question): string | undefined
  answer?(token: string, response: ServerResponse): void
  /** Headers of what the service answers at its root. */
  greeting?: Record<string, string>
  /** Name of a command and what it checks before it asks the service, as the body of a function of `args` and `env`. */
  command?: { name: string; check: string }
}

export async function simulateCi(name: CiName, issuer: CiIssuer, options: CiTokenOptions = {}): Promise<SimulatedCi> {
  const directory = await mkdtemp(join(tmpdir(), 'pgusher-ci-'))
  const secret = randomBytes(24).toString('base64url')
  const asked: string[] = []
  const failures: number[] = []
  const server = createServer((request, response) => {
    const query = new URL(request.url ?? '/', 'http://ci').searchParams
    const failure = failures.shift()
    if (failure !== undefined) return void response.writeHead(failure).end('{"message":"not now"}')
    if (setting.greeting !== undefined && request.url === '/') {
      return void response.writeHead(200, setting.greeting).end()
    }
    const audience = setting.audienceOf?.(Object.assign(request, { query }))
    if (audience === undefined) return void response.writeHead(401).end(`{"message":"bad request for a token"}`)
    asked.push(audience)
    const answer = setting.answer ?? ((token: string) => json(response, { token }))
    issuer.token(name, { audience, ...options }).then(
      (token) => answer(token, response),
      () => response.writeHead(500).end(),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const setting = await SETTINGS[name]({ issuer, options, name, directory, url, secret })
  if (setting.command !== undefined) await writeCommand(directory, url, setting.command)
  const path = [directory, dirname(process.execPath), '/usr/local/bin', '/usr/bin', '/bin'].join(':')
  return {
    env: { PATH: path, CI: 'true', ...setting.env },
    asked,
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

/** A token made at the start of the job. */
const oneToken = ({ issuer, name, options }: Scene): Promise<string> => issuer.token(name, options)

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

const SETTINGS: Readonly<Record<CiName, (scene: Scene) => Setting | Promise<Setting>>> = {
  'github-actions': (scene) => actions(scene, {}),
  forgejo: (scene) => actions(scene, { GITEA_ACTIONS: 'true', FORGEJO_ACTIONS: 'true' }),
  gitlab: async (scene) => ({ env: { GITLAB_CI: 'true', PGUSHER_ID_TOKEN: await oneToken(scene) } }),
  jenkins: async (scene) => ({
    env: {
      JENKINS_URL: 'https://jenkins.acme.example/',
      BUILD_NUMBER: '412',
      PG_ID_TOKEN: await oneToken(scene),
    },
  }),
  bitbucket: async (scene) => ({
    env: { BITBUCKET_BUILD_NUMBER: '412', BITBUCKET_STEP_OIDC_TOKEN: await oneToken(scene) },
  }),
  semaphore: async (scene) => ({ env: { SEMAPHORE: 'true', SEMAPHORE_OIDC_TOKEN: await oneToken(scene) } }),
  spacelift: async (scene) => ({ env: { SPACELIFT_OIDC_TOKEN: await oneToken(scene) } }),
  'hcp-terraform': async (scene) => ({
    env: { TFC_RUN_ID: 'run-AcMeExample00412', TFC_WORKLOAD_IDENTITY_TOKEN: await oneToken(scene) },
  }),
  harness: async (scene) => ({ env: { HARNESS_BUILD_ID: '412', PLUGIN_OIDC_TOKEN_ID: await oneToken(scene) } }),
  async kubernetes(scene) {
    const file = join(scene.directory, 'token')
    await writeFile(file, await oneToken(scene), { mode: 0o600 })
    return { env: { KUBERNETES_SERVICE_HOST: '10.96.0.1', PGUSHER_ID_TOKEN_FILE: file } }
  },
  buildkite: (scene) => ({
    env: { BUILDKITE: 'true', BUILDKITE_JOB_ID: '47e558ab', BUILDKITE_AGENT_ACCESS_TOKEN: scene.secret },
    command: {
      name: 'buildkite-agent',
      check: `
        const [oidc, request, ...rest] = args
        const option = (name) => rest[rest.indexOf(name) + 1]
        if (oidc !== 'oidc' || request !== 'request-token' || rest.length !== 6) return undefined
        if (Number(option('--lifetime')) > 7200 || !option('--claim').split(',').includes('pipeline_id')) return undefined
        return [option('--audience'), env.BUILDKITE_AGENT_ACCESS_TOKEN]`,
    },
    audienceOf: commandAudience(scene),
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
        const { Audience, SigningAlgorithm, DurationSeconds } = JSON.parse(option('--cli-input-json'))
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
        ? scene.issuer.audience('azure-devops')
        : undefined,
    answer: (oidcToken, response) => json(response, { oidcToken }),
  }),
  google: (scene) => ({
    env: { GCE_METADATA_HOST: scene.url.slice('http://'.length) },
    greeting: { 'metadata-flavor': 'Google' },
    audienceOf: ({ headers, query }) =>
      headers['metadata-flavor'] === 'Google' ? (query.get('audience') ?? undefined) : undefined,
    answer: (token, response) => void response.writeHead(200, { 'metadata-flavor': 'Google' }).end(token),
  }),
}

/** In the job's own Node, because what is on a test machine's PATH is not known. */
async function writeCommand(
  directory: string,
  url: string,
  { name, check }: NonNullable<Setting['command']>,
): Promise<void> {
  const script = `
    const found = ((args, env) => {${check}
    })(process.argv.slice(2), process.env)
    const refuse = (text) => { console.error(text); process.exitCode = 1 }
    if (found === undefined) refuse('wrong usage: ' + process.argv.slice(2).join(' '))
    else fetch('${url}/?audience=' + encodeURIComponent(found[0]), { headers: { authorization: 'Bearer ' + found[1] } })
      .then(async (answer) => answer.ok ? console.log((await answer.json()).token) : refuse('fatal: the API said ' + answer.status))
  `
  const [program, file] = [join(directory, `${name}.cjs`), join(directory, name)]
  await writeFile(program, script)
  // By a shell: a first line with #! takes no path with a blank.
  await writeFile(file, `#!/bin/sh\nexec '${process.execPath}' '${program}' "$@"\n`)
  await chmod(file, 0o755)
}
