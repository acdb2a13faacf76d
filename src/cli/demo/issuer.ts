/**
 * A CI system's OpenID Connect side for the demo and the tests: oidc-provider, a certified implementation, one instance for
 * each CI shape below a path of its own. Discovery, keys, signature, `iss`, `iat` and `exp` are the provider's; the other
 * claims are those that the CI system would put in.
 */
import { generateKeyPair, randomBytes } from 'node:crypto'
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { promisify } from 'node:util'
import type { Adapter, JWK, Provider } from 'oidc-provider'
import { type Claims, DEFAULT_CLAIMS, ISSUER_SHAPES, type IssuerShape } from './ci-claims.ts'

export * from './ci-claims.ts'

/** Any audience that the CI system would take; configured as the issuer's `audience`. */
export const DEMO_AUDIENCE = 'https://pgusher.acme.example'

const CLIENT_ID = 'ci-job'
/** As the CI systems have it, seconds. */
const LIFE: Readonly<Record<IssuerShape, number>> = { github: 300, gitlab: 3600, buildkite: 300, jenkins: 3600 }

export interface IssuerOptions {
  /** A loopback address; 127.0.0.1 without it. */
  host?: string
  /** Any free one without it. */
  port?: number
  /** PEM; http without it. */
  tls?: { cert: string; key: string }
}

export interface TokenOptions {
  lifeSeconds?: number
  audience?: string
}

export interface Issuer {
  url: string
  /** The `iss` of a shape's tokens, and the `url` of its entry in the configuration. */
  issuerUrl(shape: IssuerShape): string
  /** A token signed now. `claims` replace the shape's defaults; one that is undefined is left out. */
  token(shape: IssuerShape, claims?: Claims, options?: TokenOptions): Promise<string>
  /** A new key in place of the old one; for Jenkins under the same `kid`, as its plugin does it. */
  rotateKeys(shape: IssuerShape): Promise<void>
  /** While down, a shape answers everything with status 503. */
  setDown(shape: IssuerShape, down: boolean): void
  /** GETs so far. */
  requests: Readonly<Record<IssuerShape, { discovery: number; jwks: number }>>
  /** What a GitHub job finds in ACTIONS_ID_TOKEN_REQUEST_URL and ACTIONS_ID_TOKEN_REQUEST_TOKEN. */
  actions: { requestUrl: string; requestToken: string }
  close(): Promise<void>
}

interface Instance {
  /** Undefined until the shape is first used: making an RSA key takes a tenth of a second. */
  provider: Promise<Provider> | undefined
  generation: number
  down: boolean
}

/** @throws Error when the port is taken, or oidc-provider is not installed (it is a development dependency). */
export async function startIssuer({ host = '127.0.0.1', port = 0, tls }: IssuerOptions = {}): Promise<Issuer> {
  const handler: RequestListener = (request, response) => void serve(request, response)
  const server = tls === undefined ? createHttpServer(handler) : createHttpsServer(tls, handler)
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, resolve)
  })
  const { port: bound } = server.address() as AddressInfo
  const url = `${tls === undefined ? 'http' : 'https'}://${host.includes(':') ? `[${host}]` : host}:${bound}`
  const requestToken = randomBytes(24).toString('base64url')
  const requests = eachShape(() => ({ discovery: 0, jwks: 0 }))
  const instances = eachShape((): Instance => ({ provider: undefined, generation: 1, down: false }))
  const issuerUrl = (shape: IssuerShape) => `${url}/${shape}`

  function providerOf(shape: IssuerShape): Promise<Provider> {
    const instance = instances[shape]
    instance.provider ??= createProvider(issuerUrl(shape), shape, instance.generation)
    return instance.provider
  }

  async function token(shape: IssuerShape, claims: Claims = {}, options: TokenOptions = {}): Promise<string> {
    return issue(await providerOf(shape), DEFAULT_CLAIMS[shape](claims), {
      lifeSeconds: options.lifeSeconds ?? LIFE[shape],
      audience: options.audience ?? DEMO_AUDIENCE,
    })
  }

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? '/'
    const shape = ISSUER_SHAPES.find((name) => path.startsWith(`/${name}/`))
    if (shape === undefined) return end(response, 404)
    if (instances[shape].down) return end(response, 503)
    if (path.startsWith('/github/_token')) return serveToken(request, response)
    if (path === `/${shape}/.well-known/openid-configuration`) requests[shape].discovery += 1
    if (path === `/${shape}/jwks`) requests[shape].jwks += 1
    const provider = await providerOf(shape)
    // What connect-style routers do for a mounted application; oidc-provider reads both.
    Object.assign(request, { originalUrl: path, url: path.slice(`/${shape}`.length) })
    await provider.callback()(request, response)
  }

  async function serveToken(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.headers.authorization !== `bearer ${requestToken}`) return end(response, 401)
    const audience = new URL(request.url ?? '/', url).searchParams.get('audience')
    const value = await token('github', {}, { audience: audience ?? 'https://github.com/acme' })
    end(response, 200, JSON.stringify({ value }))
  }

  return {
    url,
    issuerUrl,
    token,
    async rotateKeys(shape) {
      instances[shape].generation += 1
      instances[shape].provider = undefined
      await providerOf(shape)
    },
    setDown(shape, down) {
      instances[shape].down = down
    },
    requests,
    actions: { requestUrl: `${url}/github/_token?api-version=2.0`, requestToken },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function eachShape<T>(make: () => T): Record<IssuerShape, T> {
  return { github: make(), gitlab: make(), buildkite: make(), jenkins: make() }
}

function end(response: ServerResponse, status: number, body = ''): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(body)
}

