/** What keeps the recorder's memory bounded and its events in order. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { chunkQueue } from '../../src/audit/chunk-queue.ts'
import { generationCache } from '../../src/audit/generation-cache.ts'
import { sequencer } from '../../src/audit/sequencer.ts'

describe('the cache', () => {
  test('holds no more than its bound, and what is asked for often', () => {
    const cache = generationCache<number>(10_000)
    for (let n = 0; n < 1_000; n++) {
      cache.set(`key ${n}`, n, 100)
      expect(cache.get(`key ${n}`)).toBe(n)
      if (n > 0) expect(cache.get('key 0')).toBe(0)
      expect(cache.bytes).toBeLessThanOrEqual(10_000)
    }
    expect(cache.get('key 500')).toBeUndefined()
    cache.set('too large', 1, 6_000)
    expect(cache.get('too large')).toBeUndefined()
  })
})

describe('the sequencer', () => {
  test('writes in the order of adding, in whatever order things become ready', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat({ max: 3 }), { maxLength: 40 }), async (delays) => {
        const order = sequencer()
        const written: number[] = []
        for (const [n, delay] of delays.entries()) {
          if (delay === 0) order.add(() => written.push(n), 1)
          else {
            let ready: Promise<void> = Promise.resolve()
            for (let turn = 0; turn < delay; turn++) ready = ready.then(() => {})
            order.addWhen(ready, () => written.push(n), 1)
          }
        }
        await order.settled()
        expect(written).toEqual(delays.map((_, n) => n))
        expect(order.idle).toBe(true)
      }),
    )
  })

  test.each([
    ['events', 20_001, 1],
    ['text', 10, 1024 * 1024],
  ])('does not wait for ever when too many %s wait', (_what, count, units) => {
    const order = sequencer()
    let written = 0
    for (let n = 0; n < count; n++) order.addWhen(new Promise(() => {}), () => written++, units)
    expect(written).toBeGreaterThan(0)
  })
})

describe('lines on their way', () => {
  test('come out as they went in, in chunks of whole lines', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.string({ unit: 'binary' }), fc.nat({ max: 30_000 }))), (pieces) => {
        const lines = pieces.map(([text, length]) => `${JSON.stringify(text)}${'é'.repeat(length)}\n`)
        const queue = chunkQueue()
        const out: Buffer[] = []
        const take = (partial: boolean): void => {
          if (partial) queue.seal()
          for (let chunk = queue.head(); chunk !== undefined; chunk = queue.head()) {
            const bytes = chunk.bytes.subarray(0, chunk.length)
            expect(bytes.at(-1)).toBe(0x0a)
            expect(chunk.lastSeq - chunk.firstSeq + 1).toBe(chunk.lines)
            out.push(Buffer.from(bytes))
            queue.advance(chunk, chunk.length)
            queue.shift()
          }
        }
        for (const [n, line] of lines.entries()) if (queue.append(line, n + 1)) take(false)
        take(true)
        expect(Buffer.concat(out).toString()).toBe(lines.join(''))
        expect(queue.bytes).toBe(0)
      }),
      { numRuns: 30 },
    )
  })
})
