/** Opens the audit: sinks, classifier and the recorder that feeds them. */
import type { AuditConfig } from '../config/schema.ts'
import { type Classifier, createClassifier } from './classifier.ts'
import { timeFormatter, uuidv7, wallClock } from './clock.ts'
import { eventLine } from './event-line.ts'
import { jsonString } from './json.ts'
import { type AuditLog, type Gap, type LineSink, lineSink, type Rotated } from './line-sink.ts'
import type { AuditEvent, Recorder, SessionIdentity } from './recorder.ts'
import { redactedEvent } from './redacted-event.ts'
import { sequencer } from './sequencer.ts'
import { type SessionAuditParts, sessionAudit } from './session-audit.ts'
import { fileTarget, stdoutTarget } from './sink-target.ts'
import { textParts } from './statement-text.ts'

const MIB = 1024 * 1024
/** Under `deny` sessions stop soon after the sink fails, so that what is kept stays small; the second bound is a last resort. */
const BACKLOG = {
  deny: { failing: 64 * MIB, dropping: 256 * MIB },
  continue: { failing: 64 * MIB, dropping: 64 * MIB },
}

export interface RecorderOptions {
  /** This replica's name. */
  instance: string
  /** The operational log; gets neither statements nor identities. */
  log: AuditLog
  /** Milliseconds since the epoch; the wall clock without it. */
  now?: () => number
}

/** These say that the configuration is wrong; everything else may pass by itself and is tried again. */
const FATAL_OPEN = new Set(['ENOENT', 'EACCES', 'EPERM', 'EISDIR', 'ENOTDIR', 'EROFS', 'ENAMETOOLONG', 'ELOOP'])

/**
 * Begins with `audit.started`. A process numbers its events from 1 (`pgusher.seq`); which process it was is told by
 * `pgusher.instance` with the `audit.started` before them. Without `file` and `stdout` events go to standard output:
 * pgusher does not run unrecorded.
 *
 * A sink that cannot be written now but may be later (a FIFO without a reader, a full disk) does not throw: the recorder
 * then opens with `accepting` false under `on_failure: deny` and recovers by itself.
 * @throws Error when the file cannot be created: no such directory, no permission, a directory.
 */
export async function openRecorder(config: AuditConfig, options: RecorderOptions): Promise<Recorder> {
  const sinks: LineSink[] = []
  const classifier = await createClassifier({ log: options.log })
  const core = recorderCore(config, options, sinks, classifier)
  try {
    await openSinks(config, options, core, sinks)
  } catch (error) {
    await classifier.close()
    for (const sink of sinks) await sink.close().catch(() => {})
    throw error
  }
  core.started()
  await core.recorder.flush().catch(() => {})
  return core.recorder
}

async function openSinks(config: AuditConfig, options: RecorderOptions, core: Core, sinks: LineSink[]): Promise<void> {
  const common = {
    deadline: config.deadline,
    backlog: BACKLOG[config.on_failure],
    log: options.log,
    onFailure: core.sinkChanged,
    onRotated: core.rotated,
    onGap: core.gap,
  }
  if (config.file !== undefined) {
    const { path, rotate, keep } = config.file
    await probe(path)
    sinks.push(lineSink({ ...common, target: fileTarget(path), rotate: { path, size: rotate, keep } }))
  }
  if (config.stdout || config.file === undefined) sinks.push(lineSink({ ...common, target: stdoutTarget() }))
}

/** @throws Error for a path that no waiting will make right. */
async function probe(path: string): Promise<void> {
  const target = fileTarget(path)
  try {
    await target.open()
  } catch (error) {
    const { code = '', message } = error as NodeJS.ErrnoException
    if (FATAL_OPEN.has(code)) throw new Error(`the audit file ${path} cannot be opened: ${message}`, { cause: error })
  } finally {
    await target.close()
  }
}

interface Core {
  recorder: Recorder
  started(): void
  sinkChanged(): void
  rotated(rotated: Rotated): void
  gap(gap: Gap): void
}

