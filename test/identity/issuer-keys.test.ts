import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CompactSign } from 'jose'
import { afterEach, describe, expect, test } from 'vitest'
import type { IssuerConfig } from '../../src/config/schema.ts'
import { createVerifier, type Verifier, type VerifierOptions } from '../../src/identity/verifier.ts'
import {
  forged,
  ISSUED,
  issuerConfig,
  type KeyServer,
  registered,
  type SigningKey,
  signingKey,
  startKeyServer,
} from '../support/tokens.ts'

const SECOND = 1_000
const MINUTE = 60 * SECOND
const ALGORITHMS: IssuerConfig['algorithms'] = ['ES256']
const clean: (() => unknown)[] = []
afterEach(async () => {
  for (const undo of clean.splice(0).reverse()) await undo()
})

let now = ISSUED * 1000
let count = 0
const logged: string[] = []

async function keyServer(...keys: SigningKey[]): Promise<KeyServer> {
  const server = await startKeyServer(keys.map(({ jwk }) => jwk))
  clean.push(server.close)
  return server
}

function verifierFor(server: KeyServer, config: Partial<IssuerConfig> = {}, options: VerifierOptions = {}): Verifier {
  now = ISSUED * 1000
  logged.length = 0
  const issuer = issuerConfig('generic', {
    url: server.url,
    algorithms: ALGORITHMS,
    max_token_age: 240 * MINUTE,
    max_token_life: 240 * MINUTE,
    ...config,
  })
  const log: VerifierOptions['log'] = (_level, message, details) =>
    logged.push(`${message} ${String(details['error'])}`)
  const verifier = createVerifier({ ci: issuer }, { now: () => now, log, ...options })
  clean.push(() => verifier.close())
  return verifier
}

/** A new token each time: the same one would come from the cache. */
function token(server: KeyServer, key: SigningKey): Promise<string> {
  count += 1
  return key.sign({ ...registered(server.url, ISSUED, 200 * 60), sub: `job-${count}` })
}

const code = (verifier: Verifier, text: string) =>
  verifier.verify(text).then(
    () => 'verified',
    (error: { code?: string }) => error.code ?? String(error),
  )

const jwksFetches = (server: KeyServer) => server.requests.filter((path) => path === '/jwks').length

