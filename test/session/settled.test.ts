import fc from 'fast-check'
import { expect, test } from 'vitest'
import { StatementTracker } from '../../src/session/statement-tracker.ts'

const IDLE = 73
const OPEN = 84
const TEXT = { text: 'select 1', bytes: 8, sha256: undefined, truncated: false }
const tag = Buffer.from('SELECT 1\0')

const tracker = () => new StatementTracker(() => {})
const complete = (one: StatementTracker) => one.commandComplete(tag, 0, tag.length)

test('a session that sent nothing, or had its answer, is settled', () => {
  const one = tracker()
  expect(one.settled).toBe(true)
  one.query(TEXT, 10)
  expect(one.settled).toBe(false)
  complete(one)
  expect(one.settled).toBe(false)
  one.ready(IDLE)
  expect(one.settled).toBe(true)
  one.query(TEXT, 10)
  complete(one)
  one.ready(OPEN)
  expect(one.settled).toBe(false)
})

test('what is answered and not synchronised is not settled, also behind the answer of a Sync before it', () => {
  const one = tracker()
  one.sync()
  one.parse('', TEXT, 10)
  one.ready(IDLE)
  one.parseComplete()
  expect(one.settled).toBe(false)
  one.bind('', '', 10)
  one.bindComplete()
  one.execute('', 10)
  complete(one)
  expect(one.settled).toBe(false)
  one.sync()
  expect(one.settled).toBe(false)
  one.ready(IDLE)
  expect(one.settled).toBe(true)
})

test('a COPY that ignored a Sync leaves it a guess for good', () => {
  const one = tracker()
  one.query(TEXT, 10)
  one.copyInStarted()
  one.sync()
  one.copyEnd()
  complete(one)
  one.ready(IDLE)
  expect(one.settled).toBe(false)
})

test('while anything that ReadyForQuery has to answer is open, and behind an error up to it, no order of messages is settled', () => {
  const send = fc.constantFrom<(one: StatementTracker) => void>(
    (one) => one.query(TEXT, 10),
    (one) => one.parse('a', TEXT, 10),
    (one) => one.bind('', 'a', 10),
    (one) => one.describe(),
    (one) => one.execute('', 10),
    (one) => one.close(0x53, 'a'),
    (one) => one.sync(),
    (one) => one.functionCall(1, [], 10, undefined),
  )
  const answer = fc.constantFrom<(one: StatementTracker) => void>(
    complete,
    (one) => one.parseComplete(),
    (one) => one.bindComplete(),
    (one) => one.described(),
    (one) => one.closeComplete(),
    (one) => one.emptyQuery(),
    (one) => one.error('22012'),
  )
  fc.assert(
    fc.property(fc.array(fc.oneof(send, answer), { maxLength: 20 }), send, fc.array(answer), (before, last, after) => {
      const one = tracker()
      for (const step of [...before, last, ...after]) step(one)
      expect(one.settled).toBe(false)
    }),
  )
})
