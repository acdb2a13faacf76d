import fc from 'fast-check'
import { expect, test } from 'vitest'
import { findLines } from '../../src/audit/find-lines.ts'

async function* chunksOf(data: Buffer, sizes: readonly number[]): AsyncGenerator<Buffer> {
  // One memory for all chunks, as a reader may use it.
  const memory = Buffer.alloc(Math.max(...sizes, 1))
  let at = 0
  for (let turn = 0; at < data.length; turn++) {
    const size = Math.max(1, sizes[turn % sizes.length] ?? 1)
    const length = data.copy(memory, 0, at, at + size)
    yield memory.subarray(0, length)
    at += length
  }
}

test('finds the lines that hold the text, however the file is cut into chunks', async () => {
  const line = fc.string({ unit: fc.constantFrom('D', '-', '7', 'Q', '"', 'ü', '{', '\u2028'), maxLength: 12 })
  const sizes = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 5 })
  await fc.assert(
    fc.asyncProperty(fc.array(line, { maxLength: 12 }), sizes, fc.boolean(), async (lines, cuts, ended) => {
      const text = lines.join('\n') + (ended ? '\n' : '')
      const found: string[] = []
      for await (const one of findLines(chunksOf(Buffer.from(text), cuts), '"D-7')) found.push(one)
      expect(found).toEqual(text.split('\n').filter((one) => one.includes('"D-7')))
    }),
  )
})

test('a file without line ends is not kept in memory', async () => {
  async function* endless(): AsyncGenerator<Buffer> {
    for (let megabytes = 0; megabytes < 64; megabytes++) yield Buffer.alloc(1024 * 1024, 'x')
    yield Buffer.from('\n{"id":"D-7Q2MK4"}\n')
  }
  const before = process.memoryUsage().arrayBuffers
  const found: string[] = []
  let most = 0
  for await (const line of findLines(endless(), '"D-7Q2MK4"')) {
    found.push(line)
    most = Math.max(most, process.memoryUsage().arrayBuffers - before)
  }
  expect(found).toEqual(['{"id":"D-7Q2MK4"}'])
  expect(most).toBeLessThan(200 * 1024 * 1024)
})
