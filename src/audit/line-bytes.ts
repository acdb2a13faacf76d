/**
 * Writes parts of a JSON line straight into bytes. Made as texts first, the dozen short parts of a statement's line cost more than the
 * two kilobytes of it that are copied: each concatenation allocates, and each write of a text crosses into C++.
 *
 * Each function writes at `at` and returns the position behind what it wrote; the caller has made sure of the room.
 */

const ZERO = 0x30
/** Below it a loop is faster than the call of `set`. */
const SHORT = 32
/** Digits of the largest integer that arithmetic here is exact for without care: larger ones go through a text. */
const MAX_FAST_INTEGER = 999_999_999

export function putBytes(into: Uint8Array, at: number, bytes: Uint8Array): number {
  const { length } = bytes
  if (length > SHORT) into.set(bytes, at)
  else for (let i = 0; i < length; i++) into[at + i] = bytes[i]!
  return at + length
}

/** Text that is ASCII for certain: numbers, codes, escaped JSON. */
export function putAscii(into: Uint8Array, at: number, text: string): number {
  const { length } = text
  for (let i = 0; i < length; i++) into[at + i] = text.charCodeAt(i)
  return at + length
}

/** A safe integer, in decimal. */
export function putInteger(into: Uint8Array, at: number, value: number): number {
  if (!(value >= 0 && value <= MAX_FAST_INTEGER)) return putAscii(into, at, String(value))
  let digits = 1
  for (let bound = 10; value >= bound; bound *= 10) digits++
  putDigits(into, at, value, digits)
  return at + digits
}

/** Exactly `digits` digits, with zeros in front; `value` below 10^9. */
export function putDigits(into: Uint8Array, at: number, value: number, digits: number): number {
  let left = value | 0
  for (let i = at + digits - 1; i >= at; i--) {
    const tenth = (left / 10) | 0
    into[i] = ZERO + left - tenth * 10
    left = tenth
  }
  return at + digits
}

/** Seconds with microseconds as a JSON number, from milliseconds; 0 for a negative duration. */
export function putSeconds(into: Uint8Array, at: number, ms: number): number {
  const micros = Math.round(ms * 1_000)
  if (micros >= 0 && micros < 1_000_000) {
    into[at] = ZERO
    into[at + 1] = 0x2e
    return putDigits(into, at + 2, micros, 6)
  }
  return putAscii(into, at, micros > 0 ? String(micros / 1_000_000) : '0')
}