function recorderCore(
  config: AuditConfig,
  options: RecorderOptions,
  sinks: readonly LineSink[],
  classifier: Classifier,
): Core {
  const now = options.now ?? wallClock()
  const formatTime = timeFormatter()
  const nextId = uuidv7()
  const order = sequencer()
  const listeners: ((accepting: boolean) => void)[] = []
  let seq = 0
  let accepting = true
  let closing: Promise<void> | undefined

  const failure = (): string | undefined => sinks.find((sink) => sink.failure !== undefined)?.failure

  const sinkChanged = (): void => {
    const value = config.on_failure === 'continue' || failure() === undefined
    if (value === accepting) return
    accepting = value
    for (const listener of listeners) listener(value)
  }

  const append = (line: string): void => {
    for (const sink of sinks) sink.append(line, seq)
  }

  /** Both sinks get the same line. Never throws: what cannot be serialised loses its fields, not its event. */
  const writeEvent = (at: number, event: AuditEvent, identity?: SessionIdentity, sessionSeq?: number): void => {
    seq++
    const stamp = { time: formatTime(at), seq, id: nextId(at), instance: options.instance, sessionSeq }
    try {
      append(eventLine(stamp, event, identity, config.max_event))
    } catch (error) {
      options.log('error', 'fields of an audit event could not be serialised', {
        event: event.event,
        reason: String(error),
      })
      append(eventLine(stamp, { event: event.event, outcome: event.outcome }, identity, config.max_event))
    }
  }

  const recordEvent = (event: AuditEvent, identity?: SessionIdentity, sessionSeq?: number): void => {
    if (closing !== undefined) {
      options.log('warn', 'an event came after the audit was closed', { event: event.event })
      return
    }
    const at = now()
    const clean = redactedEvent(event, config.text)
    order.add(() => writeEvent(at, clean, identity, sessionSeq))
  }

  /** About the audit itself; also while it closes. */
  const recordOwn = (event: string, outcome: AuditEvent['outcome'], audit: object): void => {
    const at = now()
    order.add(() => writeEvent(at, { event, outcome, fields: { pgusher: { audit } } }))
  }

  const parts: SessionAuditParts = {
    instance: jsonString(options.instance),
    maxEvent: config.max_event,
    now,
    formatTime,
    nextId,
    order,
    classifier,
    texts: textParts(),
    nextSeq: () => ++seq,
    append,
    event: recordEvent,
    closed: () => closing !== undefined,
  }

  const flush = async (): Promise<void> => {
    await order.settled()
    await Promise.all(sinks.map((sink) => sink.flush()))
  }

  const shutDown = async (): Promise<void> => {
    await order.settled()
    recordOwn('audit.stopped', 'success', { last_seq: seq + 1 })
    const results = await Promise.allSettled(sinks.map((sink) => sink.close()))
    await classifier.close()
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }

  const recorder: Recorder = {
    get accepting() {
      return accepting
    },
    get failure() {
      return failure()
    },
    onAcceptingChange(listener) {
      listeners.push(listener)
    },
    event(event, identity) {
      recordEvent(event, identity)
    },
    session: (identity, textMode) => sessionAudit(parts, identity, textMode),
    async rotate() {
      await order.settled()
      await Promise.all(sinks.map((sink) => sink.rotate()))
    },
    flush,
    close() {
      closing ??= shutDown()
      return closing
    },
  }
  return {
    recorder,
    started() {
      const { file, text, on_failure } = config
      recordOwn('audit.started', 'success', {
        pid: process.pid,
        first_seq: seq + 1,
        file: file?.path,
        text,
        on_failure,
      })
    },
    sinkChanged,
    rotated({ file, firstSeq, lastSeq, count }) {
      const byOthers = file === undefined || undefined
      recordOwn('audit.rotated', 'success', {
        file,
        first_seq: firstSeq,
        last_seq: lastSeq,
        count,
        by_others: byOthers,
      })
    },
    gap({ firstSeq, lastSeq, count }) {
      recordOwn('audit.gap', 'failure', { first_seq: firstSeq, last_seq: lastSeq, count })
    },
  }
}
