import { createHash, webcrypto, X509Certificate } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { TLSSocket } from 'node:tls'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { x509 } from '../../src/credentials/x509.ts'
import { deriveScramKeys, formatVerifier } from '../../src/sasl/scram.ts'
import { tlsServerEndPoint } from '../../src/upstream/channel-binding.ts'
import { connectUpstream } from '../../src/upstream/connect.ts'
import { eventually, postgresVersions, query, withClient } from '../support/postgres.ts'
import { databaseConfig, scramCredential } from './scripted-upstream.ts'

const RSA = { modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]) }

/** RFC 5929, section 4.1: the hash that signed the certificate; MD5 and SHA-1 give way to SHA-256. */
const ALGORITHMS = [
  { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-1', ...RSA, expected: 'sha256' },
  { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256', ...RSA, expected: 'sha256' },
  { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-384', ...RSA, expected: 'sha384' },
  { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-512', ...RSA, expected: 'sha512' },
  { name: 'RSA-PSS', hash: 'SHA-1', saltLength: 20, ...RSA, expected: 'sha256' },
  { name: 'RSA-PSS', hash: 'SHA-384', saltLength: 48, ...RSA, expected: 'sha384' },
  { name: 'ECDSA', hash: 'SHA-256', namedCurve: 'P-256', expected: 'sha256' },
  { name: 'ECDSA', hash: 'SHA-384', namedCurve: 'P-384', expected: 'sha384' },
  { name: 'ECDSA', hash: 'SHA-512', namedCurve: 'P-521', expected: 'sha512' },
  { name: 'Ed25519', expected: undefined },
]

async function selfSigned({ expected: _, ...signingAlgorithm }: (typeof ALGORITHMS)[number]) {
  const generated = await webcrypto.subtle.generateKey(signingAlgorithm, true, ['sign', 'verify'])
  if (!('privateKey' in generated)) throw new Error('no key pair')
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: ['pg'] }],
    signingAlgorithm,
    keys: generated,
  })
  const key = await webcrypto.subtle.exportKey('pkcs8', generated.privateKey)
  return { cert: certificate.toString('pem'), key: x509.PemConverter.encode(key, 'PRIVATE KEY') }
}

const derOf = (pem: string): Buffer => new X509Certificate(pem).raw

test.each(ALGORITHMS)('$name with $hash binds by $expected', async (algorithm) => {
  const der = derOf((await selfSigned(algorithm)).cert)
  const { expected } = algorithm
  expect(tlsServerEndPoint(der)).toEqual(expected && createHash(expected).update(der).digest())
})

test('bytes that are no certificate bind to nothing', async () => {
  const der = derOf(
    (await selfSigned({ name: 'ECDSA', hash: 'SHA-256', namedCurve: 'P-256', expected: 'sha256' })).cert,
  )
  for (let length = 0; length < der.length - 80; length++)
    expect(tlsServerEndPoint(der.subarray(0, length))).toBeUndefined()
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => void tlsServerEndPoint(Buffer.from(bytes))))
})

const newest = postgresVersions().filter(({ version }) => version === 18)

describe.each(newest)('PostgreSQL $version computes the same', ({ start }) => {
  test('for certificates of each kind; where it cannot, the login goes without', async () => {
    const tls = await Promise.all(ALGORITHMS.filter(({ hash }) => hash !== 'SHA-1').map(selfSigned))
    const [first] = tls
    if (first === undefined) throw new Error('no certificate')
    const server = await start({ tls: first })
    const credential = scramCredential('pgu_job', 'a password of the job')
    const { password, salt, iterations } = credential.secret
    const verifier = formatVerifier({ ...deriveScramKeys(password, salt, iterations), salt, iterations })
    await withClient(server.superuserUrl, (client) => client.query(`CREATE ROLE pgu_job LOGIN PASSWORD '${verifier}'`))
    const target = {
      alias: 'shop',
      config: databaseConfig(server.port, { tls: { mode: 'require' } }),
      dbname: 'postgres',
    }
    for (const { cert, key } of tls) {
      await writeFile(join(server.dataDir, 'server.crt'), cert)
      await writeFile(join(server.dataDir, 'server.key'), key)
      await query(server.superuserUrl, 'SELECT pg_reload_conf()')
      await eventually(async () => {
        const { socket } = await connectUpstream(target, credential, new Map())
        const presented = socket instanceof TLSSocket ? socket.getPeerCertificate().raw : undefined
        socket.destroy()
        return presented?.equals(derOf(cert)) ?? false
      })
    }
    await server.stop()
  })
})
