/**
 * The backend messages of a login. Each frame's form is checked here before pg-protocol reads it: its reader runs past a
 * missing terminator into whatever follows, and an ErrorResponse that is cut short makes it loop for ever (tried).
 */
import {
  type BackendMessage,
  DatabaseError,
  ParameterStatusMessage,
  ReadyForQueryMessage,
} from 'pg-protocol/dist/messages.js'
import { Parser } from 'pg-protocol/dist/parser.js'
import { ownBytes } from '../wire/own-bytes.ts'
import { UpstreamUnusable } from './failure.ts'
import type { Frame } from './frame-reader.ts'

export type LoginMessage =
  | { kind: 'authentication-ok' }
  | { kind: 'sasl'; mechanisms: readonly string[] }
  | { kind: 'sasl-continue' | 'sasl-final'; data: string }
  /** A method that pgusher does not use. */
  | { kind: 'other-method'; method: string }
  | { kind: 'parameter-status'; name: string; value: string }
  | { kind: 'backend-key'; processId: number; secret: Buffer }
  | { kind: 'ready'; transactionStatus: string }
  | { kind: 'error'; error: DatabaseError }
  | { kind: 'notice' }

const BODY = 5

const OTHER_METHODS: Readonly<Record<number, string>> = {
  2: 'Kerberos V5',
  3: 'password (cleartext)',
  5: 'md5',
  6: 'scm',
  7: 'gss',
  9: 'sspi',
}

const MAX_MECHANISMS = 16

function malformed(what: string): UpstreamUnusable {
  return new UpstreamUnusable(`it sent a malformed ${what}`)
}

/** Where the string that begins at `start` ends; the offset behind its NUL. */
function skipString(bytes: Buffer, start: number, what: string): number {
  const end = bytes.indexOf(0, start)
  if (end < 0) throw malformed(what)
  return end + 1
}

/** ErrorResponse and NoticeResponse: (field type, string)*, then one NUL that is the last byte. */
function checkFields(bytes: Buffer, what: string): void {
  let offset = BODY
  while (bytes[offset] !== 0) {
    if (offset >= bytes.length) throw malformed(what)
    offset = skipString(bytes, offset + 1, what)
  }
  if (offset !== bytes.length - 1) throw malformed(what)
}

function checkStrings(bytes: Buffer, count: number, what: string): void {
  let offset = BODY
  for (let i = 0; i < count; i++) offset = skipString(bytes, offset, what)
  if (offset !== bytes.length) throw malformed(what)
}

/** AuthenticationSASL: names, then an empty one that is the last byte. */
function checkMechanisms(bytes: Buffer): void {
  let offset = BODY + 4
  for (let i = 0; i < MAX_MECHANISMS && offset < bytes.length; i++) {
    if (bytes[offset] === 0 && offset === bytes.length - 1) return
    offset = skipString(bytes, offset, 'list of SASL mechanisms')
  }
  throw malformed('list of SASL mechanisms')
}

/** One well-formed frame in, one message out. */
function parse(bytes: Buffer): BackendMessage {
  const messages: BackendMessage[] = []
  new Parser().parse(bytes, (message) => messages.push(message))
  const [message] = messages
  if (message === undefined || messages.length !== 1) throw malformed('message')
  return message
}

function authentication(bytes: Buffer): LoginMessage {
  if (bytes.length < BODY + 4) throw malformed('authentication request')
  const code = bytes.readInt32BE(BODY)
  const method = OTHER_METHODS[code]
  if (method !== undefined) return { kind: 'other-method', method }
  if (code === 10) checkMechanisms(bytes)
  else if (code !== 0 && code !== 11 && code !== 12) return { kind: 'other-method', method: `number ${code}` }
  const message = parse(bytes)
  if ('mechanisms' in message && Array.isArray(message.mechanisms)) {
    return { kind: 'sasl', mechanisms: message.mechanisms.map(String) }
  }
  if ('data' in message) {
    return { kind: code === 11 ? 'sasl-continue' : 'sasl-final', data: String(message.data) }
  }
  return { kind: 'authentication-ok' }
}

/** @throws UpstreamUnusable for a frame that is not formed as the protocol says, or has no place in a login. */
export function decodeLoginMessage(frame: Frame): LoginMessage {
  const { type, bytes } = frame
  switch (type) {
    case 'R':
      return authentication(bytes)
    case 'E': {
      checkFields(bytes, 'error')
      const error = parse(bytes)
      if (!(error instanceof DatabaseError)) throw malformed('error')
      return { kind: 'error', error }
    }
    case 'N':
      checkFields(bytes, 'notice')
      return { kind: 'notice' }
    case 'S': {
      checkStrings(bytes, 2, 'parameter status')
      const status = parse(bytes)
      if (!(status instanceof ParameterStatusMessage)) throw malformed('parameter status')
      return { kind: 'parameter-status', name: status.parameterName, value: status.parameterValue }
    }
    case 'K':
      // Not by pg-protocol, which takes four bytes of the key: protocol 3.2 allows up to 256.
      if (bytes.length < BODY + 8) throw malformed('cancel key')
      return { kind: 'backend-key', processId: bytes.readInt32BE(BODY), secret: ownBytes(bytes.subarray(BODY + 4)) }
    case 'Z': {
      const ready = bytes.length === BODY + 1 ? parse(bytes) : undefined
      if (!(ready instanceof ReadyForQueryMessage)) throw malformed('end of login')
      return { kind: 'ready', transactionStatus: ready.status }
    }
    default:
      throw new UpstreamUnusable('it sent a message that has no place in a login')
  }
}
