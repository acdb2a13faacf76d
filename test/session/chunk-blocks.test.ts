import fc from 'fast-check'
import { expect, test } from 'vitest'
import { BLOCK_BYTES, type ChunkBlock, holdChunk, placeChunk, releaseChunk } from '../../src/session/chunk-blocks.ts'

interface Held {
  chunk: Buffer
  expected: Buffer
  block: ChunkBlock
}

/** Lengths around the borders between short and long chunks, and up to a whole block. */
const length = fc.oneof(
  fc.integer({ min: 1, max: 120 }),
  fc.integer({ min: 1_000, max: 1_050 }),
  fc.integer({ min: 1, max: BLOCK_BYTES }),
  fc.constant(BLOCK_BYTES),
)

/** Places a chunk, and holds it or not; or releases one of those that are held. */
const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ length, hold: fc.boolean(), release: fc.constant(undefined) }) },
  { weight: 2, arbitrary: fc.record({ length: fc.constant(0), hold: fc.constant(false), release: fc.nat(30) }) },
)

test('a chunk that is held stays as it is until it is released, whatever is placed meanwhile', () => {
  let fill = 0
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const held: Held[] = []
      for (const { length, hold, release } of steps) {
        if (release !== undefined) {
          const [gone] = held.splice(release % Math.max(1, held.length), 1)
          if (gone !== undefined) releaseChunk(gone.block)
          continue
        }
        const expected = Buffer.alloc(length, ++fill % 251)
        const chunk = placeChunk(expected, length)
        expect(chunk.equals(expected)).toBe(true)
        if (hold) held.push({ chunk, expected, block: holdChunk() })
        for (const { chunk: earlier, expected: same } of held) expect(earlier.equals(same)).toBe(true)
      }
      for (const { block } of held) releaseChunk(block)
    }),
  )
})

test('released memory is used again', () => {
  const memory = new Set<ArrayBufferLike>()
  const source = Buffer.alloc(BLOCK_BYTES)
  const waiting: ChunkBlock[] = []
  for (let read = 0; read < 1_000; read++) {
    memory.add(placeChunk(source, BLOCK_BYTES).buffer)
    waiting.push(holdChunk())
    if (waiting.length > 3) releaseChunk(waiting.shift()!)
  }
  for (const block of waiting) releaseChunk(block)
  // Blocks that the test before released may take part.
  expect(memory.size).toBeLessThan(50)
})
