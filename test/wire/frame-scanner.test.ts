import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createFrameScanner, DROP, type FrameHandler, STOP } from '../../src/wire/frame-scanner.ts'

type Message = { type: number; body: Buffer }

function frame({ type, body }: Message): Buffer {
  const header = Buffer.alloc(5)
  header[0] = type
  header.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([header, body])
}

function slices(bytes: Buffer, cuts: number[]): Buffer[] {
  const chunks: Buffer[] = []
  let position = 0
  for (let i = 0; position < bytes.length; i++) {
    const size = Math.max(1, cuts[i % cuts.length] ?? bytes.length)
    // A copy, so that a view kept beyond its call would be caught by the overwrite below.
    chunks.push(Buffer.from(bytes.subarray(position, position + size)))
    position += size
  }
  return chunks
}

interface Seen {
  headers: [number, number][]
  bodies: [number, string, string][]
  released: Buffer
  kept: boolean
  scanner: ReturnType<typeof createFrameScanner>
}

/** Types below 10 are dropped, type 10 stops, type 11 is refused by its body; others show `type % 7 * 3` bytes. */
function run(chunks: Buffer[], rest = true): Seen {
  const headers: [number, number][] = []
  const bodies: [number, string, string][] = []
  const released: Buffer[] = []
  const handler: FrameHandler = {
    onHeader(type, length) {
      headers.push([type, length])
      if (type < 10) return DROP + (type % 7) * 3
      if (type === 10) return STOP
      return type === 11 ? length : (type % 7) * 3
    },
    onBody(type, buffer, start, end) {
      bodies.push([type, buffer.toString('hex', start, end), ''])
      return type !== 11
    },
    onDropped: (type) => void released.push(Buffer.from(`<${type}>`)),
  }
  if (rest) {
    handler.onRest = (_type, buffer, start, end) => {
      bodies.at(-1)![2] += buffer.toString('hex', start, end)
      return true
    }
  }
  const scanner = createFrameScanner(handler, () => 1000)
  let kept = true
  for (const chunk of chunks) {
    kept = scanner.scan(chunk, (bytes) => void released.push(Buffer.from(bytes))) && kept
    chunk.fill(0xee)
  }
  return { headers, bodies, released: Buffer.concat(released), kept, scanner }
}

const message = fc.record({
  type: fc.oneof(
    { weight: 8, arbitrary: fc.integer({ min: 12, max: 255 }) },
    { weight: 1, arbitrary: fc.integer({ min: 0, max: 9 }) },
  ),
  body: fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
})

test('however a stream is cut, the same messages are seen and the same bytes released', () => {
  fc.assert(
    fc.property(
      fc.array(message, { maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }),
      (messages, cuts) => {
        const seen = run(slices(Buffer.concat(messages.map(frame)), cuts))
        expect(seen.headers).toEqual(messages.map((m) => [m.type, m.body.length]))
        const shown = messages.filter((m) => m.type % 7 > 0)
        expect(seen.bodies).toEqual(
          shown.map((m) => {
            const cut = Math.min(m.body.length, (m.type % 7) * 3)
            return [m.type, m.body.toString('hex', 0, cut), m.body.toString('hex', cut)]
          }),
        )
        const expected = messages.map((m) => (m.type < 10 ? Buffer.from(`<${m.type}>`) : frame(m)))
        expect(seen.released.equals(Buffer.concat(expected))).toBe(true)
        expect(seen.kept && seen.scanner.atBoundary).toBe(true)
      },
    ),
  )
})

test('messages taken as runs add up to the same, in the same order, and the same bytes are released', () => {
  const typed = fc.record({
    type: fc.constantFrom(20, 21, 22, 5, 10, 11),
    body: fc.uint8Array({ maxLength: 30 }).map((bytes) => Buffer.from(bytes)),
  })
  const sums = (chunks: Buffer[], runs: readonly number[], taken: boolean) => {
    const totals: [number, number, number][] = []
    const released: Buffer[] = []
    const add = (type: number, count: number, bytes: number): void => {
      const last = totals.at(-1)
      if (last?.[0] === type) {
        last[1] += count
        last[2] += bytes
      } else totals.push([type, count, bytes])
    }
    const scanner = createFrameScanner(
      {
        onHeader(type, length) {
          add(type, 1, length + 5)
          return type === 10 ? STOP : type < 10 ? DROP : type % 2
        },
        onBody: (type) => type !== 11,
        onDropped: (type) => void released.push(Buffer.from(`<${type}>`)),
        runs,
        onRun(type, count, bytes) {
          if (taken) add(type, count, bytes)
          return taken
        },
      },
      (type) => (type === 21 ? 20 : 1_000),
    )
    const kept = chunks.every((chunk) => scanner.scan(chunk, (bytes) => void released.push(Buffer.from(bytes))))
    return {
      totals,
      kept,
      violation: scanner.violation,
      atBoundary: scanner.atBoundary,
      released: Buffer.concat(released),
    }
  }
  fc.assert(
    fc.property(
      fc.array(typed, { maxLength: 40 }),
      fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1 }),
      fc.constantFrom([20], [20, 22], [22, 21]),
      fc.boolean(),
      (messages, cuts, runs, taken) => {
        const chunks = slices(Buffer.concat(messages.map(frame)), cuts)
        expect(sums(chunks, runs, taken)).toEqual(sums(chunks, [], false))
      },
    ),
  )
})

