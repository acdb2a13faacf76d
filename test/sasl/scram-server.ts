/** The server's side of SCRAM-SHA-256(-PLUS), written from RFC 5802 on its own: it shares no code with what it tests. */
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto'

const mac = (key: Buffer, text: string) => createHmac('sha256', key).update(text).digest()
const xor = (a: Buffer, b: Buffer) => Buffer.from(a.map((byte, i) => byte ^ (b[i] ?? 0)))

export interface ScramServerOptions {
  password: string
  salt: Buffer
  iterations: number
  /** Data of the channel; without it the server cannot bind. */
  channel?: Buffer
}

export interface ScramServer {
  /** What the client said about channel binding: `n`, `y` or `p=…`. */
  flag: () => string
  first(clientFirst: string): string
  final(clientFinal: string): string
}

export function createScramServer({ password, salt, iterations, channel }: ScramServerOptions): ScramServer {
  const salted = pbkdf2Sync(password, salt, iterations, 32, 'sha256')
  const stored = createHash('sha256').update(mac(salted, 'Client Key')).digest()
  let header = ''
  let bare = ''
  let serverFirst = ''
  let nonce = ''
  return {
    flag: () => header.split(',')[0] ?? '',
    first(clientFirst) {
      const parts = /^((?:n|y|p=[a-z-]+),,)(n=[^,]*,r=([\x21-\x2b\x2d-\x7e]+))$/.exec(clientFirst)
      if (parts === null) throw new Error('malformed client-first-message')
      header = parts[1] ?? ''
      bare = parts[2] ?? ''
      nonce = `${parts[3]}${randomBytes(12).toString('base64')}`
      if (header.startsWith('y') && channel !== undefined) throw new Error('downgrade: we do offer channel binding')
      serverFirst = `r=${nonce},s=${salt.toString('base64')},i=${iterations}`
      return serverFirst
    },
    final(clientFinal) {
      const parts = /^(c=([^,]+),r=([^,]+)),p=([^,]+)$/.exec(clientFinal)
      if (parts === null) throw new Error('malformed client-final-message')
      const bound = header.startsWith('p=') ? (channel ?? Buffer.alloc(0)) : Buffer.alloc(0)
      const expected = Buffer.concat([Buffer.from(header), bound])
      if (!Buffer.from(parts[2] ?? '', 'base64').equals(expected)) throw new Error('channel binding does not match')
      if (parts[3] !== nonce) throw new Error('nonce does not match')
      const authMessage = `${bare},${serverFirst},${parts[1]}`
      const clientKey = xor(Buffer.from(parts[4] ?? '', 'base64'), mac(stored, authMessage))
      if (!createHash('sha256').update(clientKey).digest().equals(stored)) throw new Error('wrong proof')
      return `v=${mac(mac(salted, 'Server Key'), authMessage).toString('base64')}`
    },
  }
}
