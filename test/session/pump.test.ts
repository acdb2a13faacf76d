import { expect, test } from 'vitest'
import { BulkPacing, type BulkSide } from '../../src/session/bulk-pacing.ts'
import { createPump, type Pump } from '../../src/session/pump.ts'
import { createFrameScanner, DROP } from '../../src/wire/frame-scanner.ts'
import { pair } from '../support/socket-pair.ts'

/** Bulk whenever the test says so. */
class ByHand extends BulkPacing {
  side: BulkSide | undefined

  override passed(side: BulkSide): void {
    this.side = side
  }
}

const MESSAGE = Buffer.concat([Buffer.from('d\0\0\x40\x04', 'latin1'), Buffer.alloc(0x4000)])

async function pumped(maxLength = MESSAGE.length) {
  const [writer, source] = await pair()
  const [destination, far] = await pair()
  // An E is taken out, and something else put in its place.
  const handler = {
    onHeader: (type: number) => (type === 0x45 ? DROP + 4 : 0),
    onBody: () => true,
    onDropped: () => pump.inject(Buffer.from('X\0\0\0\x04', 'latin1')),
  }
  const pacing = new ByHand()
  const pump: Pump = createPump(
    source,
    destination,
    createFrameScanner(handler, () => maxLength),
    {
      pacing,
      ...{ beforeChunk() {}, afterChunk() {}, onStop() {}, onEnd() {} },
      onFailure: (error) => destination.destroy(error as Error),
    },
  )
  pump.start(Buffer.alloc(0))
  const stop = (): void => {
    for (const socket of [writer, source, destination, far]) socket.destroy()
  }
  return { writer, source, destination, far, pacing, pump, stop }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

test.each(['drain', 'discard'] as const)(
  '%s reads on although the destination is full, and no pause of bulk ends that',
  async (how) => {
    const { writer, source, destination, far, pacing, pump, stop } = await pumped()
    far.pause()
    while (!destination.writableNeedDrain) {
      writer.write(MESSAGE)
      await turn()
    }
    expect(source.isPaused()).toBe(true)
    pacing.side?.turnBegins()
    pump[how]()
    pacing.side?.turnEnds()
    pacing.side?.pause()
    pacing.side?.resume()
    expect(source.isPaused()).toBe(false)
    // Also what is sent from now on.
    const taken = new Promise<void>((resolve) => writer.write(Buffer.concat(Array(500).fill(MESSAGE)), () => resolve()))
    await taken
    stop()
  },
)

test('a pause of bulk does not end while the destination is full', async () => {
  const { writer, source, destination, far, pacing, stop } = await pumped()
  far.pause()
  while (!destination.writableNeedDrain) {
    writer.write(MESSAGE)
    await turn()
  }
  pacing.side?.pause()
  pacing.side?.resume()
  expect(source.isPaused()).toBe(true)
  far.resume()
  while (source.isPaused()) await turn()
  pacing.side?.pause()
  expect(source.isPaused()).toBe(true)
  pacing.side?.resume()
  expect(source.isPaused()).toBe(false)
  stop()
})

test('the end of a session is told behind the message under way, to a client that is behind as well', async () => {
  const { writer, destination, far, pump, stop } = await pumped()
  far.pause()
  const half = MESSAGE.length / 2
  // Each ends in the middle of a message.
  writer.write(MESSAGE.subarray(0, half))
  const shifted = Buffer.concat([MESSAGE.subarray(half), MESSAGE.subarray(0, half)])
  while (!destination.writableNeedDrain) {
    writer.write(shifted)
    await turn()
  }
  const told = new Promise<void>((resolve) => {
    pump.finish(() => {
      destination.end('told')
      pump.discard()
      resolve()
    })
  })
  writer.write(Buffer.concat(Array(20).fill(shifted)))
  await told
  const seen: Buffer[] = []
  for await (const chunk of far) seen.push(chunk as Buffer)
  const all = Buffer.concat(seen)
  expect((all.length - 4) % MESSAGE.length).toBe(0)
  expect(all.toString('latin1', all.length - 4)).toBe('told')
  expect(all.subarray(-4 - MESSAGE.length, -4)).toEqual(MESSAGE)
  expect(pump.bytes()).toBe(all.length - 4)
  stop()
})

test('nor is it lost where the message under way is taken out of the stream', async () => {
  const { writer, source, destination, far, pump, stop } = await pumped()
  writer.write(Buffer.from('E\0\0\0\x0eabc', 'latin1'))
  while (source.bytesRead < 8) await turn()
  const told = new Promise<void>((resolve) => {
    pump.finish(() => {
      destination.end('told')
      pump.discard()
      resolve()
    })
  })
  writer.write(Buffer.from('defghijd\0\0\0\x05', 'latin1'))
  await told
  const seen: Buffer[] = []
  for await (const chunk of far) seen.push(chunk as Buffer)
  expect(Buffer.concat(seen).toString('latin1')).toBe('X\0\0\0\x04told')
  stop()
})

test('of a message without end a client that is behind gets no more than a megabyte', async () => {
  const { writer, source, destination, far, pump, stop } = await pumped(2 ** 29)
  far.pause()
  writer.write(Buffer.from('d\x10\0\0\0', 'latin1'))
  while (!destination.writableNeedDrain) {
    writer.write(MESSAGE)
    await turn()
  }
  const before = pump.bytes()
  pump.finish(() => destination.destroy(new Error('there was no end')))
  expect(source.isPaused()).toBe(false)
  while (!source.isPaused()) {
    writer.write(MESSAGE)
    await turn()
  }
  expect(pump.bytes() - before).toBeGreaterThan(1024 * 1024 - 64 * 1024)
  expect(pump.bytes() - before).toBeLessThan(1024 * 1024 + 64 * 1024)
  expect(destination.destroyed).toBe(false)
  stop()
})
