import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { lineSink } from '../../src/audit/line-sink.ts'
import type { Gap } from '../../src/audit/sink-health.ts'
import { fileTarget } from '../../src/audit/sink-target.ts'
import type { Answer, Command } from './child-recorder.ts'
import {
  auditConfig,
  identity,
  KIB,
  type ReadEvent,
  readEvent,
  recorderOn,
  statement,
  temporaryFolder,
  until,
} from './support.ts'

function fifo(): string {
  const path = join(temporaryFolder(), 'audit.fifo')
  execFileSync('mkfifo', [path])
  return path
}

/** Reads a FIFO without blocking; what came so far is in `text()`. */
function reader(path: string): { text(): string; close(): void } {
  const fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK)
  const chunks: Buffer[] = []
  let open = true
  const close = (): void => {
    if (open) fs.closeSync(fd)
    open = false
  }
  onTestFinished(close)
  return {
    text() {
      const buffer = Buffer.alloc(256 * KIB)
      for (;;) {
        try {
          const count = open ? fs.readSync(fd, buffer) : 0
          if (count === 0) break
          chunks.push(Buffer.from(buffer.subarray(0, count)))
        } catch {
          break
        }
      }
      return Buffer.concat(chunks).toString()
    },
    close,
  }
}

const eventsIn = (text: string): ReadEvent[] => text.split('\n').slice(0, -1).map(readEvent)
const seqs = (events: ReadEvent[]): unknown[] => events.map((event) => event.at('pgusher.seq'))
const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1)

describe('invariant 36: a sink that fails', () => {
  test('/dev/full: nothing is accepted from within a second on, and closing says what was lost', async () => {
    const begun = performance.now()
    const { recorder, log } = await recorderOn('/dev/full')
    const changes: boolean[] = []
    recorder.onAcceptingChange((accepting) => changes.push(accepting))
    await until(() => !recorder.accepting)
    expect(performance.now() - begun).toBeLessThan(15_000)
    expect(recorder.failure).toBe('audit file /dev/full: ENOSPC: no space left on device, write')
    await expect(recorder.flush()).rejects.toThrow(/ENOSPC/)
    expect(log.filter(({ message }) => message === 'the audit sink fails')).toHaveLength(1)
    await expect(recorder.close()).rejects.toThrow(
      /audit file \/dev\/full: closed with \d+ bytes not written: .*ENOSPC/,
    )
    expect(changes).toEqual([])
    expect(fs.statSync('/dev/full').isCharacterDevice()).toBe(true)
  })

  test('on_failure continue: sessions go on, the failure is told', async () => {
    const { recorder } = await recorderOn('/dev/full', { on_failure: 'continue' })
    await until(() => recorder.failure !== undefined)
    expect(recorder.accepting).toBe(true)
  })

  test('a FIFO without a reader does not hang, and what was recorded meanwhile arrives when one comes', async () => {
    const path = fifo()
    const { recorder, log } = await recorderOn(path)
    const changes: boolean[] = []
    recorder.onAcceptingChange((accepting) => changes.push(accepting))
    expect(recorder.accepting).toBe(false)
    expect(recorder.failure).toMatch(/^audit file .*: ENXIO: no such device or address/)
    recorder.session(identity, 'full').statement(statement('select 1'))
    const output = reader(path)
    await until(() => recorder.accepting)
    await recorder.flush()
    await recorder.rotate()
    await recorder.close()
    expect(eventsIn(output.text()).map(({ event }) => event)).toEqual(['audit.started', 'statement', 'audit.stopped'])
    expect(changes).toEqual([true])
    expect(log.map(({ message }) => message)).toEqual(['the audit sink fails', 'the audit sink works again'])
    expect(fs.statSync(path).isFIFO()).toBe(true)
  })

  test('a reader that stops reading is noticed by the deadline; nothing is torn or lost when it goes on', async () => {
    const path = fifo()
    const output = reader(path)
    const { recorder } = await recorderOn(path, { deadline: 500 })
    const session = recorder.session(identity, 'full')
    for (let n = 0; n < 500; n++) session.statement(statement(`select '${'x'.repeat(n % 17)}'`))
    await until(() => recorder.failure?.includes('no write completed within 500 ms') === true)
    await until(() => {
      output.text()
      return recorder.accepting
    })
    await Promise.all([recorder.close(), until(() => output.text().includes('audit.stopped'))])
    expect(seqs(eventsIn(output.text()))).toEqual(upTo(502))
  })

  test('a reader that goes away in the middle of a line: the next one gets the whole line', async () => {
    const path = fifo()
    const first = reader(path)
    const { recorder } = await recorderOn(path, { deadline: 500 })
    const session = recorder.session(identity, 'full')
    for (let n = 0; n < 500; n++) session.statement(statement(`select '${'x'.repeat(n % 17)}'`))
    await until(() => !recorder.accepting)
    const before = first.text()
    first.close()
    await until(() => recorder.failure?.includes('ENXIO') === true)
    const second = reader(path)
    await until(() => {
      second.text()
      return recorder.accepting
    })
    await Promise.all([recorder.close(), until(() => second.text().includes('audit.stopped'))])
    const whole = before.slice(0, before.lastIndexOf('\n') + 1)
    const got = new Set([...seqs(eventsIn(whole)), ...seqs(eventsIn(second.text()))])
    // What the first reader had not taken out of the pipe went with it; every line of the second is whole.
    expect(eventsIn(second.text()).length).toBeGreaterThan(300)
    expect(got.has(502)).toBe(true)
  })

  test('beyond its bound a sink drops, counts what it dropped and goes on', async () => {
    const path = fifo()
    const gaps: Gap[] = []
    const states: (string | undefined)[] = []
    const sink = lineSink({
      target: fileTarget(path),
      deadline: 1_000,
      backlog: { failing: 200 * KIB, dropping: 200 * KIB },
      log: () => {},
      onFailure: (failure) => states.push(failure),
      onRotated: () => {},
      onGap: (gap) => gaps.push(gap),
    })
    for (let seq = 1; seq <= 300; seq++) sink.append(`${JSON.stringify({ seq, text: 'x'.repeat(1_000) })}\n`, seq)
    const output = reader(path)
    await until(() => {
      output.text()
      return gaps.length > 0
    })
    const kept = 300 - (gaps[0]?.count ?? 0)
    expect(kept).toBeGreaterThan(190)
    expect(gaps).toEqual([{ firstSeq: kept + 1, lastSeq: 300, count: 300 - kept }])
    sink.append('{"seq":301}\n', 301)
    await Promise.all([sink.close(), until(() => output.text().includes('"seq":301}'))])
    const lines = output.text().split('\n').slice(0, -1)
    expect(lines.map((line) => JSON.parse(line).seq)).toEqual([...upTo(kept), 301])
    expect(states[0]).toMatch(/audit file/)
    expect(states.at(-1)).toBeUndefined()
  })
})

