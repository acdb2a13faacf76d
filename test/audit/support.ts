/** Recorders, files and events for the audit's tests. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { onTestFinished } from 'vitest'
import { openRecorder } from '../../src/audit/open.ts'
import type { Recorder } from '../../src/audit/recorder.ts'
import type { AuditConfig } from '../../src/config/schema.ts'

export { identity, statement } from './records.ts'

export const KIB = 1024
export const MIB = 1024 * 1024

export interface LogLine {
  level: string
  message: string
  details: Record<string, unknown>
}

export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'pgusher-audit-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export function auditConfig(path: string, changes: Partial<AuditConfig> = {}): AuditConfig {
  return {
    file: { path, rotate: 64 * MIB, keep: 30 },
    stdout: false,
    text: 'full',
    on_failure: 'deny',
    deadline: 10_000,
    max_event: 64 * KIB,
    ...changes,
  }
}

/** A recorder that is closed when the test ends, and what it logged. */
export async function recorderOn(
  path: string,
  changes: Partial<AuditConfig> = {},
): Promise<{ recorder: Recorder; log: LogLine[] }> {
  const log: LogLine[] = []
  const recorder = await openRecorder(auditConfig(path, changes), {
    instance: 'test-1',
    // The machine that runs the tests may be busy; what a hurry does has tests of its own.
    classifyWithin: 20_000,
    log: (level, message, details) => log.push({ level, message, details: { ...details } }),
  })
  onTestFinished(() => recorder.close().catch(() => {}))
  return { recorder, log }
}

/** An event as read back; fields by dotted path. */
export interface ReadEvent {
  event: string
  raw: Record<string, unknown>
  at(path: string): unknown
}

export function readEvents(path: string): ReadEvent[] {
  const text = readFileSync(path, 'utf8')
  if (text !== '' && !text.endsWith('\n')) throw new Error('the file ends in the middle of a line')
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => readEvent(line))
}

export function readEvent(line: string): ReadEvent {
  const raw = JSON.parse(line) as Record<string, unknown>
  const at = (path: string): unknown =>
    path.split('.').reduce<unknown>((value, name) => (value as Record<string, unknown> | undefined)?.[name], raw)
  return { event: String(raw['event']), raw, at }
}

/** Waits until `holds`, looking every few milliseconds. @throws Error after `timeout` milliseconds. */
export async function until(holds: () => boolean, timeout = 20_000): Promise<void> {
  const deadline = performance.now() + timeout
  while (!holds()) {
    if (performance.now() > deadline) throw new Error(`not so within ${timeout} ms: ${holds}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** Any UTF-16, lone surrogates included, with the troublesome characters more often than chance has them. */
export const anyText = fc
  .array(
    fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit)),
      fc.constantFrom(
        '\u2028',
        '\u2029',
        '\u202e',
        '\u2066',
        '\u0000',
        '\u0085',
        '\n',
        '\r',
        '"',
        '\\',
        '\u007f',
        '\ufeff',
        '\ud83d',
        '😀',
      ),
    ),
  )
  .map((parts) => parts.join(''))
