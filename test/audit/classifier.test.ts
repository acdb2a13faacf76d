import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Classifier, createClassifier } from '../../src/audit/classifier.ts'

const log: string[] = []
let classifier: Classifier

beforeAll(async () => {
  classifier = await createClassifier({
    log: (_level, message) => log.push(message),
    deadline: 25_000,
    decideWithin: 30_000,
  })
})
afterAll(() => classifier.close())

describe('the classifier', () => {
  test('answers from the worker, then from its cache, with one flight a text', async () => {
    const sql = 'select * from public.orders where id = 1'
    expect(classifier.peek(sql)).toBeUndefined()
    const [first, second] = await Promise.all([classifier.classify(sql), classifier.classify(sql)])
    expect(second).toBe(first)
    expect(first).toMatchObject({
      settled: true,
      parsed: true,
      statements: [{ class: 'READ', tables: ['public.orders'] }],
    })
    expect(classifier.peek(sql)).toBe(first)
  })

  test('invariant 39: an input that traps the parser is unknown, and the next text is read by a new worker', async () => {
    const bomb = `select ${'1+'.repeat(20_000)}1`
    const before = log.length
    const hit = await classifier.classify(bomb)
    expect(hit).toMatchObject({ settled: true, parsed: false, text: bomb })
    // On a machine that is busy enough the parser does not even come to crash.
    expect(log.slice(before)).toEqual([
      expect.stringMatching(
        /^(?:a statement crashed the SQL parser|classifying a statement took too long); (?:its|the) worker is replaced$/,
      ),
    ])
    expect(await classifier.classify('truncate a.b')).toMatchObject({ statements: [{ class: 'WRITE' }] })
    // It is not tried a second time.
    expect(classifier.peek(bomb)).toBe(hit)
  })

  test('what crashed the parser and may hold a password has no text', async () => {
    const hit = await classifier.classify(`alter role x password 'hunter2'; select ${'1+'.repeat(20_000)}1`)
    expect(hit).toMatchObject({ parsed: false, text: undefined, normalized: undefined, secret: true })
  })

  test('texts that wait behind a crash are classified all the same', async () => {
    const texts = Array.from({ length: 20 }, (_, n) => `select ${n} from a.b`)
    const all = [classifier.classify(`select ${'2+'.repeat(20_000)}1`), ...texts.map((sql) => classifier.classify(sql))]
    const [bomb, ...rest] = await Promise.all(all)
    expect(bomb?.parsed).toBe(false)
    expect(rest.map(({ statements }) => statements[0]?.class)).toEqual(texts.map(() => 'READ'))
  })

  test('invariant 39: a text beyond 64 KiB and one with NUL are not parsed, and redacted by tokens', async () => {
    const long = `select '${'x'.repeat(70_000)}'; alter role a password 'hunter2'`
    expect(await classifier.classify(long)).toMatchObject({
      parsed: false,
      text: long.replace('hunter2', '<redacted>'),
    })
    // The lexer would take longer for the second than anybody waits.
    for (const run of [`select ${'+'.repeat(1_000)}1`, '/*'.repeat(30_000)]) {
      expect(await classifier.classify(run)).toMatchObject({ parsed: false, text: run })
    }
    const nul = "select 1\0; alter role a password 'hunter2'"
    expect(await classifier.classify(nul)).toMatchObject({ parsed: false, text: nul.replace('hunter2', '<redacted>') })
  })
})

