/** The channel binding data `tls-server-end-point` of RFC 5929, section 4.1: a hash of the server's certificate. */
import { createHash } from 'node:crypto'

/** By the DER bytes of the signature algorithm's OID. MD5 and SHA-1 become SHA-256, as the RFC demands. */
const SIGNATURE_HASHES: Readonly<Record<string, string>> = {
  '2a864886f70d010104': 'sha256', // md5WithRSAEncryption
  '2a864886f70d010105': 'sha256', // sha1WithRSAEncryption
  '2a864886f70d01010b': 'sha256',
  '2a864886f70d01010c': 'sha384',
  '2a864886f70d01010d': 'sha512',
  '2a864886f70d01010e': 'sha224',
  '2a8648ce3d0401': 'sha256', // ecdsa-with-SHA1
  '2a8648ce3d040301': 'sha224',
  '2a8648ce3d040302': 'sha256',
  '2a8648ce3d040303': 'sha384',
  '2a8648ce3d040304': 'sha512',
}

const RSASSA_PSS = '2a864886f70d01010a'

const DIGESTS: Readonly<Record<string, string>> = {
  '2b0e03021a': 'sha256', // SHA-1
  '608648016503040204': 'sha224',
  '608648016503040201': 'sha256',
  '608648016503040202': 'sha384',
  '608648016503040203': 'sha512',
}

const SEQUENCE = 0x30
const OBJECT_IDENTIFIER = 0x06
const CONTEXT_0 = 0xa0

/** One DER element: its tag, its content and what follows it. Undefined where the bytes are not DER. */
function element(der: Buffer): { tag: number; content: Buffer; after: Buffer } | undefined {
  const [tag, first] = der
  if (tag === undefined || first === undefined) return undefined
  const lengthBytes = first < 0x80 ? 0 : first & 0x7f
  if (lengthBytes > 3 || first === 0x80 || der.length < 2 + lengthBytes) return undefined
  const length = lengthBytes === 0 ? first : der.readUIntBE(2, lengthBytes)
  const start = 2 + lengthBytes
  if (der.length < start + length) return undefined
  return { tag, content: der.subarray(start, start + length), after: der.subarray(start + length) }
}

function content(der: Buffer, tag: number): Buffer | undefined {
  const found = element(der)
  return found?.tag === tag ? found.content : undefined
}

/** Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OID, parameters }, signature } (RFC 5280, 4.1). */
function signatureHash(certificate: Buffer): string | undefined {
  const tbs = element(content(certificate, SEQUENCE) ?? Buffer.alloc(0))
  const algorithm = content(tbs?.after ?? Buffer.alloc(0), SEQUENCE)
  const oid = element(algorithm ?? Buffer.alloc(0))
  if (oid?.tag !== OBJECT_IDENTIFIER) return undefined
  const name = oid.content.toString('hex')
  if (name !== RSASSA_PSS) return SIGNATURE_HASHES[name]
  // RSASSA-PSS-params ::= SEQUENCE { [0] hashAlgorithm DEFAULT sha1, … } (RFC 4055, 3.1)
  const parameters = content(oid.after, SEQUENCE)
  if (parameters === undefined) return undefined
  const hashAlgorithm = content(parameters, CONTEXT_0)
  if (hashAlgorithm === undefined) return 'sha256'
  const hash = content(content(hashAlgorithm, SEQUENCE) ?? Buffer.alloc(0), OBJECT_IDENTIFIER)
  return DIGESTS[hash?.toString('hex') ?? '']
}

/**
 * @param certificate DER
 * @returns undefined where the signature algorithm names no single hash (Ed25519): PostgreSQL cannot bind to such a channel either.
 */
export function tlsServerEndPoint(certificate: Buffer): Buffer | undefined {
  const hash = signatureHash(certificate)
  return hash === undefined ? undefined : createHash(hash).update(certificate).digest()
}
