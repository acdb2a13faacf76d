import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createStatementGate, type StatementGate, type Verdict } from '../../src/session/statement-gate.ts'
import { createFrameScanner, DROP } from '../../src/wire/frame-scanner.ts'
import { copyData, flush, parse, query, sync, terminate } from '../support/raw-messages.ts'

const REFUSED: Verdict = { sqlstate: '42501', decision: '{}', frame: Buffer.alloc(0) }
const INSTEAD = query('fails')

interface Waiting {
  text: string
  resolve(verdict: Verdict): void
}

/** A gate before a real scanner. A text with `no` is refused, one with `late` is decided when `decide` is called. */
function start() {
  const upstream: Buffer[] = []
  const waiting: Waiting[] = []
  let refusal: Verdict
  let holds = 0
  const inner = createFrameScanner(
    {
      onHeader: () => (refusal === undefined ? 0 : DROP),
      onBody: () => true,
      onDropped: () => void upstream.push(INSTEAD),
    },
    () => 0x3fffffff,
  )
  const release = (bytes: Buffer): void => void upstream.push(Buffer.from(bytes))
  const gate: StatementGate = createStatementGate(inner, {
    decide(_type, body) {
      const text = body.toString()
      const verdict = text.includes('no') ? REFUSED : undefined
      return text.includes('late') ? new Promise((resolve) => waiting.push({ text, resolve })) : verdict
    },
    tooLong: () => REFUSED!,
    refuse(next) {
      refusal = next
    },
    hold() {
      holds++
    },
    resume() {
      holds--
      gate.scan(Buffer.alloc(0), release)
    },
  })
  return {
    gate,
    send: (chunk: Buffer) => gate.scan(chunk, release),
    /** All that wait, one after the other. */
    async decideAll() {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        next.resolve(next.text.includes('no') ? REFUSED : undefined)
        await Promise.resolve()
        await Promise.resolve()
      }
    },
    get upstream() {
      return Buffer.concat(upstream).toString('latin1')
    },
    get held() {
      return holds > 0
    },
  }
}

const text = (bytes: readonly Buffer[]): string => Buffer.concat(bytes).toString('latin1')

test('invariant 24: a statement that is not decided waits; what is before it went on, what is behind it waits too', async () => {
  const g = start()
  g.send(Buffer.concat([query('a'), sync, query('late'), flush, query('b')]))
  expect(g.upstream).toBe(text([query('a'), sync]))
  expect([g.held, g.gate.waiting, g.gate.between]).toEqual([true, true, false])
  g.send(query('c'))
  expect(g.upstream).toBe(text([query('a'), sync]))
  let free = false
  g.gate.whenFree(() => {
    free = true
  })
  await g.decideAll()
  expect(g.upstream).toBe(text([query('a'), sync, query('late'), flush, query('b'), query('c')]))
  expect([g.held, g.gate.waiting, g.gate.between, free]).toEqual([false, false, true, true])
})

test('each byte by itself: the same, and a message goes on only when it is whole and decided', async () => {
  const g = start()
  const bytes = Buffer.concat([query('a'), parse('x', 'late no'), sync, query('no'), query('late')])
  for (const byte of bytes) g.send(Buffer.of(byte))
  expect(g.upstream).toBe(text([query('a')]))
  await g.decideAll()
  expect(g.upstream).toBe(text([query('a'), INSTEAD, sync, INSTEAD, query('late')]))
})

test('a message that is too long is dropped as it passes, whatever it is', () => {
  const g = start()
  const long = query('x'.repeat(300_000))
  for (let at = 0; at < long.length; at += 4_000) {
    g.send(long.subarray(at, at + 4_000))
    expect(g.upstream).toBe(at + 4_000 < long.length ? '' : text([INSTEAD]))
  }
  g.send(Buffer.concat([query('a'), copyData('y'.repeat(300_000))]))
  expect(g.upstream).toBe(text([INSTEAD, query('a'), copyData('y'.repeat(300_000))]))
})

test('behind Terminate, and behind a length that cannot be, nothing is decided or kept', () => {
  for (const end of [terminate, Buffer.from('Q\0\0\0\0', 'latin1')]) {
    const g = start()
    g.send(Buffer.concat([query('a'), end, query('late'), Buffer.from('Q\0')]))
    expect(g.upstream.startsWith(text([query('a')]))).toBe(true)
    expect(g.held).toBe(false)
    expect(g.gate.violation === undefined).toBe(end === terminate)
  }
})

const body = fc.constantFrom('a', 'late', 'no', 'late no', 'x'.repeat(70_000))
const message = fc.oneof(
  {
    weight: 3,
    arbitrary: body.map((sql) => ({ sent: query(sql), refused: sql.includes('no') || sql.length > 66_000 })),
  },
  {
    weight: 1,
    arbitrary: body.map((sql) => ({ sent: parse('p', sql), refused: sql.includes('no') || sql.length > 66_000 })),
  },
  { weight: 2, arbitrary: fc.constantFrom(sync, flush, copyData('z')).map((sent) => ({ sent, refused: false })) },
)

test('invariant 24: whatever is sent in whatever pieces, and whenever it is decided: in order, and nothing that is refused', async () => {
  const pieces = fc.array(fc.tuple(fc.integer({ min: 1, max: 5_000 }), fc.boolean()), { minLength: 1, maxLength: 12 })
  await fc.assert(
    fc.asyncProperty(fc.array(message, { maxLength: 30 }), pieces, async (messages, plan) => {
      const g = start()
      const stream = Buffer.concat(messages.map(({ sent }) => sent))
      for (let at = 0, step = 0; at < stream.length; step++) {
        const [size, decide] = plan[step % plan.length]!
        g.send(stream.subarray(at, at + size))
        at += size
        if (decide) await g.decideAll()
      }
      await g.decideAll()
      expect(g.upstream === text(messages.map(({ sent, refused }) => (refused ? INSTEAD : sent)))).toBe(true)
    }),
    { numRuns: 60 },
  )
})
