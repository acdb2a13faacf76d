/**
 * SCRAM-SHA-256 and SCRAM-SHA-256-PLUS as PostgreSQL speaks them: RFC 5802 with the hash of RFC 7677 and the channel
 * binding `tls-server-end-point` of RFC 5929. Pure steps; who sends the bytes is the caller's business.
 */
import { hash, pbkdf2Sync, randomBytes, timingSafeEqual } from 'node:crypto'

export interface ScramKeys {
  /** 32 bytes each. */
  clientKey: Buffer
  storedKey: Buffer
  serverKey: Buffer
}

/** What a login needs; the password itself is not among it. */
export interface ScramSecret {
  clientKey: Buffer
  serverKey: Buffer
  salt: Buffer
  iterations: number
}

/**
 * `not-offered`: we could bind to the channel, the server says that it cannot (gs2 flag `y`, so that a server which can
 * notices the downgrade). Undefined: we cannot (no TLS, or a certificate whose signature names no hash).
 */
export type ChannelBinding = { type: 'tls-server-end-point'; data: Buffer } | 'not-offered' | undefined

export interface ScramClientOptions {
  channelBinding?: ChannelBinding
  /** PostgreSQL takes the user from the StartupMessage and ignores this one; libpq leaves it empty too. */
  username?: string
  /** Printable ASCII without a comma. Random without it. */
  nonce?: string
}

/** The steps in their order; each may be called once. All @throw ScramError. */
export interface ScramClient {
  mechanism: 'SCRAM-SHA-256' | 'SCRAM-SHA-256-PLUS'
  initialResponse(): string
  /** server-first-message in, client-final-message out. */
  continue(serverFirst: string): string
  /** Returns only if the server proved that it knows the verifier. */
  finish(serverFinal: string): void
}

/** The other side broke the exchange or is not who it says. The message names no secret and quotes no bytes of the server. */
export class ScramError extends Error {
  override name = 'ScramError'
}

/** PostgreSQL's own messages are below 120 bytes; a hostile server decides how long a nonce is, and HMACs run over it. */
const MAX_SERVER_MESSAGE = 2048
const MAX_NONCE = 512

const NONCE = /^[\x21-\x2b\x2d-\x7e]+$/
const ITERATIONS = /^[1-9]\d{0,8}$/

/** Bytes of SHA-256's block, and of its result, which every key here is. */
const BLOCK = 64
const DIGEST = 32

const sha256 = (data: Buffer): Buffer => hash('sha256', data, 'buffer')

/**
 * RFC 2104 of two hashes: `createHmac` looks its algorithm up in OpenSSL each time and takes five times as long, which was a tenth of what
 * a login at PostgreSQL costs pgusher.
 */
function hmac(key: Buffer, text: string): Buffer {
  const message = Buffer.from(text)
  const inner = Buffer.alloc(BLOCK + message.length, 0x36)
  const outer = Buffer.alloc(BLOCK + DIGEST, 0x5c)
  if (key.length > BLOCK) throw new RangeError('a key that is longer than a block would have to be hashed first')
  for (const [index, byte] of key.entries()) {
    inner[index] = byte ^ 0x36
    outer[index] = byte ^ 0x5c
  }
  message.copy(inner, BLOCK)
  sha256(inner).copy(outer, BLOCK)
  return sha256(outer)
}

/**
 * RFC 5802, section 3.
 * @throws RangeError for a password outside printable ASCII: SASLprep is the identity there and not done here.
 */
export function deriveScramKeys(password: string, salt: Buffer, iterations: number): ScramKeys {
  if (!/^[\x20-\x7e]+$/.test(password)) throw new RangeError('a SCRAM password must be printable ASCII')
  const salted = pbkdf2Sync(password, salt, iterations, 32, 'sha256')
  const clientKey = hmac(salted, 'Client Key')
  return { clientKey, storedKey: sha256(clientKey), serverKey: hmac(salted, 'Server Key') }
}

/** As in pg_authid.rolpassword; goes into `CREATE ROLE … PASSWORD` in place of a password. */
export function formatVerifier(verifier: {
  iterations: number
  salt: Buffer
  storedKey: Buffer
  serverKey: Buffer
}): string {
  const { iterations, salt, storedKey, serverKey } = verifier
  return `SCRAM-SHA-256$${iterations}:${salt.toString('base64')}$${storedKey.toString('base64')}:${serverKey.toString('base64')}`
}

function gs2Header(binding: ChannelBinding): string {
  if (binding === undefined) return 'n,,'
  return binding === 'not-offered' ? 'y,,' : `p=${binding.type},,`
}