test('nothing of a stopped message or behind it is released, wherever the chunks are cut', () => {
  fc.assert(
    fc.property(
      fc.array(message, { maxLength: 5 }),
      fc.array(message, { maxLength: 3 }),
      fc.integer({ min: 1, max: 30 }),
      (before, after, cut) => {
        const stream = Buffer.concat([...before, { type: 10, body: Buffer.from('stop') }, ...after].map(frame))
        const seen = run(slices(stream, [cut]))
        const expected = before.map((m) => (m.type < 10 ? Buffer.from(`<${m.type}>`) : frame(m)))
        expect(seen.kept).toBe(false)
        expect(seen.released.equals(Buffer.concat(expected))).toBe(true)
      },
    ),
  )
})

test('a message refused by its body never leaves whole', () => {
  fc.assert(
    fc.property(
      fc.array(message, { maxLength: 4 }),
      fc.uint8Array({ minLength: 1, maxLength: 50 }),
      fc.integer({ min: 1, max: 30 }),
      (before, body, cut) => {
        const refused = frame({ type: 11, body: Buffer.from(body) })
        const seen = run(slices(Buffer.concat([...before.map(frame), refused]), [cut]))
        const prefix = Buffer.concat(before.map((m) => (m.type < 10 ? Buffer.from(`<${m.type}>`) : frame(m))))
        expect(seen.kept).toBe(false)
        expect(seen.released.length).toBeLessThan(prefix.length + refused.length)
        expect(Buffer.concat([prefix, refused]).subarray(0, seen.released.length).equals(seen.released)).toBe(true)
      },
    ),
  )
})

test.each([
  ['below 4', 3],
  ['negative', -1],
  ['the smallest integer', -0x80000000],
  ['over the cap', 1005],
])('invariant 6: a length that is %s stops the stream and releases nothing of it', (_what, declared) => {
  const bad = Buffer.alloc(9)
  bad[0] = 0x51
  bad.writeInt32BE(declared, 1)
  const good = frame({ type: 50, body: Buffer.from('good') })
  const seen = run([Buffer.concat([good, bad])])
  expect(seen.kept).toBe(false)
  expect(seen.released.equals(good)).toBe(true)
  expect(seen.scanner.violation).toBe(`a message of type 0x51 ("Q") with the length ${declared}`)
})

test('random bytes never throw', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.integer({ min: 1, max: 64 }), (bytes, cut) => {
      run(slices(Buffer.from(bytes), [cut]))
      run(slices(Buffer.from(bytes), [cut]), false)
    }),
    { numRuns: 500 },
  )
})

test('a split header is held back until it is whole', () => {
  const bytes = frame({ type: 50, body: Buffer.from('abc') })
  for (let cut = 1; cut < 5; cut++) {
    const released: Buffer[] = []
    const scanner = createFrameScanner({ onHeader: () => 0, onBody: () => true, onDropped: () => {} }, () => 100)
    scanner.scan(Buffer.from(bytes.subarray(0, cut)), (part) => void released.push(part))
    expect(released).toEqual([])
    scanner.scan(Buffer.from(bytes.subarray(cut)), (part) => void released.push(part))
    expect(Buffer.concat(released).equals(bytes)).toBe(true)
  }
})

test('apart: what ends a message of an earlier chunk is released by itself, at a boundary, and nothing else changes', () => {
  const kept = fc.record({
    type: fc.integer({ min: 12, max: 255 }),
    body: fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
  })
  fc.assert(
    fc.property(
      fc.array(kept, { maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1 }),
      (messages, cuts) => {
        const stream = Buffer.concat(messages.map(frame))
        const handler: FrameHandler = { onHeader: (type) => type % 7, onBody: () => true, onDropped() {} }
        const scanner = createFrameScanner(handler, () => 1000)
        const released: Buffer[] = []
        const boundaries = new Set<number>()
        let sent = 0
        const chunkEnds: number[] = []
        for (const chunk of slices(stream, cuts)) {
          scanner.scan(
            chunk,
            (bytes) => {
              released.push(Buffer.from(bytes))
              sent += bytes.length
              if (scanner.atBoundary) boundaries.add(sent)
            },
            true,
          )
          chunkEnds.push((chunkEnds.at(-1) ?? 0) + chunk.length)
        }
        expect(Buffer.concat(released)).toEqual(stream)
        let at = 0
        for (const { body } of messages) {
          // A header is held back until it is whole.
          const bodyFrom = at + 5
          at += 5 + body.length
          if (chunkEnds.some((end) => end >= bodyFrom && end < at)) expect(boundaries).toContain(at)
        }
      },
    ),
  )
})