async function createProvider(issuer: string, shape: IssuerShape, generation: number): Promise<Provider> {
  const { default: OidcProvider } = await import('oidc-provider')
  const { privateKey } = await promisify(generateKeyPair)('rsa', { modulusLength: 2048 })
  const kid = shape === 'jenkins' ? 'pgproxy' : `${shape}-${generation}`
  const jwk = { ...privateKey.export({ format: 'jwk' }), kid, alg: 'RS256', use: 'sig' } as JWK
  const provider = new OidcProvider(issuer, {
    adapter: emptyAdapter,
    clients: [
      {
        client_id: CLIENT_ID,
        client_secret: randomBytes(24).toString('base64url'),
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
      },
    ],
    cookies: { keys: [randomBytes(24).toString('base64url')] },
    extraTokenClaims: (_context, token) => claimsOf.get(token),
    features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } },
    formats: {
      customizers: {
        jwt(_context, { extra = {} }, parts) {
          parts.header = { typ: 'JWT' }
          Object.assign(parts.payload, {
            client_id: undefined,
            nbf: shape === 'jenkins' ? undefined : parts.payload['iat'],
          })
          if (shape === 'jenkins') parts.payload['aud'] = [parts.payload['aud']]
          Object.assign(parts.payload, extra)
        },
      },
    },
    jwks: { keys: [jwk] },
    ttl: { ClientCredentials: 300 },
  })
  return provider
}

/** Claims for a token that is being made. */
const claimsOf = new WeakMap<object, Claims>()

/** A token of the provider's own making: its model sets `iss`, `iat`, `exp` and `jti` and signs. */
async function issue(
  provider: Provider,
  claims: Claims,
  { lifeSeconds, audience }: Required<TokenOptions>,
): Promise<string> {
  const client = await provider.Client.find(CLIENT_ID)
  if (client === undefined) throw new Error('oidc-provider has lost its client')
  const resourceServer = new provider.ResourceServer(audience, {
    scope: '',
    audience,
    accessTokenFormat: 'jwt',
    jwt: { sign: { alg: 'RS256' } },
  })
  const token = new provider.ClientCredentials({ client, resourceServer, expiresIn: lifeSeconds })
  claimsOf.set(token, claims)
  return token.save()
}

/** JWTs are not stored, so the provider has nothing to keep. */
function emptyAdapter(): Adapter {
  const nothing = () => Promise.resolve(undefined)
  return {
    upsert: nothing,
    find: nothing,
    findByUserCode: nothing,
    findByUid: nothing,
    consume: nothing,
    destroy: nothing,
    revokeByGrantId: nothing,
  }
}
