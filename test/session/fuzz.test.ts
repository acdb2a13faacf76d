import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { StatementRecord } from '../../src/audit/recorder.ts'
import { createBackendHandler, maxBackendLength } from '../../src/session/from-backend.ts'
import { createFrontendHandler, maxFrontendLength } from '../../src/session/from-frontend.ts'
import { StatementTracker } from '../../src/session/statement-tracker.ts'
import { createFrameScanner } from '../../src/wire/frame-scanner.ts'
import {
  bind,
  close,
  copyData,
  copyDone,
  copyFail,
  describe,
  execute,
  flush,
  functionCall,
  parse,
  query,
  run,
  sync,
  terminate,
} from '../support/raw-messages.ts'
import { CODES, createBackendModel } from './backend-model.ts'

function startSession(onUpstream: (bytes: Buffer) => void) {
  const records: StatementRecord[] = []
  let stopped = false
  const tracker = new StatementTracker((record) => records.push(record))
  const stop = (): void => {
    stopped = true
  }
  const decode = (buffer: Buffer, start: number, end: number) => buffer.toString('utf8', start, end)
  const rules = {
    functionCall: false,
    auditAccepts: () => true,
    decode: () => decode,
    prefetch() {},
    onTerminate: () => false,
  }
  const frontend = createFrameScanner(
    createFrontendHandler(tracker, { ...rules, stop, inject: onUpstream }),
    maxFrontendLength,
  )
  const backend = createFrameScanner(
    createBackendHandler(tracker, { replication: false, inject() {}, stop, onParameter() {}, onFatal() {} }),
    maxBackendLength,
  )
  return {
    tracker,
    records,
    get stopped() {
      return stopped
    },
    fromClient: (chunk: Buffer) => frontend.scan(chunk, onUpstream),
    fromUpstream: (chunk: Buffer) => backend.scan(chunk, () => {}),
  }
}

/** Cuts a stream of frames into messages again, as PostgreSQL reads it. */
function messageCutter(onMessage: (type: number, body: Buffer) => void): (bytes: Buffer) => void {
  let pending: Buffer = Buffer.alloc(0)
  return (bytes) => {
    pending = Buffer.concat([pending, bytes])
    while (pending.length >= 5 && pending.length > pending.readInt32BE(1)) {
      const end = pending.readInt32BE(1) + 1
      onMessage(pending[0]!, pending.subarray(5, end))
      pending = pending.subarray(end)
    }
  }
}

const NAMES = ['', '', 'a', 'b']
const name = fc.constantFrom(...NAMES)
const verb = fc.constantFrom('ok', 'ok', 'ok', 'err', '--empty', 'begin', 'commit', 'copyin', 'copybad')
const statement = fc.tuple(verb, fc.nat(999)).map(([word, n]) => `${word} ${n}`)
/** Two COPYs of one Query, with or without what ends each. */
const copies = fc
  .subarray([copyData('good'), sync, copyDone, sync, copyData('bad'), copyDone, sync])
  .map((parts) => Buffer.concat([query('copyin 1;copyin 2'), ...parts]))
const message = fc.oneof(
  { weight: 1, arbitrary: copies },
  { weight: 3, arbitrary: fc.array(statement, { minLength: 1, maxLength: 3 }).map((all) => query(all.join(';'))) },
  { weight: 3, arbitrary: statement.map((sql) => run(sql)) },
  { weight: 1, arbitrary: fc.nat(999).map((n) => Buffer.concat([run(`late ${n}`), sync])) },
  { weight: 1, arbitrary: fc.tuple(name, statement).map(([to, sql]) => parse(to, sql)) },
  { weight: 1, arbitrary: fc.nat(999).map((n) => parse('', `syntax ${n}`)) },
  { weight: 2, arbitrary: fc.tuple(name, name).map(([portal, from]) => bind(portal, from)) },
  { weight: 1, arbitrary: fc.tuple(fc.constantFrom('S' as const, 'P' as const), name).map((of) => describe(...of)) },
  { weight: 1, arbitrary: fc.tuple(fc.constantFrom('S' as const, 'P' as const), name).map((of) => close(...of)) },
  { weight: 2, arbitrary: name.map((portal) => execute(portal)) },
  { weight: 4, arbitrary: fc.constantFrom(sync, sync, sync, flush) },
  { weight: 3, arbitrary: fc.constantFrom(copyData('good'), copyData('bad'), copyDone, copyDone, copyFail('no')) },
)

interface Plan {
  messages: Buffer[]
  /** Bytes a chunk; how many of the model's answers are delivered after it. */
  steps: [bytes: number, answers: number][]
}

const plan: fc.Arbitrary<Plan> = fc.record({
  messages: fc.array(message, { minLength: 5, maxLength: 40, size: 'max' }),
  steps: fc.array(fc.tuple(fc.integer({ min: 1, max: 200 }), fc.nat(4)), { minLength: 1, maxLength: 20 }),
})

