/** Client certificates by a CA that PostgreSQL trusts. */
import { createPrivateKey, createPublicKey, type KeyObject, randomBytes, webcrypto } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { x509 } from './x509.ts'

const EC = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
/** For a server whose clock is behind ours. */
const BACKDATED = 60_000

/** PEM files. */
export interface CaFiles {
  cert: string
  key: string
}

interface Signer {
  certificate: x509.X509Certificate
  key: webcrypto.CryptoKey
  algorithm: { name: string; hash: string; namedCurve?: string }
}

/** WebCrypto's names for the key that the operator has. @throws Error for other kinds. */
function signingAlgorithm(key: KeyObject): Signer['algorithm'] {
  if (key.asymmetricKeyType === 'rsa') return { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
  const curve = key.asymmetricKeyDetails?.namedCurve
  if (curve === 'prime256v1') return EC
  if (curve === 'secp384r1') return { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' }
  throw new Error('the key of credentials.ca is neither RSA nor EC P-256 or P-384')
}

/** Read for every certificate, so that a rotated CA counts at once. @throws Error for what is no CA or does not belong together. */
async function loadSigner(ca: CaFiles): Promise<Signer> {
  const [certPem, keyPem] = await Promise.all([readFile(ca.cert, 'utf8'), readFile(ca.key, 'utf8')])
  const certificate = new x509.X509Certificate(certPem)
  const privateKey = createPrivateKey(keyPem)
  if (certificate.getExtension(x509.BasicConstraintsExtension)?.ca !== true) {
    throw new Error('the certificate of credentials.ca is not one of a CA')
  }
  if (!certificate.publicKey.equal(new x509.PublicKey(publicPartOf(privateKey)))) {
    throw new Error('certificate and key of credentials.ca do not belong together')
  }
  const algorithm = signingAlgorithm(privateKey)
  const pkcs8 = privateKey.export({ type: 'pkcs8', format: 'der' })
  const key = await webcrypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign'])
  return { certificate, key, algorithm }
}

function publicPartOf(key: KeyObject): Buffer {
  return createPublicKey(key).export({ type: 'spki', format: 'der' })
}

/** Positive and without a leading zero octet (RFC 5280, section 4.1.2.2). */
function randomSerial(): string {
  const serial = randomBytes(16)
  serial.writeUInt8((serial.readUInt8(0) & 0x7f) | 0x40, 0)
  return serial.toString('hex')
}

/** A new key and its certificate for CN = `role`, as PEM texts. @param validUntil milliseconds since the epoch */
export async function issueClientCertificate(
  ca: CaFiles,
  role: string,
  now: number,
  validUntil: number,
): Promise<{ cert: string; key: string }> {
  const signer = await loadSigner(ca)
  const keys = await webcrypto.subtle.generateKey(EC, true, ['sign', 'verify'])
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: randomSerial(),
    // As a bare string the library would parse it: of `x "postgres"` only what stands in quotes would remain.
    subject: new x509.Name([{ CN: [{ utf8String: role }] }]),
    issuer: signer.certificate.subjectName,
    notBefore: new Date(now - BACKDATED),
    notAfter: new Date(validUntil),
    publicKey: keys.publicKey,
    signingKey: signer.key,
    signingAlgorithm: signer.algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth], true),
      await x509.AuthorityKeyIdentifierExtension.create(signer.certificate.publicKey),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  const pkcs8 = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)
  return { cert: certificate.toString('pem'), key: x509.PemConverter.encode(pkcs8, 'PRIVATE KEY') }
}
