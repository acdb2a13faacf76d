/** Opens the audit: sinks, classifier and the recorder that feeds them. */
import type { AuditConfig } from '../config/schema.ts'
import { type Classifier, createClassifier } from './classifier.ts'
import { type EventStream, type EventStreamOptions, eventStream, gapEvent, rotatedEvent } from './event-stream.ts'
import { jsonString } from './json.ts'
import { type AuditLog, type LineSink, lineSink } from './line-sink.ts'
import type { Recorder } from './recorder.ts'
import { sessionAudit } from './session-audit.ts'
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
  classifyWithin?: number
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
  const acceptance = acceptanceOf(sinks, config.on_failure === 'continue', options.log)
  sinks.push(...openSinks(config, options, stream, acceptance.changed))
  const { file, text, on_failure } = config
  stream.own('audit.started', 'success', { pid: process.pid, first_seq: 1, file: file?.path, text, on_failure })
  // Whether the sink works is known before the first job asks; a failure is in `failure` then.
  await Promise.all(sinks.map((sink) => sink.flush())).catch(() => {})
  return recorderOf(config, options, { sinks, stream, acceptance, classifier })
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

type Acceptance = Pick<Recorder, 'accepting' | 'failure' | 'onAcceptingChange'> & { changed(): void }

function acceptanceOf(sinks: readonly LineSink[], always: boolean, log: AuditLog): Acceptance {
  const listeners: ((accepting: boolean) => void)[] = []
  const failure = (): string | undefined => sinks.find((sink) => sink.failure !== undefined)?.failure
  let accepting = true
  return {
    get accepting() {
      return accepting
    },
    get failure() {
      return failure()
    },
    onAcceptingChange(listener) {
      listeners.push(listener)
    },
    changed() {
      const value = always || failure() === undefined
      if (value === accepting) return
      accepting = value
      for (const listener of listeners) {
        try {
          listener(value)
        } catch (error) {
          // It would end up in the sink's loop, which would take it for a failure of its own.
          log('error', 'a listener to the state of the audit failed', { reason: (error as Error).message })
        }
      }
    },
  }
}

interface Parts {
  sinks: readonly LineSink[]
  stream: EventStream
  acceptance: Acceptance
  classifier: Classifier
}

function recorderOf(config: AuditConfig, options: RecorderOptions, parts: Parts): Recorder {
  const { sinks, stream, acceptance, classifier } = parts
  const shared = {
    maxEvent: config.max_event,
    stream,
    line: new StatementLine({ ...stream, instance: jsonString(options.instance) }),
    classifier,
    texts: textParts(),
  }
  let closed: Promise<void> | undefined
  const shutDown = async (): Promise<void> => {
    stream.end()
    await stream.order.settled()
    stream.own('audit.stopped', 'success', { last_seq: stream.seq + 1 })
    const results = await Promise.allSettled(sinks.map((sink) => sink.close()))
    await classifier.close()
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }
  return {
    get accepting() {
      return acceptance.accepting
    },
    get failure() {
      return acceptance.failure
    },
    get recorded() {
      return stream.seq
    },
    onAcceptingChange: acceptance.onAcceptingChange,
    event(event, identity) {
      stream.record(event, identity === undefined ? { textMode: config.text } : { identity, textMode: config.text })
    },
    session: (identity, textMode) => sessionAudit(shared, identity, textMode),
    async rotate() {
      if (closed !== undefined) return await closed
      await stream.order.settled()
      await Promise.all(sinks.map((sink) => sink.rotate()))
    },
    async flush() {
      if (closed !== undefined) return await closed
      await stream.order.settled()
      await Promise.all(sinks.map((sink) => sink.flush()))
    },
    close() {
      closed ??= shutDown()
      return closed
    },
  }
}
