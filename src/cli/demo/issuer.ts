/**
 * A CI system's OpenID Connect side for the demo and the tests: oidc-provider, a certified implementation, one instance for
 * each CI shape below a path of its own. Discovery, keys, signature, `iss`, `iat` and `exp` are the provider's; the other
 * claims are those that the CI system would put in.
 */
import { generateKeyPair, randomBytes } from 'node:crypto'
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http'
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

/** The four providers behind one server. */
interface Providers {
  of(shape: IssuerShape): Promise<Provider>
  rotate(shape: IssuerShape): Promise<void>
  down: Record<IssuerShape, boolean>
  requests: Record<IssuerShape, { discovery: number; jwks: number }>
}

/** @throws Error when the port is taken, or oidc-provider is not installed (it is a development dependency). */
export async function startIssuer({ host = '127.0.0.1', port = 0, tls }: IssuerOptions = {}): Promise<Issuer> {
  const server = tls === undefined ? createHttpServer() : createHttpsServer(tls)
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, resolve)
  })
  const { port: bound } = server.address() as AddressInfo
  const url = `${tls === undefined ? 'http' : 'https'}://${host.includes(':') ? `[${host}]` : host}:${bound}`
  const issuerUrl = (shape: IssuerShape) => `${url}/${shape}`
  const providers = createProviders(issuerUrl)
  const actions = { requestUrl: `${url}/github/_token?api-version=2.0`, requestToken: randomText() }

  async function token(shape: IssuerShape, claims: Claims = {}, options: TokenOptions = {}): Promise<string> {
    return issue(await providers.of(shape), DEFAULT_CLAIMS[shape](claims), {
      lifeSeconds: options.lifeSeconds ?? LIFE[shape],
      audience: options.audience ?? DEMO_AUDIENCE,
    })
  }

  async function serveActionsToken(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.headers.authorization !== `bearer ${actions.requestToken}`) return end(response, 401)
    const audience = new URL(request.url ?? '/', url).searchParams.get('audience')
    const value = await token('github', {}, { audience: audience ?? 'https://github.com/acme' })
    end(response, 200, JSON.stringify({ value }))
  }

  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    const mine = request.url?.startsWith('/github/_token') === true && !providers.down.github
    const served = mine ? serveActionsToken(request, response) : serveProvider(providers, request, response)
    served.catch(() => end(response, 500))
  })
  return {
    url,
    issuerUrl,
    token,
    rotateKeys: providers.rotate,
    setDown(shape, down) {
      providers.down[shape] = down
    },
    requests: providers.requests,
    actions,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function createProviders(issuerUrl: (shape: IssuerShape) => string): Providers {
  const generations = eachShape(() => 1)
  const running: Partial<Record<IssuerShape, Promise<Provider>>> = {}
  const start = (shape: IssuerShape) => createProvider(issuerUrl(shape), shape, generations[shape])
  return {
    of(shape) {
      // Not before it is used: making an RSA key takes a tenth of a second.
      const provider = running[shape] ?? start(shape)
      running[shape] = provider
      return provider
    },
    async rotate(shape) {
      generations[shape] += 1
      running[shape] = start(shape)
      await running[shape]
    },
    down: eachShape(() => false),
    requests: eachShape(() => ({ discovery: 0, jwks: 0 })),
  }
}

async function serveProvider(providers: Providers, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = request.url ?? '/'
  const shape = ISSUER_SHAPES.find((name) => path.startsWith(`/${name}/`))
  if (shape === undefined) return end(response, 404)
  if (path === `/${shape}/.well-known/openid-configuration`) providers.requests[shape].discovery += 1
  if (path === `/${shape}/jwks`) providers.requests[shape].jwks += 1
  if (providers.down[shape]) return end(response, 503)
  const provider = await providers.of(shape)
  // What connect-style routers do for a mounted application; oidc-provider reads both.
  Object.assign(request, { originalUrl: path, url: path.slice(`/${shape}`.length) })
  await provider.callback()(request, response)
}

function eachShape<T>(make: () => T): Record<IssuerShape, T> {
  return { github: make(), gitlab: make(), buildkite: make(), jenkins: make() }
}

function randomText(): string {
  return randomBytes(24).toString('base64url')
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
        client_secret: randomText(),
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
      },
    ],
    cookies: { keys: [randomText()] },
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
