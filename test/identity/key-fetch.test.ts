import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterEach, describe, expect, test } from 'vitest'
import { allowedUrl, getLimited, MAX_BODY_BYTES } from '../../src/identity/key-fetch.ts'
import { createVerifier } from '../../src/identity/verifier.ts'
import { createCa } from '../support/certificates.ts'
import { ISSUED, issuerConfig, json, registered, signingKey, startKeyServer } from '../support/tokens.ts'

const clean: (() => unknown)[] = []
afterEach(async () => {
  for (const undo of clean.splice(0).reverse()) await undo()
})

async function server(): Promise<Awaited<ReturnType<typeof startKeyServer>>> {
  const started = await startKeyServer([])
  clean.push(started.close)
  return started
}

const unlimited = () => ({ signal: new AbortController().signal, ca: undefined })

describe('invariant 12: limits of a key fetch', () => {
  test('a redirect is not followed', async () => {
    const target = await server()
    const source = await server()
    source.instead = (_request, response) => response.writeHead(302, { location: target.jwksUrl }).end()
    expect((await getLimited(source.jwksUrl, unlimited())).status).toBe(302)
    expect(target.requests).toEqual([])
  })

  test('64 KiB pass, one byte more does not, however it is sent', async () => {
    const source = await server()
    let bytes = MAX_BODY_BYTES
    source.instead = (_request, response) => response.writeHead(200).end(Buffer.alloc(bytes, ' '))
    expect((await (await getLimited(source.jwksUrl, unlimited())).arrayBuffer()).byteLength).toBe(MAX_BODY_BYTES)
    bytes += 1
    await expect(getLimited(source.jwksUrl, unlimited())).rejects.toThrow('more than 65536 bytes')
    source.instead = (_request, response) => {
      const more = () => {
        while (response.write(Buffer.alloc(1024))) if (response.destroyed) return
        response.once('drain', more)
      }
      more()
    }
    await expect(getLimited(source.jwksUrl, unlimited())).rejects.toThrow('more than 65536 bytes')
  })

  test('a compressed body, which could grow, is refused', async () => {
    const source = await server()
    source.instead = (_request, response) =>
      response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(Buffer.alloc(1_000_000)))
    await expect(getLimited(source.jwksUrl, unlimited())).rejects.toThrow('encoding gzip')
  })

  test('an answer that drips is cut off by the deadline', async () => {
    const source = await server()
    const abort = new AbortController()
    source.instead = (_request, response) => {
      response.write('{')
      abort.abort(new Error('no answer within 5 s'))
    }
    await expect(getLimited(source.jwksUrl, { signal: abort.signal, ca: undefined })).rejects.toThrow(
      'no answer within 5 s',
    )
  })

  test('a server that accepts and never begins TLS is given up after 2 s', async () => {
    const sockets = new Set<Socket>()
    const silent = createServer((socket) => sockets.add(socket.on('error', () => {})))
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
    clean.push(() => {
      for (const socket of sockets) socket.destroy()
      silent.close()
    })
    const address = silent.address()
    if (address === null || typeof address === 'string') throw new Error('no port')
    const began = performance.now()
    await expect(getLimited(`https://127.0.0.1:${address.port}/jwks`, unlimited())).rejects.toThrow('within 2 s')
    expect(performance.now() - began).toBeLessThan(4_000)
  })

  test.each([
    ['https://ci.acme.example/jwks', 'https://ci.acme.example', true],
    ['https://keys.acme.example/jwks', 'https://ci.acme.example', true],
    ['http://ci.acme.example/jwks', 'https://ci.acme.example', false],
    ['http://127.0.0.1:8080/jwks', 'https://ci.acme.example', false],
    ['http://127.0.0.1:8080/jwks', 'http://localhost:9090', true],
    ['http://[::1]:8080/jwks', 'http://127.0.0.1', true],
    ['http://127.0.0.1.evil.example/jwks', 'http://127.0.0.1', false],
    ['https://user:secret@ci.acme.example/jwks', 'https://ci.acme.example', false],
    ['file:///etc/passwd', 'http://127.0.0.1', false],
    ['not a url', 'http://127.0.0.1', false],
  ])('%s for issuer %s: %s', (url, issuer, allowed) => {
    expect(allowedUrl(url, issuer)).toBe(allowed)
  })
})

