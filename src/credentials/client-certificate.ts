/** pgusher as a small CA: a certificate of minutes for CN = role. Nothing is written to the catalog, so it works on standbys. */
import { createPrivateKey, randomBytes, webcrypto } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type pg from 'pg'
import type { ClientCertificateConfig } from '../config/schema.ts'
import { AccessError } from '../errors.ts'
import { connectAs, type MintTarget } from './admin-connection.ts'
import { transportFindings } from './check-transport.ts'
import { adminFailure, sqlstateOf } from './failure.ts'
import { inspectRole, requireSafeRole } from './group-role.ts'
import type { Finding, MintedCredential, Minter } from './minter.ts'
import { x509 } from './x509.ts'

const EC = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
/** For a server whose clock is behind ours. */
const BACKDATED = 60_000
/** How long a role that was found harmless stays so. */
const ROLE_CHECKED_FOR = 60_000

interface Signer {
  certificate: x509.X509Certificate
  key: webcrypto.CryptoKey
  algorithm: { name: string; hash: string; namedCurve?: string }
}

/** WebCrypto's names for the key that the operator has: RSA, or one of the curves that TLS knows. */
function signingAlgorithm(key: ReturnType<typeof createPrivateKey>): Signer['algorithm'] {
  if (key.asymmetricKeyType === 'rsa') return { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
  const curve = key.asymmetricKeyDetails?.namedCurve
  if (curve === 'prime256v1') return EC
  if (curve === 'secp384r1') return { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-384' }
  throw new Error('the key of credentials.ca is neither RSA nor EC P-256 or P-384')
}

/** @throws Error for a certificate and key that don't belong together or are not those of a CA. */
async function loadSigner(ca: ClientCertificateConfig['ca']): Promise<Signer> {
  const [certPem, keyPem] = await Promise.all([readFile(ca.cert, 'utf8'), readFile(ca.key, 'utf8')])
  const certificate = new x509.X509Certificate(certPem)
  if (certificate.getExtension(x509.BasicConstraintsExtension)?.ca !== true)
    throw new Error(`${ca.cert} is not the certificate of a CA`)
  const privateKey = createPrivateKey(keyPem)
  const algorithm = signingAlgorithm(privateKey)
  const pkcs8 = privateKey.export({ type: 'pkcs8', format: 'der' })
  const key = await webcrypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign'])
  return { certificate, key, algorithm }
}

async function issue(signer: Signer, role: string, validUntil: number): Promise<{ cert: string; key: string }> {
  const keys = await webcrypto.subtle.generateKey(EC, true, ['sign', 'verify'])
  const serial = randomBytes(16)
  // Positive and without a leading zero octet (RFC 5280, section 4.1.2.2).
  serial.writeUInt8(((serial[0] ?? 0) & 0x7f) | 0x40, 0)
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serial.toString('hex'),
    subject: [{ CN: [role] }],
    issuer: signer.certificate.subjectName,
    notBefore: new Date(Date.now() - BACKDATED),
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

export function createClientCertificateMinter(
  target: MintTarget,
  credentials: ClientCertificateConfig,
  now: () => number = Date.now,
): Minter {
  const { alias, config, dbname } = target
  /** Role -> until when it needs no further look; a promise, so that a herd looks once. */
  const checked = new Map<string, { until: number; safe: Promise<void> }>()

  const connect = async (role: string): Promise<pg.Client> => {
    const { cert, key } = await issue(await loadSigner(credentials.ca), role, now() + credentials.life)
    return connectAs(config, { user: role, certificate: { cert, key } }, dbname, 'pgusher')
  }
  const inspect = async (role: string): Promise<void> => {
    const client = await connect(role)
    try {
      await requireSafeRole(client, alias, role, { login: true })
    } finally {
      await client.end().catch(() => {})
    }
  }
  const requireSafe = (role: string): Promise<void> => {
    const known = checked.get(role)
    if (known !== undefined && known.until > now()) return known.safe
    const safe = inspect(role)
    checked.set(role, { until: now() + ROLE_CHECKED_FOR, safe })
    safe.catch(() => checked.delete(role))
    return safe
  }
  const checkRole = async (role: string): Promise<Finding[]> => {
    const subject = `database ${alias}, role ${role}`
    try {
      const client = await connect(role)
      try {
        const report = await inspectRole(client, role, { login: true })
        return [
          ...(await transportFindings(client, config, subject)),
          ...(report?.dangers ?? []).map(
            (danger): Finding => ({
              level: 'error',
              subject,
              message: `role "${role}" is not given to jobs: ${danger}`,
            }),
          ),
          ...(report?.cautions ?? []).map(
            (caution): Finding => ({ level: 'warning', subject, message: `role "${role}": ${caution}` }),
          ),
        ]
      } finally {
        await client.end().catch(() => {})
      }
    } catch (error) {
      const sqlstate = sqlstateOf(error)
      const message = `cannot log in with a certificate: ${error instanceof Error ? error.message : error}${sqlstate === undefined ? '' : ` (${sqlstate})`}`
      const hint =
        'ssl_ca_file must hold the certificate of credentials.ca, and pg_hba.conf a hostssl line with the method cert for this role'
      return [{ level: 'error', subject, message, hint }]
    }
  }

  return {
    linger: credentials.linger,
    async mint(_principal, grant, expiresAt): Promise<MintedCredential> {
      if (grant.replication) {
        throw new AccessError(
          'credential_failed',
          `replication on database "${alias}" needs credentials of kind ephemeral-role`,
        )
      }
      try {
        await requireSafe(grant.role)
        const validUntil = Math.min(expiresAt, now() + credentials.life)
        const pem = await issue(await loadSigner(credentials.ca), grant.role, validUntil)
        return {
          kind: 'client-certificate',
          login: grant.role,
          assumeRole: undefined,
          secret: { type: 'certificate', ...pem },
          validUntil,
        }
      } catch (error) {
        throw adminFailure(alias, `no certificate could be made for role "${grant.role}"`, error)
      }
    },
    // There is nothing in the catalog. A certificate's end does not end a session, and neither could we from here: pgusher ends it.
    async revoke() {},
    async sweep() {
      return { removed: [], failed: [] }
    },
    async check(roles) {
      return (await Promise.all(roles.map(checkRole))).flat()
    },
    async close() {},
  }
}
