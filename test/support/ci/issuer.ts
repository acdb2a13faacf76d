/** One issuer for tokens of every CI system's shape: real signatures, discovery and keys, each system below a path of its own. */
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Claims } from '../../../src/cli/demo/ci-claims.ts'
import type { PresetName } from '../../../src/config/schema.ts'
import { json, signingKey } from '../tokens.ts'
import { CI_CLAIMS, type CiName, sampleOf } from './claims.ts'

export interface CiTokenOptions {
  claims?: Claims
  audience?: string | undefined
  lifeSeconds?: number | undefined
}

export interface CiIssuer {
  url: string
  /** The `iss` of that system's tokens. */
  issuerUrl(name: CiName): string
  /** The audience that tokens of that system have here. */
  audience(name: CiName): string
  /** What stands in the configuration's `issuers` for it. */
  issuerConfig(name: CiName): { preset: PresetName; url: string; audience: string }
  /** Signed now; a claim that is set to undefined is left out. */
  token(name: CiName, options?: CiTokenOptions): Promise<string>
  close(): Promise<void>
}

export async function startCiIssuer(): Promise<CiIssuer> {
  const key = signingKey('ci-1', 'RS256')
  const server = createServer((request, response) => {
    const [, name = '', ...rest] = (request.url ?? '').split('/')
    const path = rest.join('/')
    if (!Object.hasOwn(CI_CLAIMS, name)) return response.writeHead(404).end()
    if (path === 'jwks') return json(response, { keys: [key.jwk] })
    const issuer = `${url}/${name}`
    if (path === '.well-known/openid-configuration') return json(response, { issuer, jwks_uri: `${issuer}/jwks` })
    return response.writeHead(404).end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const issuerUrl = (name: CiName): string => `${url}/${name}`
  const audience = (name: CiName): string => sampleOf(name).issuer.audience
  return {
    url,
    issuerUrl,
    audience,
    issuerConfig: (name) => ({ preset: name, url: issuerUrl(name), audience: audience(name) }),
    token(name, options = {}) {
      return key.sign({ ...registered(name, issuerUrl(name), options), ...CI_CLAIMS[name], ...options.claims })
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** Those that the sample has, in its form: some issuers write the audience as a list, some have no `jti` or no `nbf`. */
function registered(name: CiName, iss: string, options: CiTokenOptions): Record<string, unknown> {
  const { claims, issuer } = sampleOf(name)
  const wanted = options.audience ?? issuer.audience
  const iat = Math.floor(Date.now() / 1000)
  const life = options.lifeSeconds ?? Number(claims['exp']) - Number(claims['iat'])
  return {
    iss,
    aud: Array.isArray(claims['aud']) ? claims['aud'].map((one) => (one === issuer.audience ? wanted : one)) : wanted,
    iat,
    exp: iat + life,
    ...('nbf' in claims ? { nbf: iat } : {}),
    ...('jti' in claims ? { jti: randomUUID() } : {}),
  }
}