/** A recorder in a process of its own. */
async function child(
  command: string,
  args: string[],
): Promise<{ process: ChildProcess; ask(command: Command): Promise<Answer> }> {
  const script = fileURLToPath(new URL('./child-recorder.ts', import.meta.url))
  const spawned = spawn(command, [...args, process.execPath, script], { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] })
  onTestFinished(() => void spawned.kill('SIGKILL'))
  return {
    process: spawned,
    async ask(question) {
      const answer = once(spawned, 'message')
      spawned.send(question)
      return (await answer)[0] as Answer
    },
  }
}

describe('invariant 36: a disk that fills up', () => {
  test('no line is torn or lost when there is room again', async () => {
    const path = join(temporaryFolder(), 'audit.jsonl')
    // The limit on a file's size stops a write at its exact byte, as a full disk does: partly written, then an error.
    const { process: spawned, ask } = await child('prlimit', ['--fsize=50001:unlimited'])
    expect(await ask({ config: auditConfig(path) })).toMatchObject({ accepting: true })
    await ask({ record: 200 })
    let answer = await ask({ look: true })
    while (answer.accepting) answer = await ask({ look: true })
    expect(answer.failure).toMatch(/EFBIG/)
    await ask({ record: 100 })
    expect(fs.statSync(path).size).toBe(50_001)
    execFileSync('prlimit', ['--fsize=unlimited:unlimited', '--pid', String(spawned.pid)])
    while (!answer.accepting) answer = await ask({ look: true })
    await ask({ close: true })
    expect(seqs(eventsIn(fs.readFileSync(path, 'utf8')))).toEqual(upTo(302))
  })
})

describe('standard output', () => {
  test('a collector that stops reading does not stop the process, and gets every line in the end', async () => {
    const { process: spawned, ask } = await child('env', [])
    const config = { ...auditConfig('', { stdout: true, deadline: 200 }), file: undefined }
    const { file: _, ...stdoutOnly } = config
    await ask({ config: stdoutOnly })
    await ask({ record: 2_000 })
    let answer = await ask({ look: true })
    while (answer.accepting) answer = await ask({ look: true })
    expect(answer.failure).toMatch(/^audit stdout: /)
    const chunks: Buffer[] = []
    spawned.stdout?.on('data', (chunk: Buffer) => chunks.push(chunk))
    while (!answer.accepting) answer = await ask({ look: true })
    await ask({ close: true })
    await once(spawned, 'close')
    expect(seqs(eventsIn(Buffer.concat(chunks).toString()))).toEqual(upTo(2_002))
  })
})