function play({ messages, steps }: Plan) {
  const model = createBackendModel()
  const session = startSession(messageCutter(model.take))
  const deliver = (count: number): void => {
    const chunk = Buffer.concat(model.answers.splice(0, count))
    if (!session.stopped) session.fromUpstream(chunk)
  }
  const bytes = Buffer.concat(messages)
  for (let at = 0, step = 0; at < bytes.length && !session.stopped; step++) {
    const [size, answers] = steps[step % steps.length]!
    session.fromClient(bytes.subarray(at, at + size))
    at += size
    deliver(answers)
  }
  deliver(Number.POSITIVE_INFINITY)
  return { model, session }
}

const unexecuted = (record: StatementRecord) => /^(prepared|bound)_only$/.test(record.errorType ?? '')
/** Nothing of the execution itself is known by the record: another message met the error, or PostgreSQL threw it away. */
const notRun = (record: StatementRecord) => record.errorType === 'not_executed' || record.sqlstate === CODES.other

test('whatever order messages come in, what ran is on record as it ran, and nothing else is', () => {
  fc.assert(
    fc.property(plan, (played) => {
      const { model, session } = play(played)
      const known = session.records.length
      if (!session.stopped && !model.dead) {
        // Ends a COPY, and a pipeline that an error discarded.
        session.fromClient(Buffer.concat([copyFail('end'), sync]))
        session.fromUpstream(Buffer.concat(model.answers.splice(0)))
        if (session.tracker.running !== 0 || session.tracker.backlog !== 0) {
          throw new Error(`left: ${session.tracker.running} running, backlog ${session.tracker.backlog}`)
        }
      }
      session.tracker.finish('lost')
      expect(session.records.length).toBeGreaterThanOrEqual(known)
      const records = session.records.filter((record) => !unexecuted(record))
      const told = records.filter((record) => record.outcome !== 'unknown' && !notRun(record))
      const shown = told.map(({ text, batchIndex, sqlstate }) => ({
        text: text?.split(';')[batchIndex]?.trim(),
        code: sqlstate ?? '',
      }))
      // A session that ended in the middle has executions without an outcome behind those that are known.
      const ran = session.stopped || model.dead ? model.ran.slice(0, shown.length) : model.ran
      expect(shown.map(({ code }) => code)).toEqual(ran.map(({ code }) => code))
      for (const [index, { text, code }] of ran.entries()) {
        if (text !== undefined && code !== CODES.aborted) expect(shown[index]?.text).toBe(text.trim())
      }
      if (session.stopped || model.dead) return
      expect(records.filter(notRun).filter(({ errorType }) => !/_failed$/.test(errorType ?? ''))).toHaveLength(
        model.skipped,
      )
      expect(records.filter(({ outcome }) => outcome === 'unknown')).toEqual([])
    }),
    { numRuns: 6_000 },
  )
})

test('the session ends where a COPY fails between the header of a statement and its text, and a Sync may have been the COPY’s', () => {
  const model = createBackendModel()
  const session = startSession(messageCutter(model.take))
  const statement = query('ok 1')
  session.fromClient(Buffer.concat([run('copybad 1'), sync, sync]))
  for (const answer of model.answers.splice(0, 3)) session.fromUpstream(answer)
  session.fromClient(statement.subarray(0, 5))
  session.fromUpstream(model.answers.splice(0, 1)[0]!)
  expect(session.stopped).toBe(false)
  session.fromClient(statement.subarray(5))
  expect(session.stopped).toBe(true)
  expect(session.records.map(({ text, outcome }) => [text, outcome])).toEqual([['copybad 1', 'failure']])
  // The rest of it never went upstream.
  expect(model.ran.map(({ text }) => text)).toEqual(['copybad 1'])
})

test('invariant 39: mutated messages of either side throw nothing, and what they leave is bounded', () => {
  const rubbish = fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes))
  const mutated = fc
    .tuple(fc.oneof(message, fc.constant(terminate), fc.constant(functionCall(1, ['2']))), fc.nat(), fc.nat(255))
    .map(([whole, at, byte]) => {
      const copy = Buffer.from(whole)
      copy[at % copy.length] = byte
      return copy
    })
  const piece = fc.oneof(mutated, rubbish, message)
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), piece), { maxLength: 40 }), (pieces) => {
      const session = startSession(() => {})
      for (const [client, bytes] of pieces) {
        if (client) session.fromClient(bytes)
        else session.fromUpstream(bytes)
      }
      session.tracker.finish('lost')
      expect(session.tracker.backlog).toBe(0)
      expect(session.tracker.running).toBe(0)
    }),
    { numRuns: 1_000 },
  )
})

test('answers of a model, mutated, throw nothing', () => {
  fc.assert(
    fc.property(plan, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 5 }), (played, mutations) => {
      const { model, session } = play({ ...played, steps: [[200, 0]] })
      const answers = Buffer.concat(model.answers)
      for (const [at, byte] of mutations) if (answers.length > 0) answers[at % answers.length] = byte
      session.fromUpstream(answers)
      session.tracker.finish('lost')
      expect(session.tracker.running).toBe(0)
    }),
    { numRuns: 300 },
  )
})
