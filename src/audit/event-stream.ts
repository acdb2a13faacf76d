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

export function eventStream(config: AuditConfig, options: EventStreamOptions, sinks: readonly LineSink[]): EventStream {
  return new Stream(config, options, sinks)
}

/** A class, since a literal with getters is a dictionary to V8, and every statement goes through here. */
class Stream implements EventStream {
  readonly order = sequencer()
  readonly now: () => number
  readonly writeTime = timeWriter()
  readonly writeId = uuidv7Writer()
  readonly #timeText = stampText(this.writeTime)
  readonly #nextId = stampText(this.writeId)
  readonly #instance: string
  readonly #maxEvent: number
  readonly #log: AuditLog
  readonly #sinks: readonly LineSink[]
  #seq = 0
  #over = false
  #told = false

  constructor(
    config: AuditConfig,
    { instance, log, now = wallClock() }: EventStreamOptions,
    sinks: readonly LineSink[],
  ) {
    this.now = now
    this.#instance = instance
    this.#maxEvent = config.max_event
    this.#log = log
    this.#sinks = sinks
  }

  get seq(): number {
    return this.#seq
  }

  nextSeq(): number {
    return ++this.#seq
  }

  append(line: Line): void {
    for (const sink of this.#sinks) sink.append(line, this.#seq)
  }

  record(event: AuditEvent, context: EventContext): void {
    if (this.ended()) return
    const at = this.now()
    const clean = redactedEvent(event, context.textMode)
    this.order.add(() => this.#write(at, clean, context), 0)
  }

  own(event: string, outcome: AuditEvent['outcome'], audit: object): void {
    const at = this.now()
    this.order.add(() => this.#write(at, { event, outcome, fields: { pgusher: { audit } } }, {}), 0)
  }

  ended(): boolean {
    if (this.#over && !this.#told) {
      this.#told = true
      this.#log('warn', 'something was to be recorded after the audit was closed', {})
    }
    return this.#over
  }

  end(): void {
    this.#over = true
  }

  #write(at: number, event: AuditEvent, { identity, sessionSeq }: Partial<EventContext>): void {
    const seq = this.nextSeq()
    const stamp = { time: this.#timeText(at), seq, id: this.#nextId(at), instance: this.#instance, sessionSeq }
    try {
      this.append(eventLine(stamp, event, identity, this.#maxEvent))
    } catch (error) {
      const details = { event: event.event, reason: (error as Error).message }
      this.#log('error', 'fields of an audit event could not be serialised', details)
      this.append(eventLine(stamp, { event: event.event, outcome: event.outcome }, identity, this.#maxEvent))
    }
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
