/** Damage to what was recorded: whole messages out of order, lengths that lie, bytes that are others, ends that come too early. */
import type { Random } from './random.ts'

const HEADER = 5

/** Messages with type and length; what does not divide is the last one. */
export function framesOf(stream: Buffer): Buffer[] {
  const frames: Buffer[] = []
  let at = 0
  while (stream.length - at >= HEADER) {
    const end = at + 1 + stream.readInt32BE(at + 1)
    if (end > stream.length || end < at + HEADER) break
    frames.push(stream.subarray(at, end))
    at = end
  }
  if (at < stream.length) frames.push(stream.subarray(at))
  return frames
}

const LENGTHS = [-1, 0, 3, 4, 5, 0x3fffffff, 0x40000000, 0x7fffffff, -0x80000000]

function withLength(frame: Buffer, length: number): Buffer {
  if (frame.length < HEADER) return frame
  const copy = Buffer.from(frame)
  copy.writeInt32BE(length, 1)
  return copy
}

/** One byte becomes another, or NUL, or a separator. */
export function flipBytes(random: Random, bytes: Buffer, most = 4): Buffer {
  if (bytes.length === 0) return bytes
  const copy = Buffer.from(bytes)
  for (let left = 1 + random.below(most); left > 0; left--) {
    copy[random.below(copy.length)] = random.chance(0.3)
      ? random.pick([0, 1, 0x2c, 0x3d, 0x7f, 0xff])
      : random.below(256)
  }
  return copy
}

/** A body of other bytes, with a length that is right. */
function otherBody(random: Random, frame: Buffer): Buffer {
  const body = random.chance(0.5) ? random.bytes(random.below(64)) : flipBytes(random, frame.subarray(HEADER))
  const head = Buffer.from(frame.subarray(0, HEADER))
  if (head.length < HEADER) return frame
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}

function damage(random: Random, frame: Buffer): Buffer {
  const kind = random.below(6)
  if (kind < 3) return otherBody(random, frame)
  if (kind === 3) return flipBytes(random, frame)
  if (kind === 4) return withLength(frame, random.chance(0.7) ? random.pick(LENGTHS) : random.below(100_000))
  return frame.subarray(0, random.below(frame.length + 1))
}

/** Frames of a session, reordered, doubled, left out, exchanged with those of `others` and damaged now and then. */
export function mutateFrames(random: Random, frames: readonly Buffer[], others: readonly Buffer[]): Buffer[] {
  const played: Buffer[] = []
  const rate = random.pick([0, 0.005, 0.02, 0.1])
  for (const frame of frames) {
    if (!random.chance(rate)) {
      played.push(frame)
      continue
    }
    const kind = random.below(6)
    if (kind === 0) continue
    if (kind === 1) played.push(frame, frame)
    else if (kind === 2) played.push(random.pick(others), frame)
    else if (kind === 3) played.splice(random.below(played.length + 1), 0, frame)
    else if (kind === 4) played.push(random.pick(others))
    else played.push(damage(random, frame))
  }
  return played
}

/** The bytes in pieces: single bytes, a few, or as much as a socket gives. */
export function* slices(random: Random, bytes: Buffer): Iterable<Buffer> {
  const most = random.pick([1, 3, 40, 1_000, 65_536])
  for (let at = 0; at < bytes.length; ) {
    const length = 1 + random.below(most)
    yield bytes.subarray(at, at + length)
    at += length
  }
}

const PIECES = [
  '',
  ' ',
  '=',
  ',',
  '.',
  '"',
  '\\',
  '{',
  '}',
  '[',
  ']',
  ':',
  '\0',
  '\x01',
  '\n',
  '\r\n',
  '%',
  '🙂',
  '\u2028',
  '__proto__',
]

/** The same for text: pieces cut out, put in and doubled. */
export function mutateText(random: Random, text: string, words: readonly string[] = []): string {
  let damaged = text
  for (let left = 1 + random.below(4); left > 0; left--) {
    const from = random.below(damaged.length + 1)
    const length = random.chance(0.5) ? 0 : random.below(1 + Math.min(40, damaged.length))
    const kind = random.below(4)
    let piece = ''
    if (kind === 0) piece = random.pick([...PIECES, ...words])
    else if (kind === 1) piece = damaged.slice(from, from + length).repeat(1 + random.below(3))
    else if (kind === 2) piece = random.bytes(1 + random.below(6)).toString('latin1')
    damaged = damaged.slice(0, from) + piece + damaged.slice(from + length)
  }
  return damaged
}
