import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { identity, KIB, readEvents, recorderOn, statement, temporaryFolder } from './support.ts'

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

describe('text modes', () => {
  const sql = "select * from public.orders where a = 'x' -- c"

  test.each([
    ['full', sql],
    ['normalized', 'select * from public.orders where a = ?'],
    ['fingerprint', undefined],
    ['none', undefined],
  ] as const)('%s', async (mode, shown) => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    const { recorder } = await recorderOn(path)
    recorder.session(identity, mode).statement(statement(sql))
    await recorder.flush()
    const event = readEvents(path)[1]
    expect(event?.at('db.query.text')).toBe(shown)
    expect(event?.at('pgusher.query')).toMatchObject({ sha256: sha256(sql), length_bytes: sql.length, class: 'READ' })
  })

  test.each(['full', 'normalized', 'fingerprint', 'none'] as const)(
    'invariant 38: no password in mode %s',
    async (mode) => {
      const path = join(temporaryFolder(), 'audit.jsonl')
      const { recorder } = await recorderOn(path, { text: mode })
      const session = recorder.session(identity, mode)
      const texts = [
        "alter role x password 'hunter2'",
        "alter role x password 'hunter2",
        "copy t from program 'hunter2'",
      ]
      for (const text of texts) {
        session.statement(statement(text, { parameters: ['hunter2'] }))
        session.event({ event: 'statement.denied', outcome: 'denied', fields: { db: { query: { text } } } })
      }
      session.statement(
        statement("alter role x password 'hunter2', 'cut he", { truncated: true, textBytes: 999, textSha256: 'aa' }),
      )
      await recorder.flush()
      const events = readEvents(path).slice(1)
      expect(events).toHaveLength(7)
      expect(readFileSync(path, 'utf8')).not.toContain('hunter2')
      if (mode === 'full') expect(events[0]?.at('db.query.text')).toBe("alter role x password '<redacted>'")
      expect(events[0]?.at('pgusher.query.sha256')).toBe(sha256(texts[0] ?? ''))
    },
  )
})

describe('invariant 37: the size of an event', () => {
  test('text is cut, length and hash and identity are kept', async () => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    const { recorder } = await recorderOn(path, { max_event: 8 * KIB })
    const session = recorder.session(identity, 'full')
    const sql = `select '${'\u2028é"'.repeat(10_000)}'`
    session.statement(statement(sql))
    session.statement(statement('select 1', { statementName: 'n'.repeat(100_000), parameters: ['p'.repeat(100_000)] }))
    session.statement(statement('select cut', { truncated: true, textBytes: 2 ** 30, textSha256: 'aa'.repeat(32) }))
    session.event({
      event: 'session.denied',
      outcome: 'denied',
      fields: { pgusher: { decision: { nearest: Array(500).fill({ claim: 'c'.repeat(600) }) } } },
    })
    await recorder.flush()
    const lines = readFileSync(path, 'utf8').split('\n')
    for (const line of lines) expect(Buffer.byteLength(line)).toBeLessThanOrEqual(16 * KIB)
    const [long, , prefix, denied] = readEvents(path).slice(1)
    expect(Buffer.byteLength(lines[1] ?? '')).toBeLessThanOrEqual(8 * KIB)
    expect(long?.at('pgusher.query')).toMatchObject({
      truncated: true,
      sha256: sha256(sql),
      length_bytes: Buffer.byteLength(sql),
    })
    expect(sql.startsWith(String(long?.at('db.query.text')))).toBe(true)
    expect(long?.at('cicd.pipeline.run.id')).toBe('123')
    expect(prefix?.at('pgusher.query')).toMatchObject({
      truncated: true,
      sha256: 'aa'.repeat(32),
      length_bytes: 2 ** 30,
    })
    expect(denied?.at('pgusher.decision.nearest')).toHaveLength(16)
  })
})
