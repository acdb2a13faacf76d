/** Messages that pgusher itself sends to a frontend, toward which it is a backend. Each function returns one whole frame. */
import { AuthenticationCode, BackendMessage, PROTOCOL_MAJOR, type TransactionStatus } from './constants.ts'
import { byte, cstring, frame, int32 } from './writer.ts'

export function authenticationOk(): Buffer {
  return authentication(AuthenticationCode.Ok)
}

export function authenticationCleartextPassword(): Buffer {
  return authentication(AuthenticationCode.CleartextPassword)
}

export function authenticationSASL(mechanisms: readonly string[]): Buffer {
  return authentication(AuthenticationCode.SASL, ...mechanisms.map(cstring), byte(0))
}

export function authenticationSASLContinue(data: Buffer): Buffer {
  return authentication(AuthenticationCode.SASLContinue, data)
}

export function authenticationSASLFinal(data: Buffer): Buffer {
  return authentication(AuthenticationCode.SASLFinal, data)
}

function authentication(code: number, ...fields: readonly Buffer[]): Buffer {
  return frame(BackendMessage.Authentication, int32(code), ...fields)
}

/**
 * @param minor of protocol 3: what both sides speak from here on. The field is sent as a whole version, 3.minor, which is
 *   what PostgreSQL sends and libpq reads, whatever the documentation's "minor version" suggests.
 */
export function negotiateProtocolVersion(minor: number, unknownOptions: readonly string[]): Buffer {
  return frame(
    BackendMessage.NegotiateProtocolVersion,
    int32((PROTOCOL_MAJOR << 16) | minor),
    int32(unknownOptions.length),
    ...unknownOptions.map(cstring),
  )
}

/** @param processId signed 32 bits. @param key 4 bytes for protocol 3.0, up to 256 for 3.2 */
export function backendKeyData(processId: number, key: Buffer): Buffer {
  return frame(BackendMessage.BackendKeyData, int32(processId), key)
}

export function parameterStatus(name: string, value: string): Buffer {
  return frame(BackendMessage.ParameterStatus, cstring(name), cstring(value))
}

export function readyForQuery(status: TransactionStatus): Buffer {
  return frame(BackendMessage.ReadyForQuery, Buffer.from(status, 'latin1'))
}

export interface ErrorFields {
  severity: 'ERROR' | 'FATAL'
  /** Five digits or upper-case letters; anything else is sent as XX000. */
  sqlstate: string
  /** Cut at 2 KiB, on one line. */
  message: string
  /** Cut at 4 KiB; may have several lines. */
  detail?: string | undefined
  hint?: string | undefined
}

export interface NoticeFields extends Omit<ErrorFields, 'severity'> {
  severity: 'WARNING' | 'NOTICE' | 'DEBUG' | 'INFO' | 'LOG'
}

export function errorResponse(fields: ErrorFields): Buffer {
  return frame(BackendMessage.ErrorResponse, ...responseFields(fields))
}

export function noticeResponse(fields: NoticeFields): Buffer {
  return frame(BackendMessage.NoticeResponse, ...responseFields(fields))
}

const MAX_MESSAGE_TEXT = 2 * 1024
const MAX_DETAIL_TEXT = 4 * 1024

function responseFields(fields: ErrorFields | NoticeFields): Buffer[] {
  const sqlstate = /^[0-9A-Z]{5}$/.test(fields.sqlstate) ? fields.sqlstate : 'XX000'
  // S may be translated, V never is: drivers look at V where it is there.
  const out = [field('S', fields.severity), field('V', fields.severity), field('C', sqlstate)]
  out.push(field('M', harmless(fields.message.replace(/\r\n|[\t\r\n]/g, ' '), MAX_MESSAGE_TEXT)))
  if (fields.detail !== undefined) out.push(field('D', harmless(fields.detail, MAX_DETAIL_TEXT)))
  if (fields.hint !== undefined) out.push(field('H', harmless(fields.hint, MAX_DETAIL_TEXT)))
  out.push(byte(0))
  return out
}

function field(code: string, text: string): Buffer {
  return Buffer.concat([Buffer.from(code, 'latin1'), cstring(text)])
}

/**
 * Claims and names in a text come from whoever can push a branch, and the text ends in terminals and CI logs: escape
 * sequences (C0, C1), bidirectional overrides and line separators become U+FFFD, and so do NULs, which would end the field.
 */
function harmless(text: string, maxBytes: number): string {
  const clean = text.toWellFormed().replace(/(?![\n\t])[\p{Cc}\p{Bidi_Control}\p{Zl}\p{Zp}]/gu, '\ufffd')
  if (Buffer.byteLength(clean) <= maxBytes) return clean
  const bytes = Buffer.from(clean)
  let end = maxBytes
  // Back to the first byte of a character: continuation bytes are 10xxxxxx.
  while (((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return `${bytes.toString('utf8', 0, end)}…`
}