describe('a classifier in a hurry', () => {
  test('gives up at its deadline: no text where that may hold a secret', async () => {
    const hurried = await createClassifier({ log: () => {}, deadline: 0 })
    // Two thousand texts in front keep the worker busy for longer than no time at all.
    const crowd = Array.from({ length: 200 }, (_, n) =>
      hurried.classify(`select ${n} from t where ${'a = 1 and '.repeat(100)} true`),
    )
    const [open, secret] = await Promise.all([
      hurried.classify('select 1 from z'),
      hurried.classify("alter role x password 'hunter2'"),
    ])
    await Promise.all(crowd)
    expect(open).toMatchObject({ settled: false, parsed: false, text: 'select 1 from z' })
    expect(secret).toMatchObject({ settled: false, parsed: false, text: undefined })
    expect(hurried.givenUp("create user x password 'y'").text).toBeUndefined()
    await hurried.close()
  })

  test('refuses nobody when its queue is full, and lets nobody wait after it closed', async () => {
    const crowded = await createClassifier({ log: () => {}, deadline: 10_000 })
    const flood = Array.from({ length: 2_500 }, (_, n) => crowded.classify(`select ${n}`))
    const closing = crowded.close()
    const results = await Promise.all(flood)
    await closing
    expect(results.every(({ text }, n) => text === `select ${n}`)).toBe(true)
    expect(await crowded.classify('select late')).toMatchObject({ settled: false, parsed: false })
  })
})

describe('invariant 24: a decision about a statement', () => {
  const crowdOf = (classifier: Classifier, count: number) =>
    Array.from({ length: count }, (_, n) =>
      classifier.classify(`select ${n} from t where ${'a = b and '.repeat(50)} c${n}`),
    )

  test('waits longer than a record, and not behind texts that wait for their records', async () => {
    const crowded = await createClassifier({ log: () => {}, deadline: 0 })
    const crowd = crowdOf(crowded, 300)
    const landed: string[] = []
    void Promise.all(crowd.map((one) => one.then(() => landed.push('record'))))
    const known = await crowded.decide('truncate a.b')
    expect(known).toMatchObject({ settled: true, parsed: true, statements: [{ needs: [{ classes: ['WRITE'] }] }] })
    expect(crowded.decide('truncate a.b')).toBe(known)
    // The last of the crowd has not been read, and is put to the front for who decides by it.
    const last = `select 299 from t where ${'a = b and '.repeat(50)} c299`
    expect(crowded.peek(last)).toBeUndefined()
    expect(await crowded.decide(last)).toMatchObject({ settled: true, statements: [{ class: 'READ' }] })
    await crowded.close()
  })

  test('about a short text does not wait for the long ones that came before it', async () => {
    const told: number[] = []
    const list = (n: number, length: number): string => `select ${n}${', 1'.repeat(length)}`
    const lengths = [3_000, 2_000, 2_500, 0]
    await Promise.all(
      lengths.map(async (length, n) => {
        await classifier.decide(list(n, length))
        told.push(length)
      }),
    )
    expect(told).toEqual([3_000, 0, 2_000, 2_500])
  })

  test('without an answer in time, or behind the end, is none', async () => {
    const slow = await createClassifier({ log: () => {}, deadline: 0, decideWithin: 0 })
    const crowd = crowdOf(slow, 50)
    const unknown = { settled: false, parsed: false, statements: [] }
    expect(await slow.decide('truncate a.b')).toMatchObject(unknown)
    const late = slow.decide('truncate a.c')
    const closing = slow.close()
    expect(await late).toMatchObject(unknown)
    expect(slow.decide('truncate a.d')).toMatchObject(unknown)
    await Promise.all([closing, ...crowd])
  })

  test('is none where too many wait', async () => {
    const crowded = await createClassifier({ log: () => {} })
    const all = Array.from({ length: 2_100 }, (_, n) => crowded.decide(`drop table t${n}`))
    const results = await Promise.all(all)
    expect(results.filter(({ settled }) => !settled).length).toBeGreaterThan(50)
    expect(results.every(({ settled, statements }) => !settled || statements[0]?.class === 'DDL')).toBe(true)
    await crowded.close()
  })

  test('about what crashes the parser is none, and those behind it have theirs', async () => {
    const bomb = classifier.decide(`select ${'3+'.repeat(20_000)}1`)
    expect(await classifier.decide('drop table a.b')).toMatchObject({ statements: [{ class: 'DDL' }] })
    expect(await bomb).toMatchObject({ settled: true, parsed: false })
  })
})
