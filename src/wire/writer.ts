/**
 * Fields and frames. A frame's length is that of the bytes that follow, measured after they exist: a length computed from a
 * string a second time is how CVE-2024-27304 smuggled messages.
 */
import { MAX_MESSAGE_LENGTH } from './constants.ts'

export function byte(value: number): Buffer {
  return Buffer.from([value])
}

export function int16(value: number): Buffer {
  const field = Buffer.allocUnsafe(2)
  field.writeInt16BE(value)
  return field
}

export function int32(value: number): Buffer {
  const field = Buffer.allocUnsafe(4)
  field.writeInt32BE(value)
  return field
}

/** @throws RangeError where `text` holds a NUL: it would end the string early and begin another field. */
export function cstring(text: string): Buffer {
  if (text.includes('\0')) throw new RangeError('a string of the PostgreSQL protocol holds no NUL')
  return Buffer.from(`${text}\0`, 'utf8')
}

/** @param type undefined for the packets before and instead of a StartupMessage, which have no type byte */
export function frame(type: number | undefined, ...fields: readonly Buffer[]): Buffer {
  const body = Buffer.concat(fields)
  if (body.length > MAX_MESSAGE_LENGTH) throw new RangeError(`a message of ${body.length} bytes cannot be framed`)
  const length = int32(body.length + 4)
  return type === undefined ? Buffer.concat([length, body]) : Buffer.concat([byte(type), length, body])
}
