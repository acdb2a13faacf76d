import { expect, test } from 'vitest'
import { BULK_BYTES, BulkPacing, type BulkSide } from '../../src/session/bulk-pacing.ts'

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

class Side implements BulkSide {
  readonly room: number
  paused = false
  pauses = 0
  turns = 0
  inTurn = false
  #told: () => void = () => {}

  constructor(room = 4 * 1024 * 1024) {
    this.room = room
  }

  pause(): void {
    this.paused = true
    this.pauses++
  }
  resume(): void {
    this.paused = false
    this.#told()
  }
  turnBegins(): void {
    expect(this.inTurn).toBe(false)
    this.inTurn = true
  }
  turnEnds(): void {
    this.inTurn = false
    this.turns++
  }
  resumed(): Promise<void> {
    return new Promise((resolve) => {
      this.#told = resolve
    })
  }
}

/** What PostgreSQL writes at once, a turn at a time, until it is not read any more. */
async function untilPaused(pacing: BulkPacing, side: Side): Promise<void> {
  while (!side.paused) {
    pacing.passed(side, 8 * 1024)
    await turn()
  }
}

test('bulk from one side is paused, and read again soon', async () => {
  const pacing = new BulkPacing()
  const side = new Side()
  pacing.passed(side, BULK_BYTES)
  await untilPaused(pacing, side)
  await side.resumed()
  expect(side.paused).toBe(false)
  await untilPaused(pacing, side)
  pacing.stop()
})

test('a word of the other side ends the pause at once, and what follows is no bulk', async () => {
  const pacing = new BulkPacing()
  const [one, other] = [new Side(), new Side()]
  pacing.passed(one, BULK_BYTES)
  await untilPaused(pacing, one)
  pacing.passed(other, 5)
  expect(one.paused).toBe(false)
  const { pauses, turns } = one
  for (let sent = 0; sent < 20; sent++) {
    pacing.passed(one, 8 * 1024)
    await turn()
  }
  expect(one).toMatchObject({ pauses, turns })
  pacing.stop()
})

test('a conversation is never paused, however much it brings', async () => {
  const pacing = new BulkPacing()
  const [client, upstream] = [new Side(), new Side()]
  for (let question = 0; question < 200; question++) {
    pacing.passed(client, 100)
    await turn()
    for (let part = 0; part < 20; part++) {
      pacing.passed(upstream, 32 * 1024)
      await turn()
    }
  }
  expect([client, upstream]).toMatchObject([
    { pauses: 0, turns: 0 },
    { pauses: 0, turns: 0 },
  ])
})

test('what comes a little at a time is not paused', async () => {
  const pacing = new BulkPacing()
  const side = new Side()
  pacing.passed(side, BULK_BYTES)
  for (let sent = 0; sent < 200; sent++) {
    pacing.passed(side, 1)
    await turn()
  }
  expect(side.pauses).toBe(0)
})

test('nor is what comes faster than it can gather', async () => {
  const pacing = new BulkPacing()
  const side = new Side()
  for (let sent = 0; sent < 200; sent++) {
    pacing.passed(side, BULK_BYTES)
    await turn()
  }
  expect(side).toMatchObject({ pauses: 0, turns: 200 })
})

test('nor is what would fill the buffers of a Unix socket before the shortest pause is over', async () => {
  const pacing = new BulkPacing()
  const unix = new Side(16 * 1024)
  pacing.passed(unix, BULK_BYTES)
  let quick = 0
  for (let before = performance.now(); quick < 100; ) {
    const began = performance.now()
    pacing.passed(unix, 63 * 1024)
    await turn()
    // On a busy machine a turn can take longer, and brings little for that.
    if (performance.now() - before < 3) {
      quick++
      expect(unix.paused).toBe(false)
    }
    unix.paused = false
    before = began
  }
  pacing.stop()
})

test('chunks of one turn of the loop are one turn of bulk', async () => {
  const pacing = new BulkPacing()
  const side = new Side()
  for (let part = 0; part < 5; part++) pacing.passed(side, BULK_BYTES)
  expect(side).toMatchObject({ inTurn: true, turns: 0 })
  await turn()
  expect(side).toMatchObject({ inTurn: false, turns: 1 })
})

test('the turn at hand ends when it is stopped, and only once', async () => {
  const pacing = new BulkPacing()
  const side = new Side()
  pacing.passed(side, BULK_BYTES)
  expect(side).toMatchObject({ inTurn: true, turns: 0 })
  pacing.stop()
  expect(side).toMatchObject({ inTurn: false, turns: 1 })
  pacing.passed(side, BULK_BYTES)
  await turn()
  expect(side).toMatchObject({ inTurn: false, turns: 1, pauses: 0 })
})

test('once stopped it pauses and resumes nothing', async () => {
  const pacing = new BulkPacing()
  const side = new Side()
  pacing.passed(side, BULK_BYTES)
  await untilPaused(pacing, side)
  pacing.stop()
  const { pauses } = side
  for (let sent = 0; sent < 50; sent++) {
    pacing.passed(side, 8 * 1024)
    await turn()
  }
  // Nor did the timer of the pause, which another one outlasts that began later.
  const later = new BulkPacing()
  const other = new Side()
  later.passed(other, BULK_BYTES)
  await untilPaused(later, other)
  await other.resumed()
  expect(side).toMatchObject({ paused: true, pauses, inTurn: false })
})
