/** Tokens that no proper issuer would sign, and an issuer's keys on a real server that can misbehave. */
import { generateKeyPairSync } from 'node:crypto'
import { createServer, type RequestListener, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { CompactSign, type JWK } from 'jose'
import type { IssuerConfig, PresetName } from '../../src/config/schema.ts'

export const AUDIENCE = 'https://pgusher.acme.example'

/** Seconds since the epoch: the time at which the samples of `src/cli/demo/ci-claims.ts` would be issued. */
export const ISSUED = 1_790_000_000

export interface SigningKey {
  kid: string
  /** As it stands in a JWK set. */
  jwk: JWK
  /** A compact JWS over any payload; `header` is merged over alg, kid and typ. */
  sign(payload: object | string | Uint8Array, header?: Record<string, unknown>): Promise<string>
}

export function signingKey(kid: string, alg: 'RS256' | 'ES256' = 'ES256'): SigningKey {
  const { publicKey, privateKey } =
    alg === 'RS256'
      ? generateKeyPairSync('rsa', { modulusLength: 2048 })
      : generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const jwk: JWK = { ...publicKey.export({ format: 'jwk' }), kid, alg, use: 'sig' }
  return {
    kid,
    jwk,
    sign(payload, header = {}) {
      const text = typeof payload === 'string' || payload instanceof Uint8Array ? payload : JSON.stringify(payload)
      return new CompactSign(typeof text === 'string' ? Buffer.from(text) : text)
        .setProtectedHeader({ alg, kid, typ: 'JWT', ...header })
        .sign(privateKey)
    },
  }
}

/** A token of any parts, signed by nobody; the signature is as long as one of RS256. */
export function forged(header: object | string, payload: object | string, signature = 'A'.repeat(342)): string {
  const part = (value: object | string) =>
    Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')
  return `${part(header)}.${part(payload)}.${signature}`
}

/** An entry of `issuers` as the schema gives it, with its defaults. */
export function issuerConfig(preset: PresetName, config: Partial<IssuerConfig> = {}): IssuerConfig {
  return {
    preset,
    audience: AUDIENCE,
    require: {},
    allow_events: [],
    claims: {},
    tenancy: [],
    explain: true,
    ...config,
  }
}

/** `iss`, `aud` and the times of a token that is good at `at` (seconds since the epoch). */
export function registered(iss: string, at = ISSUED, life = 300): Record<string, unknown> {
  return { iss, aud: AUDIENCE, iat: at, nbf: at, exp: at + life }
}

export interface KeyServer {
  url: string
  jwksUrl: string
  /** What `/jwks` answers; replace it to rotate. */
  keys: JWK[]
  /** Set: answers every request instead. */
  instead: RequestListener | undefined
  requests: string[]
  close(): Promise<void>
}

/** Discovery and keys on loopback, https where `tls` is given (PEM). */
export async function startKeyServer(keys: JWK[], tls?: { cert: string; key: string }): Promise<KeyServer> {
  const listener: RequestListener = (request, response) => {
    state.requests.push(request.url ?? '')
    if (state.instead !== undefined) return state.instead(request, response)
    if (request.url === '/jwks') return json(response, { keys: state.keys })
    if (request.url === '/.well-known/openid-configuration') {
      return json(response, { issuer: state.url, jwks_uri: state.jwksUrl })
    }
    response.writeHead(404).end()
  }
  const server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${(server.address() as AddressInfo).port}`
  const state: KeyServer = {
    url,
    jwksUrl: `${url}/jwks`,
    keys,
    instead: undefined,
    requests: [],
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
  return state
}

export function json(response: ServerResponse, body: unknown, status = 200): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}
