/** One issuer for tokens of every CI system's shape: real signatures, discovery and keys, each system below a path of its own. */
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Claims } from '../../../src/cli/demo/ci-claims.ts'
import type { PresetName } from '../../../src/config/schema.ts'
import { AUDIENCE, json, signingKey } from '../tokens.ts'
import { CI_CLAIMS, type CiName } from './claims.ts'

/** Audiences that the CI system chooses, or puts in beside the one that was asked for. */
const FIXED_AUDIENCE: Partial<Record<CiName, string>> = {
  'azure-devops': 'api://AzureADTokenExchange',
  codefresh: 'https://g.codefresh.io',
  semaphore: 'https://acme.semaphoreci.com',
  spacelift: 'acme.app.spacelift.io',
}

/** Seconds. */
const LIFE: Partial<Record<CiName, number>> = { 'github-actions': 300, buildkite: 300, codefresh: 300, aws: 300 }

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
  const audience = (name: CiName): string => FIXED_AUDIENCE[name] ?? AUDIENCE
  return {
    url,
    issuerUrl,
    audience,
    issuerConfig: (name) => ({ preset: name, url: issuerUrl(name), audience: audience(name) }),
    token(name, options = {}) {
      const now = Math.floor(Date.now() / 1000)
      const aud = options.audience ?? audience(name)
      return key.sign({
        iss: issuerUrl(name),
        aud: audienceClaim(name, aud),
        iat: now,
        nbf: now,
        exp: now + (options.lifeSeconds ?? LIFE[name] ?? 3600),
        jti: randomUUID(),
        ...CI_CLAIMS[name],
        ...options.claims,
      })
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** Jenkins and Kubernetes write a list of one, Bitbucket puts its own beside it. */
function audienceClaim(name: CiName, audience: string): string | string[] {
  if (name === 'bitbucket') return ['ari:cloud:bitbucket::workspace/b3092e13-4f52-4a78-bda1-7393185cb03e', audience]
  return name === 'jenkins' || name === 'kubernetes' ? [audience] : audience
}