/** A message's attributes in order. Later attributes that nobody knows are extensions (RFC 5802, section 5.1) and stay unread. */
function attributes(message: string, names: readonly string[]): string[] {
  if (message.length > MAX_SERVER_MESSAGE) throw new ScramError('the server sent an overlong SCRAM message')
  const parts = message.split(',')
  if (parts[0]?.startsWith('m='))
    throw new ScramError('the server demands a SCRAM extension that pgusher does not know')
  const isAttribute = (part: string): boolean => /^[A-Za-z]=/.test(part)
  if (!parts.slice(names.length).every(isAttribute)) throw new ScramError('malformed SCRAM message: not an attribute')
  return names.map((name, index) => {
    const part = parts[index]
    if (!part?.startsWith(`${name}=`)) throw new ScramError(`malformed SCRAM message: attribute ${name} expected`)
    return part.slice(2)
  })
}

const NOT_MINTED =
  'not the one that was minted: the login was dropped or has another password, or it is not the server where it was minted'

/** Refuses parameters other than the minted ones: whoever sent them does not hold the verifier that was stored for this login. */
function checkServerFirst(serverFirst: string, secret: ScramSecret, clientNonce: string): string {
  const [nonce = '', salt = '', iterations = ''] = attributes(serverFirst, ['r', 's', 'i'])
  if (nonce.length > MAX_NONCE) throw new ScramError('the server sent an overlong SCRAM nonce')
  if (!NONCE.test(nonce)) throw new ScramError('the server sent a malformed SCRAM nonce')
  if (!nonce.startsWith(clientNonce) || nonce.length === clientNonce.length) {
    throw new ScramError('the SCRAM nonce of the server does not extend ours')
  }
  if (!ITERATIONS.test(iterations) || Number(iterations) !== secret.iterations) {
    throw new ScramError(`the SCRAM iteration count of the server is ${NOT_MINTED}`)
  }
  if (salt !== secret.salt.toString('base64')) {
    throw new ScramError(`the SCRAM salt of the server is ${NOT_MINTED}`)
  }
  return nonce
}

/** @throws RangeError for a username or nonce that cannot stand in a SCRAM message. */
export function createScramClient(secret: ScramSecret, options: ScramClientOptions = {}): ScramClient {
  const { channelBinding, username = '', nonce: clientNonce = randomBytes(18).toString('base64') } = options
  if (!NONCE.test(clientNonce)) throw new RangeError('a SCRAM nonce must be printable ASCII without a comma')
  if (!/^[\x20-\x7e]*$/.test(username)) throw new RangeError('a SCRAM username must be printable ASCII')
  const header = gs2Header(channelBinding)
  const clientFirstBare = `n=${username.replaceAll('=', '=3D').replaceAll(',', '=2C')},r=${clientNonce}`
  let step: 'initial' | 'first' | 'final' | 'done' = 'initial'
  let authMessage = ''

  const advance = (from: typeof step, to: typeof step): void => {
    if (step !== from) throw new ScramError('SCRAM messages came out of order')
    step = to
  }

  return {
    mechanism: typeof channelBinding === 'object' ? 'SCRAM-SHA-256-PLUS' : 'SCRAM-SHA-256',
    initialResponse() {
      advance('initial', 'first')
      return header + clientFirstBare
    },
    continue(serverFirst) {
      advance('first', 'final')
      const nonce = checkServerFirst(serverFirst, secret, clientNonce)
      const bound = typeof channelBinding === 'object' ? channelBinding.data : Buffer.alloc(0)
      const binding = Buffer.concat([Buffer.from(header), bound]).toString('base64')
      const withoutProof = `c=${binding},r=${nonce}`
      authMessage = `${clientFirstBare},${serverFirst},${withoutProof}`
      const proof = hmac(sha256(secret.clientKey), authMessage)
      for (let i = 0; i < proof.length; i++) proof[i] = (proof[i] ?? 0) ^ (secret.clientKey[i] ?? 0)
      return `${withoutProof},p=${proof.toString('base64')}`
    },
    finish(serverFinal) {
      advance('final', 'done')
      if (serverFinal.startsWith('e=')) throw new ScramError('the server refused the SCRAM exchange')
      const [signature = ''] = attributes(serverFinal, ['v'])
      // As text: base64 has several spellings for the same bytes, and a proof has one.
      const expected = Buffer.from(hmac(secret.serverKey, authMessage).toString('base64'))
      const got = Buffer.from(signature)
      if (got.length !== expected.length || !timingSafeEqual(got, expected)) {
        throw new ScramError('the server does not know the verifier of this login: its SCRAM signature is wrong')
      }
    },
  }
}
