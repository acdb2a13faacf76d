/** What a frontend sends first: SSLRequest, GSSENCRequest, CancelRequest or StartupMessage. */
import { AccessError } from '../errors.ts'
import {
  CANCEL_REQUEST_CODE,
  GSSENC_REQUEST_CODE,
  MAX_CANCEL_KEY_LENGTH,
  MAX_NAME_LENGTH,
  MIN_CANCEL_KEY_LENGTH,
  NEWEST_PROTOCOL_MINOR,
  PROTOCOL_MAJOR,
  SSL_REQUEST_CODE,
} from './constants.ts'
import { type BufferReader, createBufferReader } from './reader.ts'

export interface CancelRequest {
  kind: 'cancel'
  /** Signed, as PostgreSQL sends it. */
  processId: number
  /** 4 to 256 bytes. */
  key: Buffer
}

export interface StartupMessage {
  kind: 'startup'
  /** The minor version that both sides speak from here on: 0 or 2. */
  minor: number
  /** What the client asked for. */
  requestedMinor: number
  /** Holds `user` and `database` always: an absent or empty database is the user's name, as in PostgreSQL. */
  parameters: Map<string, string>
  /** Names that begin with `_pq_.`: protocol options, none of which exist yet. */
  unknownOptions: string[]
}

export type StartupPacket = { kind: 'ssl' } | { kind: 'gss' } | CancelRequest | StartupMessage

/**
 * @param body the packet without its four bytes of length
 * @throws AccessError `protocol_violation`
 */
export function parseStartupPacket(body: Buffer): StartupPacket {
  const reader = createBufferReader(body, 'the startup packet')
  const code = reader.int32()
  switch (code) {
    case SSL_REQUEST_CODE:
      expectEnd(reader, 'SSLRequest')
      return { kind: 'ssl' }
    case GSSENC_REQUEST_CODE:
      expectEnd(reader, 'GSSENCRequest')
      return { kind: 'gss' }
    case CANCEL_REQUEST_CODE:
      return parseCancelRequest(reader)
    default:
      return parseStartupMessage(code >>> 16, code & 0xffff, reader)
  }
}

/** True where the client must be told, by NegotiateProtocolVersion, that it does not get all that it asked for. */
export function needsNegotiation(startup: StartupMessage): boolean {
  return startup.minor !== startup.requestedMinor || startup.unknownOptions.length > 0
}

function expectEnd(reader: BufferReader, what: string): void {
  if (reader.remaining > 0) {
    throw new AccessError('protocol_violation', `${what} is malformed: it is ${reader.remaining} bytes too long`)
  }
}

function parseCancelRequest(reader: BufferReader): CancelRequest {
  const processId = reader.int32()
  const length = reader.remaining
  if (length < MIN_CANCEL_KEY_LENGTH || length > MAX_CANCEL_KEY_LENGTH) {
    throw new AccessError(
      'protocol_violation',
      `CancelRequest is malformed: its key has ${length} bytes, ${MIN_CANCEL_KEY_LENGTH} to ${MAX_CANCEL_KEY_LENGTH} are allowed`,
    )
  }
  // A copy: the view would keep the socket's whole chunk alive for as long as the key.
  return { kind: 'cancel', processId, key: Buffer.from(reader.bytes(length)) }
}

function parseStartupMessage(major: number, requestedMinor: number, reader: BufferReader): StartupMessage {
  if (major !== PROTOCOL_MAJOR) {
    throw new AccessError(
      'protocol_violation',
      `unsupported frontend protocol ${major}.${requestedMinor}: pgusher speaks 3.0 and 3.${NEWEST_PROTOCOL_MINOR}`,
      {
        sqlstate: '0A000',
        hint: 'Use a client of PostgreSQL 7.4 or later, and check that host and port are those of pgusher.',
      },
    )
  }
  const parameters = new Map<string, string>()
  const unknownOptions: string[] = []
  for (;;) {
    const name = reader.cstring()
    if (name === '') break
    const value = reader.cstring()
    // PostgreSQL takes the last of two; whoever looked at the first would have decided about another user.
    if (parameters.has(name) || unknownOptions.includes(name)) {
      throw new AccessError('protocol_violation', `StartupMessage names the parameter ${quote(name)} twice`)
    }
    if (name.startsWith('_pq_.')) unknownOptions.push(name)
    else parameters.set(name, value)
  }
  expectEnd(reader, 'StartupMessage')
  completeNames(parameters)
  return { kind: 'startup', minor: spokenMinor(requestedMinor), requestedMinor, parameters, unknownOptions }
}

/** 3.1 was never used: old poolers claimed it by mistake, so it is reserved and gets 3.0. */
function spokenMinor(requested: number): number {
  return requested < NEWEST_PROTOCOL_MINOR ? 0 : NEWEST_PROTOCOL_MINOR
}

function completeNames(parameters: Map<string, string>): void {
  const user = parameters.get('user') ?? ''
  if (user === '') {
    throw new AccessError('protocol_violation', 'StartupMessage names no user', {
      sqlstate: '28000',
      hint: 'The user of the connection string is the role that the job asks for, or ci.',
    })
  }
  checkName('user', user)
  const database = parameters.get('database') || user
  checkName('database', database)
  parameters.set('database', database)
}

function checkName(parameter: string, name: string): void {
  const length = Buffer.byteLength(name)
  if (length > MAX_NAME_LENGTH) {
    throw new AccessError(
      'protocol_violation',
      `the ${parameter} name has ${length} bytes, PostgreSQL's names have at most ${MAX_NAME_LENGTH}`,
      { sqlstate: '42622' },
    )
  }
}

function quote(name: string): string {
  return JSON.stringify(name.length > MAX_NAME_LENGTH ? `${name.slice(0, MAX_NAME_LENGTH)}…` : name)
}