describe('an issuer behind a private CA', () => {
  test('is trusted with its CA, and only with it', async () => {
    const [ca, other] = [await createCa(), await createCa('another CA')]
    const key = signingKey('k1')
    const secure = await startKeyServer([key.jwk], await ca.issue({ cn: 'ci', ips: ['127.0.0.1'] }))
    clean.push(secure.close)
    const directory = await mkdtemp(join(tmpdir(), 'pgusher-ca-'))
    clean.push(() => rm(directory, { recursive: true }))
    await writeFile(join(directory, 'ca.pem'), ca.cert)
    await writeFile(join(directory, 'other.pem'), other.cert)
    const token = await key.sign({ ...registered(secure.url), sub: 'job' })
    const outcome = async (caFile: { ca?: string }) => {
      const config = issuerConfig('generic', { url: secure.url, algorithms: ['ES256'], ...caFile })
      const verifier = createVerifier({ ci: config }, { now: () => ISSUED * 1000 })
      clean.push(() => verifier.close())
      const result = await verifier.verify(token).then(
        ({ subject }) => subject,
        (error: { code: string }) => error.code,
      )
      return [result, verifier.status()['ci']?.failure]
    }
    expect(await outcome({ ca: join(directory, 'ca.pem') })).toEqual(['job', undefined])
    expect(await outcome({ ca: join(directory, 'other.pem') })).toEqual(['issuer_keys_unavailable', expect.any(String)])
    expect(await outcome({})).toEqual(['issuer_keys_unavailable', expect.stringMatching(/certificate/)])
    expect(await outcome({ ca: join(directory, 'missing.pem') })).toEqual([
      'issuer_keys_unavailable',
      expect.stringContaining('missing.pem'),
    ])
  })

  test('an answer that never ends is given up after 5 s, discovery and keys together', async () => {
    const source = await server()
    source.instead = (_request, response) => response.writeHead(200, { 'content-type': 'application/json' }).write('{')
    const verifier = createVerifier({ ci: issuerConfig('generic', { url: source.url }) })
    clean.push(() => verifier.close())
    const began = performance.now()
    await verifier.prime()
    expect(performance.now() - began).toBeLessThan(8_000)
    expect(verifier.status()['ci']?.failure).toContain('no answer within 5 s')
  })

  test.each([
    ['nobody listens', undefined, 'ECONNREFUSED'],
    ['there is no discovery document', 404, 'answered with status 404'],
    ['discovery redirects', 302, 'answered with status 302; redirects are not followed'],
  ])('the reason is told when %s', async (_what, status, reason) => {
    const source = await server()
    source.instead = (_request, response) => response.writeHead(status ?? 500, { location: source.url }).end()
    if (status === undefined) await source.close()
    const verifier = createVerifier({ ci: issuerConfig('generic', { url: source.url }) })
    clean.push(() => verifier.close())
    await verifier.prime()
    expect(verifier.status()['ci']?.failure).toContain(reason)
    expect(verifier.status()['ci']?.failure).toContain(source.url)
  })

  test('an answer that is not JSON is told as such', async () => {
    const source = await server()
    source.instead = (_request, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<html>')
    const config = issuerConfig('generic', { url: source.url, jwks_url: source.jwksUrl })
    const verifier = createVerifier({ ci: config })
    clean.push(() => verifier.close())
    await verifier.prime()
    expect(verifier.status()['ci']?.failure).toContain('is not JSON')
    source.instead = (_request, response) => json(response, { keys: 'none' })
    const other = createVerifier({ ci: config })
    clean.push(() => other.close())
    await other.prime()
    expect(other.status()['ci']?.failure).toContain('no list "keys"')
  })
})
