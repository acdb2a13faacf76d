/** Time and ids of events, cheap enough for every statement: what changes once a second or a millisecond is kept. */
import { randomFillSync } from 'node:crypto'

/** `000` to `999`, and `00` to `ff`. */
const THREE_DIGITS = Array.from({ length: 1_000 }, (_, n) => String(n).padStart(3, '0'))
const HEX_BYTE = Array.from({ length: 256 }, (_, n) => n.toString(16).padStart(2, '0'))

const digits = (n: number): string => THREE_DIGITS[n] ?? '000'
const hex = (byte: number | undefined): string => HEX_BYTE[byte ?? 0] ?? '00'

/**
 * Wall clock in milliseconds with a fraction. Date.now() has no microseconds and performance.now() does not follow a clock
 * that is set, so the second is tied to the first again once a second.
 */
export function wallClock(): () => number {
  let offset = Date.now() - performance.now()
  let tiedAt = performance.now()
  return () => {
    const tick = performance.now()
    if (tick - tiedAt > 1_000) {
      tiedAt = tick
      const fresh = Date.now() - tick
      // Date.now() cuts the fraction off: below 1 ms the two do not differ.
      if (fresh > offset || offset - fresh > 1) offset = fresh
    }
    return tick + offset
  }
}

/** RFC 3339 in UTC with microseconds, from milliseconds since the epoch. */
export function timeFormatter(): (ms: number) => string {
  let second = Number.NaN
  let prefix = ''
  return (ms) => {
    const micros = Math.floor(ms * 1_000)
    const whole = Math.floor(micros / 1_000_000)
    if (whole !== second) {
      second = whole
      prefix = new Date(whole * 1_000).toISOString().slice(0, 20)
    }
    const rest = micros - whole * 1_000_000
    return `${prefix}${digits(Math.floor(rest / 1_000))}${digits(rest % 1_000)}Z`
  }
}

/** Seconds with microseconds as a JSON number, from milliseconds. */
export function secondsJson(ms: number): string {
  const micros = Math.round(ms * 1_000)
  if (micros >= 0 && micros < 1_000_000) return `0.${digits(Math.floor(micros / 1_000))}${digits(micros % 1_000)}`
  return micros > 0 ? String(micros / 1_000_000) : '0'
}

const RANDOM_POOL = 4_096

/**
 * UUIDv7 (RFC 9562, section 5.7), strictly increasing within this generator: a 12-bit counter follows the millisecond
 * (section 6.2, method 1), begins each millisecond at a random value below half, and borrows from the next one when it overflows.
 */
export function uuidv7(): (ms: number) => string {
  const pool = randomFillSync(Buffer.allocUnsafe(RANDOM_POOL))
  let at = 0
  let last = 0
  let counter = 0
  let prefix = ''
  const take = (): number => {
    if (at === RANDOM_POOL) {
      randomFillSync(pool)
      at = 0
    }
    return pool[at++] ?? 0
  }
  return (now) => {
    const ms = Math.floor(now)
    if (ms > last || counter === 0xfff) {
      last = ms > last ? ms : last + 1
      counter = ((take() & 0x07) << 8) | take()
      const text = last.toString(16).padStart(12, '0')
      prefix = `${text.slice(0, 8)}-${text.slice(8)}-7`
    } else {
      counter++
    }
    const variant = hex((take() & 0x3f) | 0x80)
    const low = hex(take()) + hex(take()) + hex(take()) + hex(take()) + hex(take()) + hex(take())
    return `${prefix}${(counter + 0x1000).toString(16).slice(1)}-${variant}${hex(take())}-${low}`
  }
}
