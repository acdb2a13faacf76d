/** Throw-away CAs for the demo and the tests: EC P-256, a few milliseconds a certificate. */
import { webcrypto } from 'node:crypto'
import { x509 } from '../../credentials/x509.ts'

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const DAY = 86_400_000

/** PEM texts. */
export interface IssuedCertificate {
  cert: string
  key: string
}

export interface CertificateOptions {
  cn: string
  dns?: readonly string[]
  ips?: readonly string[]
  /** True: for TLS clients; otherwise for servers. */
  client?: boolean
  /** One day around now without them. */
  notBefore?: Date
  notAfter?: Date
}

export interface ThrowAwayCa extends IssuedCertificate {
  issue(options: CertificateOptions): Promise<IssuedCertificate>
}

async function pemOfKey(key: webcrypto.CryptoKey): Promise<string> {
  return x509.PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')
}

function serial(): string {
  return Buffer.from(webcrypto.getRandomValues(new Uint8Array(16)))
    .toString('hex')
    .replace(/^./, '4')
}

export async function createCa(name = 'pgusher throw-away CA'): Promise<ThrowAwayCa> {
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify'])
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: [{ CN: [name] }],
    notBefore: new Date(Date.now() - DAY),
    notAfter: new Date(Date.now() + DAY),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  const issue = async (options: CertificateOptions): Promise<IssuedCertificate> => {
    const own = await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify'])
    const names = [
      ...(options.dns ?? []).map((value) => ({ type: 'dns' as const, value })),
      ...(options.ips ?? []).map((value) => ({ type: 'ip' as const, value })),
    ]
    const usage = options.client === true ? x509.ExtendedKeyUsage.clientAuth : x509.ExtendedKeyUsage.serverAuth
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serial(),
      subject: [{ CN: [options.cn] }],
      issuer: root.subjectName,
      notBefore: options.notBefore ?? new Date(Date.now() - DAY / 2),
      notAfter: options.notAfter ?? new Date(Date.now() + DAY / 2),
      signingKey: keys.privateKey,
      publicKey: own.publicKey,
      signingAlgorithm: ALGORITHM,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.ExtendedKeyUsageExtension([usage]),
        await x509.AuthorityKeyIdentifierExtension.create(keys.publicKey),
        ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : []),
      ],
    })
    return { cert: certificate.toString('pem'), key: await pemOfKey(own.privateKey) }
  }
  return { cert: root.toString('pem'), key: await pemOfKey(keys.privateKey), issue }
}