describe('invariant 14: when keys are fetched', () => {
  test('a herd that arrives together causes one fetch', async () => {
    const key = signingKey('k1')
    const server = await keyServer(key)
    const verifier = verifierFor(server)
    const tokens = await Promise.all(Array.from({ length: 100 }, () => token(server, key)))
    expect(new Set(await Promise.all(tokens.map((text) => code(verifier, text))))).toEqual(new Set(['verified']))
    expect(server.requests).toEqual(['/.well-known/openid-configuration', '/jwks'])
  })

  test('10,000 random kids cause one fetch, evict nothing, and a good token passes in between', async () => {
    const key = signingKey('k1')
    const server = await keyServer(key)
    const verifier = verifierFor(server)
    expect(await code(verifier, await token(server, key))).toBe('verified')
    now += 31 * SECOND
    for (let round = 0; round < 10; round += 1) {
      const claims = registered(server.url)
      const random = Array.from({ length: 1000 }, (_, at) =>
        code(verifier, forged({ alg: 'ES256', kid: `${round}-${at}` }, claims)),
      )
      expect(new Set(await Promise.all(random))).toEqual(new Set(['signature_invalid']))
      expect(await code(verifier, await token(server, key))).toBe('verified')
    }
    expect(jwksFetches(server)).toBe(2)
  })

  test('a rotated key with a new kid is taken at once, 30 s after the last fetch', async () => {
    const [old, next] = [signingKey('k1'), signingKey('k2')]
    const server = await keyServer(old)
    const verifier = verifierFor(server)
    expect(await code(verifier, await token(server, old))).toBe('verified')
    server.keys = [old.jwk, next.jwk]
    now += 29 * SECOND
    expect(await code(verifier, await token(server, next))).toBe('signature_invalid')
    expect(jwksFetches(server)).toBe(1)
    now += SECOND
    expect(await code(verifier, await token(server, next))).toBe('verified')
    expect(await code(verifier, await token(server, old))).toBe('verified')
    expect(jwksFetches(server)).toBe(2)
  })

  test('a rotated key under the same kid, as Jenkins makes it, is taken after a bad signature', async () => {
    const [old, next] = [signingKey('pgproxy'), signingKey('pgproxy')]
    const server = await keyServer(old)
    const verifier = verifierFor(server)
    const early = await token(server, old)
    expect(await code(verifier, early)).toBe('verified')
    server.keys = [next.jwk]
    now += 30 * SECOND
    expect(await code(verifier, await token(server, next))).toBe('verified')
    expect(jwksFetches(server)).toBe(2)
    // The withdrawn key takes the tokens with it that it had signed, also those already seen.
    expect(await code(verifier, early)).toBe('signature_invalid')
  })

  test('bad signatures cause at most one fetch in 30 s', async () => {
    const key = signingKey('k1')
    const server = await keyServer(key)
    const verifier = verifierFor(server)
    for (let at = 0; at < 50; at += 1) {
      expect(await code(verifier, await token(server, signingKey('k1')))).toBe('signature_invalid')
    }
    expect(jwksFetches(server)).toBe(1)
    now += 30 * SECOND
    await code(verifier, await token(server, signingKey('k1')))
    await code(verifier, await token(server, signingKey('k1')))
    expect(jwksFetches(server)).toBe(2)
  })

  test('keys are refreshed after 5 minutes, also when every token comes from the cache', async () => {
    const key = signingKey('k1')
    const server = await keyServer(key)
    const verifier = verifierFor(server)
    const text = await token(server, key)
    await verifier.verify(text)
    now += 5 * MINUTE - 1
    await verifier.verify(text)
    expect(jwksFetches(server)).toBe(1)
    now += 1
    await verifier.verify(text)
    expect(jwksFetches(server)).toBe(2)
  })

  test('while the issuer is down its keys serve for an hour, and it is asked every 30 s', async () => {
    const key = signingKey('k1')
    const server = await keyServer(key)
    const verifier = verifierFor(server)
    expect(await code(verifier, await token(server, key))).toBe('verified')
    server.instead = (_request, response) => response.writeHead(503).end()
    now += 10 * MINUTE
    for (let at = 0; at < 20; at += 1) expect(await code(verifier, await token(server, key))).toBe('verified')
    expect(server.requests).toHaveLength(3)
    expect(verifier.status()['ci']).toMatchObject({ usable: true, keys: 1, failure: expect.stringContaining('status') })
    now += 50 * MINUTE
    expect(await code(verifier, await token(server, key))).toBe('verified')
    now += 1
    expect(await code(verifier, await token(server, key))).toBe('issuer_keys_unavailable')
    expect(verifier.status()['ci']).toMatchObject({ usable: false })
    server.instead = undefined
    now += 30 * SECOND
    expect(await code(verifier, await token(server, key))).toBe('verified')
    expect(verifier.status()['ci']).toMatchObject({ usable: true, failure: undefined })
  })

  test('once the issuer is known to be down, nobody waits for the next attempt', async () => {
    const key = signingKey('k1')
    const server = await keyServer(key)
    const verifier = verifierFor(server)
    expect(await code(verifier, await token(server, key))).toBe('verified')
    server.instead = (_request, response) => response.writeHead(503).end()
    now += 6 * MINUTE
    expect(await code(verifier, await token(server, key))).toBe('verified')
    const failure = verifier.status()['ci']?.failure
    server.instead = () => {}
    now += MINUTE
    expect(await code(verifier, await token(server, key))).toBe('verified')
    // The attempt under way has not ended: it would have failed with another reason.
    expect(verifier.status()['ci']?.failure).toBe(failure)
  })

  test('keys in an answer that is no success are not taken', async () => {
    const key = signingKey('k1')
    const server = await keyServer(key)
    const verifier = verifierFor(server, { jwks_url: server.jwksUrl })
    for (const status of [500, 404, 302, 203]) {
      server.instead = (_request, response) => response.writeHead(status).end(JSON.stringify({ keys: server.keys }))
      expect(await code(verifier, await token(server, key))).toBe('issuer_keys_unavailable')
      expect(verifier.status()['ci']?.failure).toContain(`status ${status}`)
      now += 30 * SECOND
    }
  })

  test('an issuer that never answered: one attempt in 30 s, then it recovers', async () => {
    const key = signingKey('k1')
    const server = await keyServer(key)
    server.instead = (request) => request.socket.destroy()
    const verifier = verifierFor(server)
    for (let at = 0; at < 20; at += 1) {
      await expect(verifier.verify(await token(server, key))).rejects.toMatchObject({
        code: 'issuer_keys_unavailable',
        sqlstate: '57P03',
        message: "the keys of the token's issuer cannot be fetched at the moment",
      })
    }
    expect(server.requests).toHaveLength(1)
    expect(logged).toHaveLength(1)
    server.instead = undefined
    now += 30 * SECOND
    expect(await code(verifier, await token(server, key))).toBe('verified')
  })

  test('an empty set, a set of unusable keys and a page that is no set replace nothing', async () => {
    const key = signingKey('k1')
    const { d: _, ...encryption } = { ...key.jwk, use: 'enc' }
    const server = await keyServer(key)
    const verifier = verifierFor(server)
    expect(await code(verifier, await token(server, key))).toBe('verified')
    for (const keys of [[], [encryption], [{ kty: 'oct', k: 'c2VjcmV0', kid: 'k1', alg: 'HS256' }]]) {
      server.keys = keys
      now += 6 * MINUTE
      await code(verifier, await token(server, key))
      expect(await code(verifier, await token(server, key))).toBe('verified')
      expect(verifier.status()['ci']?.failure).toContain('JWK set')
    }
  })

  test('a clock that is set back does not freeze the keys', async () => {
    const [old, next] = [signingKey('k1'), signingKey('k2')]
    const server = await keyServer(old)
    const verifier = verifierFor(server)
    now += 60 * MINUTE
    expect(await code(verifier, await token(server, old))).toBe('verified')
    server.keys = [next.jwk]
    now -= 59 * MINUTE
    expect(await code(verifier, await token(server, next))).toBe('verified')
  })
})

