import * as fs from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { auditConfig, identity, KIB, readEvents, recorderOn, statement, temporaryFolder, until } from './support.ts'

const NAME = /^audit\.jsonl\.\d{8}T\d{6}\.\d{3}Z-(\d+)(-\d+)?$/

/** Finished files, oldest first. */
function finished(path: string): string[] {
  return fs
    .readdirSync(dirname(path))
    .filter((name) => NAME.test(name))
    .sort((a, b) => Number(NAME.exec(a)?.[1]) - Number(NAME.exec(b)?.[1]))
    .map((name) => join(dirname(path), name))
}

describe('rotation', () => {
  test('by size: no file is larger, none is torn, the seq goes on, and only so many are kept', async () => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    fs.writeFileSync(`${path}.old`, 'not ours')
    fs.writeFileSync(`${path}.20200101T000000.000Z-1.gz`, 'not ours')
    const { recorder } = await recorderOn(path, { file: { path, rotate: 100 * KIB, keep: 3 } })
    const session = recorder.session(identity, 'full')
    for (let round = 0; round < 12; round++) {
      for (let n = 0; n < 40; n++) session.statement(statement('select 1 from public.orders'))
      await recorder.flush()
    }
    await recorder.close()
    const files = finished(path)
    expect(files).toHaveLength(3)
    const events = [...files, path].flatMap(readEvents)
    const seqs = events.map((event) => Number(event.at('pgusher.seq')))
    expect(seqs).toEqual(seqs.map((_, n) => (seqs[0] ?? 0) + n))
    for (const file of files) {
      expect(fs.statSync(file).size).toBeLessThanOrEqual(100 * KIB)
      const first = readEvents(file)[0]
      expect(NAME.exec(basename(file))?.[1]).toBe(String(first?.at('pgusher.seq')))
    }
    const told = events.filter(({ event }) => event === 'audit.rotated')
    for (const [n, file] of files.slice(1).entries()) {
      const inside = readEvents(file).map((event) => Number(event.at('pgusher.seq')))
      const event = told.find((each) => each.at('pgusher.audit.file') === file)
      expect(event?.at('pgusher.audit'), String(n)).toEqual({
        file,
        first_seq: inside[0],
        last_seq: inside[inside.length - 1],
        count: inside.length,
      })
    }
    expect(fs.readFileSync(`${path}.old`, 'utf8')).toBe('not ours')
    expect(fs.existsSync(`${path}.20200101T000000.000Z-1.gz`)).toBe(true)
  })

  test('on demand: what was recorded before is in the old file, what comes after in the new one', async () => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    const { recorder } = await recorderOn(path)
    const session = recorder.session(identity, 'full')
    session.statement(statement('select 1'))
    await Promise.all([recorder.rotate(), recorder.rotate()])
    session.statement(statement('select 2'))
    await recorder.close()
    const [old] = finished(path)
    expect(finished(path)).toHaveLength(1)
    expect(readEvents(old ?? '').map(({ event }) => event)).toEqual(['audit.started', 'statement'])
    const events = readEvents(path)
    expect(events.map(({ event }) => event)).toEqual(['audit.rotated', 'statement', 'audit.stopped'])
    expect(events[0]?.at('pgusher.audit')).toEqual({ file: old, first_seq: 1, last_seq: 2, count: 2 })
  })

  test('a file that was already long at the start is set aside whole', async () => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    const before = '{"event":"earlier"}\n'.repeat(6_000)
    fs.writeFileSync(path, before)
    const { recorder } = await recorderOn(path, { file: { path, rotate: 100 * KIB, keep: 3 } })
    await recorder.close()
    expect(finished(path).map((file) => fs.readFileSync(file, 'utf8'))).toEqual([before])
    expect(readEvents(path).map(({ event }) => event)).toEqual(['audit.started', 'audit.rotated', 'audit.stopped'])
  })
})

describe('a file that somebody else takes away', () => {
  test.each(['moved', 'removed'])('%s: a new one is begun, and the log and the events say so', async (how) => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    const { recorder, log } = await recorderOn(path)
    const session = recorder.session(identity, 'full')
    session.statement(statement('select 1'))
    await recorder.flush()
    if (how === 'moved') fs.renameSync(path, `${path}.mine`)
    else fs.rmSync(path)
    await until(() => fs.existsSync(path) && fs.statSync(path).size > 0)
    session.statement(statement('select 2'))
    await recorder.close()
    const events = readEvents(path)
    expect(events.map(({ event }) => event)).toEqual(['audit.rotated', 'statement', 'audit.stopped'])
    expect(events[0]?.at('pgusher.audit')).toEqual({ first_seq: 1, last_seq: 2, count: 2, by_others: true })
    expect(log.map(({ message }) => message)).toEqual(['the audit file was moved or removed; a new one is begun'])
    if (how === 'moved')
      expect(readEvents(`${path}.mine`).map(({ event }) => event)).toEqual(['audit.started', 'statement'])
  })

  test('a rotation of ours does not move a file that is not the one we write', async () => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    const { recorder } = await recorderOn(path, auditConfig(path))
    await recorder.flush()
    fs.renameSync(path, `${path}.mine`)
    fs.writeFileSync(path, '{"event":"somebody else"}\n')
    await recorder.rotate()
    await recorder.close()
    expect(finished(path)).toEqual([])
    expect(readEvents(path).map(({ event }) => event)).toEqual(['somebody else', 'audit.rotated', 'audit.stopped'])
  })
})
