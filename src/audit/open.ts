/** Opens the audit: sinks, classifier and the recorder that feeds them. */
import type { AuditConfig, TextMode } from '../config/schema.ts'
import { type Classifier, createClassifier } from './classifier.ts'
import { type EventStream, type EventStreamOptions, eventStream, gapEvent, rotatedEvent } from './event-stream.ts'
import { jsonString } from './json.ts'
import { type AuditLog, type LineSink, lineSink } from './line-sink.ts'
import type { AuditEvent, JobIdentity, Recorder, SessionAudit, SessionIdentity } from './recorder.ts'
import { type SessionAuditParts, sessionAudit } from './session-audit.ts'
import { fileTarget, stdoutTarget } from './sink-target.ts'
import { StatementLine } from './statement-line.ts'
import { textParts } from './statement-text.ts'

const MIB = 1024 * 1024
/** Under `deny` sessions stop soon after the sink fails, so that what is kept stays small; the second bound is a last resort. */
const BACKLOG = {
  deny: { failing: 64 * MIB, dropping: 256 * MIB },
  continue: { failing: 64 * MIB, dropping: 64 * MIB },
}

export interface RecorderOptions extends EventStreamOptions {
  /** Milliseconds that an event waits for its text's class; 250 without it. */
  classifyWithin?: number | undefined
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
  if (config.file !== undefined) await probe(config.file.path)
  const classifier = await createClassifier({ log: options.log, deadline: options.classifyWithin })
  const sinks: LineSink[] = []
  const stream = eventStream(config, options, sinks)
  const acceptance = new Acceptance(sinks, config.on_failure === 'continue', options.log)
  sinks.push(...openSinks(config, options, stream, () => acceptance.changed()))
  const { file, text, on_failure } = config
  stream.own('audit.started', 'success', { pid: process.pid, first_seq: 1, file: file?.path, text, on_failure })
  // Whether the sink works is known before the first job asks; a failure is in `failure` then.
  await Promise.all(sinks.map((sink) => sink.flush())).catch(() => {})
  return new AuditRecorder(config, options, { sinks, stream, acceptance, classifier })
}

function openSinks(
  config: AuditConfig,
  options: RecorderOptions,
  stream: EventStream,
  onFailure: () => void,
): LineSink[] {
  const common = {
    deadline: config.deadline,
    backlog: BACKLOG[config.on_failure],
    log: options.log,
    onFailure,
    onRotated: (rotated: Parameters<typeof rotatedEvent>[0]) =>
      stream.own('audit.rotated', 'success', rotatedEvent(rotated)),
    onGap: (gap: Parameters<typeof gapEvent>[0]) => stream.own('audit.gap', 'failure', gapEvent(gap)),
  }
  const sinks: LineSink[] = []
  if (config.file !== undefined) {
    const { path, rotate, keep } = config.file
    sinks.push(lineSink({ ...common, target: fileTarget(path), rotate: { path, size: rotate, keep } }))
  }
  if (config.stdout || config.file === undefined) sinks.push(lineSink({ ...common, target: stdoutTarget() }))
  return sinks
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

/** Whether the sinks take what is recorded, or need not. */
class Acceptance {
  accepting = true
  readonly #sinks: readonly LineSink[]
  readonly #always: boolean
  readonly #log: AuditLog
  readonly #listeners: ((accepting: boolean) => void)[] = []

  constructor(sinks: readonly LineSink[], always: boolean, log: AuditLog) {
    this.#sinks = sinks
    this.#always = always
    this.#log = log
  }

  get failure(): string | undefined {
    return this.#sinks.find((sink) => sink.failure !== undefined)?.failure
  }

  listen(listener: (accepting: boolean) => void): void {
    this.#listeners.push(listener)
  }

  changed(): void {
    const value = this.#always || this.failure === undefined
    if (value === this.accepting) return
    this.accepting = value
    for (const listener of this.#listeners) {
      try {
        listener(value)
      } catch (error) {
        // It would end up in the sink's loop, which would take it for a failure of its own.
        this.#log('error', 'a listener to the state of the audit failed', { reason: (error as Error).message })
      }
    }
  }
}

interface Parts {
  sinks: readonly LineSink[]
  stream: EventStream
  acceptance: Acceptance
  classifier: Classifier
}

/** A class, as whether it accepts is asked for every statement: a literal with getters is a dictionary to V8. */
class AuditRecorder implements Recorder {
  readonly #config: AuditConfig
  readonly #parts: Parts
  readonly #shared: SessionAuditParts
  #closed: Promise<void> | undefined

  constructor(config: AuditConfig, { instance }: RecorderOptions, parts: Parts) {
    const { stream, classifier } = parts
    this.#config = config
    this.#parts = parts
    this.#shared = {
      maxEvent: config.max_event,
      line: new StatementLine(stream, jsonString(instance)),
      texts: textParts(),
      ...{ stream, classifier },
    }
  }

  get accepting(): boolean {
    return this.#parts.acceptance.accepting
  }

  get failure(): string | undefined {
    return this.#parts.acceptance.failure
  }

  get recorded(): number {
    return this.#parts.stream.seq
  }

  onAcceptingChange(listener: (accepting: boolean) => void): void {
    this.#parts.acceptance.listen(listener)
  }

  event(event: AuditEvent, identity?: JobIdentity): void {
    const { text: textMode } = this.#config
    this.#parts.stream.record(event, identity === undefined ? { textMode } : { identity, textMode })
  }

  session(identity: SessionIdentity, textMode: TextMode): SessionAudit {
    return sessionAudit(this.#shared, identity, textMode)
  }

  rotate(): Promise<void> {
    return this.#eachSink((sink) => sink.rotate())
  }

  flush(): Promise<void> {
    return this.#eachSink((sink) => sink.flush())
  }

  close(): Promise<void> {
    this.#closed ??= this.#shutDown()
    return this.#closed
  }

  async #eachSink(work: (sink: LineSink) => Promise<void>): Promise<void> {
    if (this.#closed !== undefined) return await this.#closed
    const { sinks, stream } = this.#parts
    await stream.order.settled()
    await Promise.all(sinks.map(work))
  }

  async #shutDown(): Promise<void> {
    const { sinks, stream, classifier } = this.#parts
    stream.end()
    await stream.order.settled()
    stream.own('audit.stopped', 'success', { last_seq: stream.seq + 1 })
    const results = await Promise.allSettled(sinks.map((sink) => sink.close()))
    await classifier.close()
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }
}