describe('invariant 11: which key', () => {
  test("invariant 12: a kid of one issuer never serves another's token", async () => {
    const [mine, other] = [signingKey('shared-kid'), signingKey('shared-kid')]
    const [one, two] = [await keyServer(mine), await keyServer(other)]
    const issuers = {
      one: issuerConfig('generic', { url: one.url, algorithms: ALGORITHMS, max_token_life: 240 * MINUTE }),
      two: issuerConfig('generic', { url: two.url, algorithms: ALGORITHMS, max_token_life: 240 * MINUTE }),
    }
    const verifier = createVerifier(issuers, { now: () => ISSUED * 1000 })
    clean.push(() => verifier.close())
    expect(await code(verifier, await token(one, mine))).toBe('verified')
    expect(await code(verifier, await token(two, mine))).toBe('signature_invalid')
    expect(await code(verifier, await token(two, other))).toBe('verified')
  })

  test('without a kid two keys that fit are one too many', async () => {
    const [one, two] = [signingKey('k1'), signingKey('k2')]
    const server = await keyServer(one, two)
    const verifier = verifierFor(server)
    const claims = { ...registered(server.url), sub: 'job' }
    expect(await code(verifier, await one.sign(claims, { kid: undefined }))).toBe('signature_invalid')
    expect(await code(verifier, await one.sign(claims))).toBe('verified')
  })

  test.each([
    ['use', { use: 'enc' }],
    ['alg', { alg: 'ES384' }],
    ['key_ops', { key_ops: ['sign'] }],
    ['a kid over 256 bytes', { kid: 'k'.repeat(257) }],
  ])('a key whose %s says otherwise is not used', async (_what, members) => {
    const key = signingKey('k1')
    const spare = signingKey('spare')
    const server = await keyServer(spare)
    server.keys = [{ ...key.jwk, ...members }, spare.jwk]
    expect(await code(verifierFor(server), await token(server, key))).toBe('signature_invalid')
  })

  test('a key that names no algorithm serves only the accepted ones', async () => {
    const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const server = await keyServer()
    server.keys = [{ ...publicKey.export({ format: 'jwk' }), kid: 'k1' }]
    const verifier = verifierFor(server, { algorithms: ['RS256'] })
    const signed = (alg: string) =>
      new CompactSign(Buffer.from(JSON.stringify({ ...registered(server.url), sub: alg })))
        .setProtectedHeader({ alg, kid: 'k1' })
        .sign(privateKey)
    expect(await code(verifier, await signed('PS256'))).toBe('signature_invalid')
    expect(await code(verifier, await signed('RS512'))).toBe('signature_invalid')
    expect(await code(verifier, await signed('RS256'))).toBe('verified')
  })

  test('an RSA key verifies RS256 only where RS256 is accepted', async () => {
    const key = signingKey('k1', 'RS256')
    const server = await keyServer(key, signingKey('spare'))
    expect(await code(verifierFor(server), await token(server, key))).toBe('signature_invalid')
    expect(await code(verifierFor(server, { algorithms: ['RS256'] }), await token(server, key))).toBe('verified')
  })
})

