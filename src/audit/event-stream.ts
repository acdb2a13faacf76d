/** The one numbered stream of events that all sessions write to and all sinks get. */
import type { AuditConfig, TextMode } from '../config/schema.ts'
import type { Line } from './chunk-queue.ts'
import { type StampWriter, stampText, timeWriter, uuidv7Writer, wallClock } from './clock.ts'
import { eventLine } from './event-line.ts'
import type { AuditLog, LineSink, Rotated } from './line-sink.ts'
import type { AuditEvent, JobIdentity } from './recorder.ts'
import { redactedEvent } from './redacted-event.ts'
import { type Sequencer, sequencer } from './sequencer.ts'
import type { Gap } from './sink-health.ts'

export interface EventStreamOptions {
  /** This replica's name. */
  instance: string
  /** The operational log; gets neither statements nor identities. */
  log: AuditLog
  /** Milliseconds since the epoch; the wall clock without it. */
  now?: () => number
}

/** What belongs to an event of a session. */
export interface EventContext {
  identity?: JobIdentity
  sessionSeq?: number
  /** How much of a statement's text is recorded. */
  textMode: TextMode
}

export interface EventStream {
  readonly order: Sequencer
  /** Milliseconds since the epoch. */
  now(): number
  writeTime: StampWriter
  /** Each one is greater than those before. */
  writeId: StampWriter
  /** Counts up; the next line appended is this one. */
  nextSeq(): number
  /** The present number. */
  readonly seq: number
  append(line: Line): void
  /** Never throws: what cannot be serialised loses its fields, not its event. */
  record(event: AuditEvent, context: EventContext): void
  /** About the audit itself; also while it closes. */
  own(event: string, outcome: AuditEvent['outcome'], audit: object): void
  /** True after `end`; tells the log once, as whatever comes then is not recorded. */
  ended(): boolean
  end(): void
}

export function eventStream(
  config: AuditConfig,
  { instance, log, now = wallClock() }: EventStreamOptions,
  sinks: readonly LineSink[],
): EventStream {
  const writeTime = timeWriter()
  const writeId = uuidv7Writer()
  const timeText = stampText(writeTime)
  const nextId = stampText(writeId)
  const order = sequencer()
  const closing = ending(log)
  let seq = 0

  const append = (line: Line): void => {
    for (const sink of sinks) sink.append(line, seq)
  }

  const write = (at: number, event: AuditEvent, { identity, sessionSeq }: Partial<EventContext>): void => {
    seq++
    const stamp = { time: timeText(at), seq, id: nextId(at), instance, sessionSeq }
    try {
      append(eventLine(stamp, event, identity, config.max_event))
    } catch (error) {
      const details = { event: event.event, reason: (error as Error).message }
      log('error', 'fields of an audit event could not be serialised', details)
      append(eventLine(stamp, { event: event.event, outcome: event.outcome }, identity, config.max_event))
    }
  }

  return {
    order,
    now,
    writeTime,
    writeId,
    nextSeq: () => ++seq,
    get seq() {
      return seq
    },
    append,
    record(event, context) {
      if (closing.ended()) return
      const at = now()
      const clean = redactedEvent(event, context.textMode)
      order.add(() => write(at, clean, context), 0)
    },
    own(event, outcome, audit) {
      const at = now()
      order.add(() => write(at, { event, outcome, fields: { pgusher: { audit } } }, {}), 0)
    },
    ...closing,
  }
}

function ending(log: AuditLog): Pick<EventStream, 'ended' | 'end'> {
  let over = false
  let told = false
  return {
    ended() {
      if (over && !told) {
        told = true
        log('warn', 'something was to be recorded after the audit was closed', {})
      }
      return over
    },
    end() {
      over = true
    },
  }
}

/** `audit.rotated`; `by_others` where the file was moved or removed under us. */
export function rotatedEvent({ file, firstSeq, lastSeq, count }: Rotated): object {
  return { file, first_seq: firstSeq, last_seq: lastSeq, count, by_others: file === undefined || undefined }
}

/** `audit.gap`. */
export const gapEvent = ({ firstSeq, lastSeq, count }: Gap): object => ({
  first_seq: firstSeq,
  last_seq: lastSeq,
  count,
})
