/** What PostgreSQL answers, message by message. An upstream is input too: nothing here trusts it with more than labels. */
import { AccessError } from '../errors.ts'
import { errorResponse } from '../wire/backend.ts'
import { BackendMessage as B, MAX_MESSAGE_LENGTH } from '../wire/constants.ts'
import { parseErrorFields, sqlstateOf } from '../wire/error-response.ts'
import { DROP, type FrameHandler, STOP } from '../wire/frame-scanner.ts'
import type { StatementTracker } from './statement-tracker.ts'

/** Severity and SQLSTATE come first in an ErrorResponse. */
const ERROR_PREFIX = 256
const TAG_PREFIX = 256
const STATUS_PREFIX = 1_024
const HEADER = 5

export interface BackendRules {
  replication: boolean
  /** Puts bytes into the stream to the job, behind what was released before. */
  inject(bytes: Buffer): void
  stop(reason: 'protocol', error: AccessError): void
  /** A ParameterStatus in mid-session. */
  onParameter(name: string, value: string): void
  /** PostgreSQL said FATAL or PANIC: it will close. */
  onFatal(): void
}

export const maxBackendLength = (): number => MAX_MESSAGE_LENGTH

/** PostgreSQL ends the session where the job waits for a refusal: that is the news. */
function fatalOf(fields: Map<string, string>): Buffer {
  const sqlstate = sqlstateOf(fields) ?? 'XX000'
  return errorResponse({ severity: 'FATAL', sqlstate, message: fields.get('M') ?? 'PostgreSQL ends the session' })
}

const AMBIGUOUS =
  'protocol violation: messages behind a COPY that failed, and a Sync of which only PostgreSQL knows whether the COPY took it'

const STREAM_ENDED = 'START_STREAMING\0'

export function createBackendHandler(tracker: StatementTracker, rules: BackendRules): FrameHandler {
  /** In place of the error at hand. */
  let instead: Buffer | undefined
  /** A stream of the write-ahead log began, and its end has not been told. */
  let streaming = false

  /**
   * START_REPLICATION has two CommandComplete, of which the second is its own. The first is `COPY 0` for logical replication, and START_STREAMING
   * for physical, also where an old timeline had nothing left to stream and no CopyBothResponse came.
   */
  function endsStream(buffer: Buffer, start: number, end: number): boolean {
    if (!rules.replication) return false
    const ended = streaming || buffer.toString('latin1', start, end) === STREAM_ENDED
    streaming = false
    return ended
  }

  function refuse(what: string): number {
    rules.stop('protocol', new AccessError('upstream_lost', `session ended: PostgreSQL sent ${what}`))
    return STOP
  }

  function onHeader(type: number, length: number): number {
    switch (type) {
      case B.DataRow:
        tracker.rowsReceived(1, length + HEADER)
        return 0
      case B.CopyData:
        tracker.rowsReceived(1, length + HEADER)
        return 0
      case B.BindComplete:
        tracker.bindComplete()
        break
      case B.CommandComplete:
        tracker.received(length + HEADER)
        return TAG_PREFIX
      case B.ReadyForQuery:
        return 1
      case B.ParseComplete:
        tracker.parseComplete()
        break
      case B.RowDescription:
        // Answers Describe; in the simple protocol the tracker finds a Query at the head and leaves it there.
        tracker.described()
        break
      case B.NoData:
        tracker.described()
        break
      case B.ErrorResponse:
        tracker.received(length + HEADER)
        instead = tracker.errorInstead()
        return instead === undefined ? ERROR_PREFIX : DROP + ERROR_PREFIX
      case B.ParameterStatus:
        return STATUS_PREFIX
      default:
        return onRareHeader(type, length)
    }
    tracker.received(length + HEADER)
    return 0
  }

  function onRareHeader(type: number, length: number): number {
    // Comes whenever it likes, for no statement of this session.
    if (type !== B.NotificationResponse) tracker.received(length + HEADER)
    switch (type) {
      case B.EmptyQueryResponse:
        tracker.emptyQuery()
        return 0
      case B.PortalSuspended:
      case B.FunctionCallResponse:
        tracker.completedWithoutTag()
        return 0
      case B.CloseComplete:
        tracker.closeComplete()
        return 0
      case B.CopyInResponse:
        tracker.copyInStarted()
        return 0
      case B.CopyOutResponse:
        tracker.copyOutStarted()
        return 0
      case B.CopyBothResponse:
        streaming = true
        return rules.replication ? 0 : refuse('CopyBothResponse in a session without replication')
      case B.ParameterDescription:
      case B.NoticeResponse:
      case B.NotificationResponse:
      case B.CopyDone:
        return 0
      default:
        return refuse(`message type 0x${type.toString(16).padStart(2, '0')}, which has no place in a session`)
    }
  }

  function onBody(type: number, buffer: Buffer, start: number, end: number): boolean {
    if (type === B.CommandComplete) {
      if (!endsStream(buffer, start, end)) tracker.commandComplete(buffer, start, end)
    } else if (type === B.ReadyForQuery) tracker.ready(buffer[start]!)
    else if (type === B.ErrorResponse) return onError(parseErrorFields(buffer.subarray(start, end)))
    else onParameterStatus(buffer, start, end)
    return true
  }

  function onError(fields: Map<string, string>): boolean {
    streaming = false
    const severity = fields.get('V') ?? fields.get('S')
    const fatal = severity === 'FATAL' || severity === 'PANIC'
    tracker.error(sqlstateOf(fields) ?? 'XX000', fatal)
    if (fatal) rules.onFatal()
    if (fatal && instead !== undefined) instead = fatalOf(fields)
    if (tracker.ambiguous) rules.stop('protocol', new AccessError('protocol_violation', AMBIGUOUS))
    return !tracker.ambiguous
  }

  function onParameterStatus(buffer: Buffer, start: number, end: number): void {
    const nameEnd = buffer.indexOf(0, start)
    const valueEnd = nameEnd < 0 ? -1 : buffer.indexOf(0, nameEnd + 1)
    if (valueEnd < 0 || valueEnd >= end) return
    rules.onParameter(buffer.toString('utf8', start, nameEnd), buffer.toString('utf8', nameEnd + 1, valueEnd))
  }

  return {
    onHeader,
    onBody,
    runs: [B.DataRow, B.CopyData],
    onRun(_type, count, bytes) {
      tracker.rowsReceived(count, bytes)
      return true
    },
    onDropped: () => rules.inject(instead!),
  }
}