describe('where keys come from', () => {
  test('jwks_url: no discovery', async () => {
    const key = signingKey('k1')
    const server = await keyServer(key)
    expect(await code(verifierFor(server, { jwks_url: server.jwksUrl }), await token(server, key))).toBe('verified')
    expect(server.requests).toEqual(['/jwks'])
  })

  test.each([
    ['another issuer', (url: string) => ({ issuer: 'https://evil.example', jwks_uri: `${url}/jwks` }), 'issuer'],
    [
      'the issuer with a slash more',
      (url: string) => ({ issuer: `${url}/`, jwks_uri: `${url}/jwks` }),
      'another issuer',
    ],
    ['no jwks_uri', (url: string) => ({ issuer: url }), 'no jwks_uri'],
    [
      'keys over plain http elsewhere',
      (url: string) => ({ issuer: url, jwks_uri: 'http://keys.example/jwks' }),
      'https only',
    ],
    ['keys in a file', (url: string) => ({ issuer: url, jwks_uri: 'file:///etc/passwd' }), 'https only'],
  ])('a discovery document that names %s is refused', async (_what, document, reason) => {
    const key = signingKey('k1')
    const server = await keyServer(key)
    server.instead = (_request, response) =>
      response.setHeader('content-type', 'application/json').end(JSON.stringify(document(server.url)))
    const verifier = verifierFor(server)
    expect(await code(verifier, await token(server, key))).toBe('issuer_keys_unavailable')
    expect(verifier.status()['ci']?.failure).toContain(reason)
    expect(server.requests).toHaveLength(1)
  })

  test('jwks_file: read again when it changes; a broken file changes nothing', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'pgusher-keys-'))
    clean.push(() => rm(directory, { recursive: true }))
    const path = join(directory, 'jwks.json')
    let changes = 0
    const replace = async (text: string) => {
      // Of another size each time: within the few milliseconds of a file system's clock the same inode may come back.
      await writeFile(`${path}.new`, text + ' '.repeat(++changes))
      await rename(`${path}.new`, path)
      now += 2 * SECOND
    }
    const [old, next] = [signingKey('k1'), signingKey('k2')]
    const server = await keyServer()
    const verifier = verifierFor(server, { jwks_file: path })
    await replace(JSON.stringify({ keys: [old.jwk] }))
    expect(await code(verifier, await token(server, old))).toBe('verified')
    await replace(JSON.stringify({ keys: [next.jwk] }))
    expect(await code(verifier, await token(server, next))).toBe('verified')
    expect(await code(verifier, await token(server, old))).toBe('signature_invalid')
    for (const broken of ['{"keys": [', '{"keys": []}']) {
      await replace(broken)
      expect(await code(verifier, await token(server, next))).toBe('verified')
      expect(await code(verifier, await token(server, next))).toBe('verified')
      expect(verifier.status()['ci']?.failure).toBeDefined()
    }
    await replace(JSON.stringify({ keys: [old.jwk] }))
    expect(await code(verifier, await token(server, old))).toBe('verified')
    expect(server.requests).toEqual([])
  })
})

describe('reload', () => {
  test('keys whose source did not change are kept, whichever verifier is closed first', async () => {
    const key = signingKey('k1')
    const server = await keyServer(key)
    const first = verifierFor(server)
    await first.prime()
    const second = verifierFor(server, { audience: 'https://other.example' }, { previous: first })
    const third = verifierFor(server, { jwks_url: server.jwksUrl }, { previous: second })
    expect(await code(second, await token(server, key))).toBe('audience_mismatch')
    expect(jwksFetches(server)).toBe(1)
    expect(await code(third, await token(server, key))).toBe('verified')
    expect(jwksFetches(server)).toBe(2)
    second.close()
    now += 6 * MINUTE
    expect(await code(first, await token(server, key))).toBe('verified')
    expect(jwksFetches(server)).toBe(3)
  })
})
