/** Time and ids of events, cheap enough for every statement: what changes once a second or a millisecond is kept. */
import { randomFillSync } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import { putBytes, putDigits } from './line-bytes.ts'

/** `00` to `ff`, as pairs of ASCII codes. */
const HEX = Uint8Array.from(
  Buffer.from(Array.from({ length: 256 }, (_, n) => n.toString(16).padStart(2, '0')).join('')),
)
const DASH = 0x2d
const Z = 0x5a

/** Writes a text of always the same length, which it returns the end of. */
export type StampWriter = (into: Uint8Array, at: number, ms: number) => number

export const TIME_LENGTH = 27
export const ID_LENGTH = 36

/** What a writer writes, as a string. */
export function stampText(write: StampWriter): (ms: number) => string {
  const bytes = Buffer.alloc(Math.max(TIME_LENGTH, ID_LENGTH))
  return (ms) => bytes.toString('latin1', 0, write(bytes, 0, ms))
}

/**
 * Wall clock in milliseconds with a fraction. Date.now() has no microseconds and performance.now() does not follow a clock
 * that is set, so the second is tied to the first again once a second.
 */
export function wallClock(): () => number {
  let offset = performance.timeOrigin
  let tieAt = 0
  return () => {
    const tick = performance.now()
    if (tick >= tieAt) {
      const fresh = Date.now() - tick
      // Left waiting between the two, it would be as much off for a second: it looks again at the next call.
      if (performance.now() - tick < 1) {
        tieAt = tick + 1_000
        // Date.now() cuts the fraction off: below 1 ms the two do not differ.
        if (fresh > offset || offset - fresh > 1) offset = fresh
      }
    }
    return tick + offset
  }
}

/** RFC 3339 in UTC with microseconds, from milliseconds since the epoch. */
export function timeWriter(): StampWriter {
  let second = Number.NaN
  let prefix: Uint8Array = new Uint8Array()
  return (into, at, ms) => {
    const micros = Math.floor(ms * 1_000)
    const whole = Math.floor(micros / 1_000_000)
    if (whole !== second) {
      second = whole
      prefix = Buffer.from(new Date(whole * 1_000).toISOString().slice(0, 20), 'latin1')
    }
    const end = putDigits(into, putBytes(into, at, prefix), micros - whole * 1_000_000, 6)
    into[end] = Z
    return end + 1
  }
}

const RANDOM_POOL = 4_096

/**
 * UUIDv7 (RFC 9562, section 5.7), strictly increasing within this generator: a 12-bit counter follows the millisecond
 * (section 6.2, method 1), begins each millisecond at a random value below half, and borrows from the next one when it overflows.
 */
export function uuidv7Writer(): StampWriter {
  const pool = randomFillSync(Buffer.allocUnsafe(RANDOM_POOL))
  /** 48 bits of time, with the dashes around their last 16. */
  const prefix = Uint8Array.from(Buffer.from('00000000-0000-'))
  let used = 0
  let last = 0
  let counter = 0
  const take = (): number => {
    if (used === RANDOM_POOL) {
      randomFillSync(pool)
      used = 0
    }
    return pool[used++]!
  }
  const startMillisecond = (ms: number): void => {
    last = ms
    counter = ((take() & 0x07) << 8) | take()
    const high = Math.floor(ms / 0x1000000)
    const low = ms % 0x1000000
    putHex(prefix, 0, high >> 16)
    putHex(prefix, 2, (high >> 8) & 0xff)
    putHex(prefix, 4, high & 0xff)
    putHex(prefix, 6, low >> 16)
    putHex(prefix, 9, (low >> 8) & 0xff)
    putHex(prefix, 11, low & 0xff)
  }
  return (into, at, now) => {
    const ms = Math.floor(now)
    if (ms > last || counter === 0xfff) startMillisecond(ms > last ? ms : last + 1)
    else counter++
    putBytes(into, at, prefix)
    // The version, 7, stands before the counter.
    putHex(into, at + 14, 0x70 | (counter >> 8))
    putHex(into, at + 16, counter & 0xff)
    into[at + 18] = DASH
    putHex(into, at + 19, (take() & 0x3f) | 0x80)
    putHex(into, at + 21, take())
    into[at + 23] = DASH
    for (let i = at + 24; i < at + 36; i += 2) putHex(into, i, take())
    return at + 36
  }
}

function putHex(into: Uint8Array, at: number, byte: number): void {
  into[at] = HEX[byte * 2]!
  into[at + 1] = HEX[byte * 2 + 1]!
}
