/**
 * What the job sends, message by message: tells the tracker, refuses what may not pass, and leaves the bytes alone.
 * Source: PostgreSQL documentation, "Message Formats"; length limits as in src/backend/tcop/postgres.c (SocketBackend).
 */
import { AccessError } from '../errors.ts'
import { errorResponse } from '../wire/backend.ts'
import { FrontendMessage as F, MAX_MESSAGE_LENGTH } from '../wire/constants.ts'
import { DROP, type FrameHandler, STOP } from '../wire/frame-scanner.ts'
import type { StatementText } from './name-map.ts'
import type { Refusal } from './pending.ts'
import { createLongText, type LongText, MAX_TEXT_BYTES, type TextDecoderFunction, wholeText } from './statement-text.ts'
import type { StatementTracker } from './statement-tracker.ts'

/** PostgreSQL's PQ_SMALL_MESSAGE_LIMIT, for messages that hold names at most. */
const SMALL = 10_000
/** Of a message whose text is wanted: the text's cap and a statement name before it. */
const TEXT_PREFIX = MAX_TEXT_BYTES + 1024
const NAMES_PREFIX = 2_048
/** Bytes of a name, so that it leaves room for the text behind it. PostgreSQL itself looks at 63. */
const MAX_NAME = 1_000
const HEADER = 5

const FUNCTION_CALL_REFUSED = 'FunctionCall denied: the rule that let this job in does not grant function_call'
const FUNCTION_CALL_REFUSAL: Refusal = {
  sqlstate: '42501',
  decision: JSON.stringify({ stage: 'session', code: 'statement_not_allowed', message: FUNCTION_CALL_REFUSED }),
  frame: errorResponse({
    ...{ severity: 'ERROR', sqlstate: '42501', message: FUNCTION_CALL_REFUSED },
    hint: 'Call the function by SQL, or ask the operator for "function_call: true" in the rule.',
  }),
}

/** Fails upstream in the state that the job's own message would have met, so that transaction and pipeline stay right. */
const FAILING_QUERY = Buffer.from('Q\0\0\0\x14pgusher refused\0', 'latin1')

export interface FrontendRules {
  functionCall: boolean
  /** False when the audit does not take records: the session ends at its next statement. */
  auditAccepts(): boolean
  decode(): TextDecoderFunction
  /** A statement's text has come, or its beginning. */
  prefetch(text: string, truncated: boolean): void
  /** Puts bytes into the stream to PostgreSQL, behind what was released before. */
  inject(bytes: Buffer): void
  /** The session must end, behind what was released so far: nothing of this message that came with this chunk. */
  stop(reason: 'audit' | 'protocol', error: AccessError): void
  /** Terminate was seen. True: it does not go upstream, whose connection is kept. */
  onTerminate(): boolean
}

export function maxFrontendLength(type: number): number {
  switch (type) {
    case F.Query:
    case F.Parse:
    case F.Bind:
    case F.FunctionCall:
    case F.CopyData:
      return MAX_MESSAGE_LENGTH
    default:
      return SMALL
  }
}

export function createFrontendHandler(tracker: StatementTracker, rules: FrontendRules): FrameHandler {
  let long: LongText | undefined
  let name = ''
  /** The last one that was ASCII: names come again, and the same string is found in maps without being hashed again. */
  let lastName = ''
  let messageBytes = 0
  let terminated = false

  function violation(text: string): false {
    rules.stop('protocol', new AccessError('protocol_violation', `protocol violation: ${text}`))
    return false
  }

  function onHeader(type: number, length: number): number {
    // PostgreSQL reads nothing behind Terminate.
    if (terminated) return DROP
    if (isBare(type) && length > 0) {
      // PostgreSQL answers some of them by an error of their own: every answer after it would be taken for that of another message.
      violation(`${describeType(type)} with ${length} bytes too many`)
      return STOP
    }
    return syncIsMissing(type) ? STOP : onAllowed(type, length)
  }

  /** Asked at the header and when the message counts as sent: the COPY may fail between the two. */
  function syncIsMissing(type: number): boolean {
    if (!tracker.needsSync || !mayRun(type)) return false
    violation(`${describeType(type)} behind a COPY that failed, without a Sync between them`)
    return true
  }

  function onAllowed(type: number, length: number): number {
    switch (type) {
      case F.Query:
      case F.Parse:
        return refusedByAudit() ? STOP : TEXT_PREFIX
      case F.Bind:
        return NAMES_PREFIX
      case F.Execute:
        return refusedByAudit() ? STOP : SMALL
      case F.Describe:
        tracker.describe()
        return 0
      case F.Close:
        return SMALL
      case F.Sync:
        tracker.sync()
        return 0
      case F.FunctionCall:
        if (refusedByAudit()) return STOP
        return rules.functionCall ? NAMES_PREFIX : DROP + NAMES_PREFIX
      case F.CopyData:
        tracker.copyData(length + HEADER)
        return 0
      case F.CopyDone:
      case F.CopyFail:
        tracker.copyEnd()
        return 0
      case F.Flush:
        return 0
      case F.Terminate:
        terminated = true
        return rules.onTerminate() ? DROP : 0
      default:
        violation(`message type 0x${type.toString(16).padStart(2, '0')} is not one that a client may send in a session`)
        return STOP
    }
  }

  function refusedByAudit(): boolean {
    if (rules.auditAccepts()) return false
    rules.stop(
      'audit',
      new AccessError(
        'audit_unavailable',
        'session ended: the audit log cannot be written, and no statement runs without it',
      ),
    )
    return true
  }

  function onBody(type: number, buffer: Buffer, start: number, end: number, length: number): boolean {
    if (syncIsMissing(type)) return false
    switch (type) {
      case F.Query:
        return onQuery(buffer, start, end, length)
      case F.Parse:
        return onParse(buffer, start, end, length)
      case F.Bind: {
        const portalEnd = nulAt(buffer, start)
        const statementEnd = portalEnd < 0 || portalEnd >= end ? -1 : nulAt(buffer, portalEnd + 1)
        if (statementEnd < 0 || statementEnd >= end) return violation('a name in Bind does not end')
        const portal = nameOf(buffer, start, portalEnd)
        const statement = nameOf(buffer, portalEnd + 1, statementEnd)
        if (portal === undefined || statement === undefined) return false
        tracker.bind(portal, statement, length + HEADER)
        return true
      }
      case F.Execute: {
        const portalEnd = nulAt(buffer, start)
        if (portalEnd !== end - 5) return violation('Execute has the wrong length')
        const portal = nameOf(buffer, start, portalEnd)
        if (portal === undefined) return false
        tracker.execute(portal, length + HEADER)
        return true
      }
      case F.Close: {
        if (buffer.indexOf(0, start + 1) !== end - 1) return violation('the name in Close does not end')
        const closed = nameOf(buffer, start + 1, end - 1)
        if (closed === undefined) return false
        tracker.close(buffer[start]!, closed)
        return true
      }
      default:
        return onFunctionCall(buffer, start, end, length)
    }
  }

  function onQuery(buffer: Buffer, start: number, end: number, length: number): boolean {
    const nul = buffer.indexOf(0, start)
    if (end - start < length) {
      if (nul >= 0 && nul < end) return violation('a NUL inside of a Query')
      messageBytes = length + HEADER
      return startLong(buffer, start, end)
    }
    // A reader that stops at the NUL would see another statement than one that takes the length.
    if (nul !== end - 1)
      return violation(nul < 0 || nul >= end ? 'a Query does not end with a NUL' : 'a NUL inside of a Query')
    query(statementText(buffer, start, nul), length + HEADER)
    return true
  }

  function onParse(buffer: Buffer, start: number, end: number, length: number): boolean {
    const nameEnd = buffer.indexOf(0, start)
    if (nameEnd < 0 || nameEnd >= end) return violation('the name in Parse does not end')
    const parsed = nameOf(buffer, start, nameEnd)
    if (parsed === undefined) return false
    name = parsed
    const textEnd = buffer.indexOf(0, nameEnd + 1)
    if (textEnd >= 0 && textEnd < end) {
      parse(statementText(buffer, nameEnd + 1, textEnd), length + HEADER)
      return true
    }
    if (end - start >= length) return violation('the text in Parse does not end')
    messageBytes = length + HEADER
    return startLong(buffer, nameEnd + 1, end)
  }

  /**
   * A name as the session's encoding spells it. Undefined where it is refused: PostgreSQL cuts a long one by the bytes of the server's
   * encoding, and which names are then the same is certain for ASCII only.
   */
  function nameOf(buffer: Buffer, start: number, end: number): string | undefined {
    if (start === end) return ''
    if (isAscii(buffer, start, end, lastName)) return lastName
    const decoded = rules.decode()(buffer, start, end)
    const long = end - start > 63 || decoded.length > 63
    if (end - start > MAX_NAME || (long && Buffer.byteLength(decoded) !== decoded.length)) {
      violation(`a name of ${end - start} bytes: beyond ${MAX_NAME} bytes, or beyond 63 where not all of it is ASCII`)
      return undefined
    }
    if (isAscii(buffer, start, end, decoded)) lastName = decoded
    // Bytes that are no text stay different names by what they are.
    return decoded.includes('\ufffd') ? `\ufffd${buffer.toString('latin1', start, end)}` : decoded
  }

  function startLong(buffer: Buffer, start: number, end: number): boolean {
    long = createLongText(rules.decode())
    long.add(buffer, start, end)
    return true
  }

  function onRest(type: number, buffer: Buffer, start: number, end: number, last: boolean): boolean {
    if (long === undefined) return true
    if (syncIsMissing(type)) return false
    const taken = long.add(buffer, start, end)
    if (type === F.Query && long.ended && !(last && taken === end - start)) return violation('a NUL inside of a Query')
    if (!last) return true
    if (!long.ended) return violation(`the text in ${type === F.Query ? 'Query' : 'Parse'} does not end with a NUL`)
    const statement = long.finish()
    long = undefined
    if (type === F.Query) query(statement, messageBytes)
    else parse(statement, messageBytes)
    return true
  }

  function statementText(buffer: Buffer, start: number, end: number): StatementText {
    if (end - start <= MAX_TEXT_BYTES) return wholeText(rules.decode(), buffer, start, end)
    const text = createLongText(rules.decode())
    text.add(buffer, start, end)
    return text.finish()
  }

  function query(statement: StatementText, bytes: number): void {
    if (statement.text !== undefined) rules.prefetch(statement.text, statement.truncated)
    tracker.query(statement, bytes)
  }

  function parse(statement: StatementText, bytes: number): void {
    if (statement.text !== undefined) rules.prefetch(statement.text, statement.truncated)
    tracker.parse(name, statement, bytes)
  }

  /** FunctionCall: Int32 oid, argument formats, arguments, result format. It runs code without SQL, so its arguments are on record. */
  function onFunctionCall(buffer: Buffer, start: number, end: number, length: number): boolean {
    if (end - start < 8) return violation('FunctionCall is too short')
    const parameters = functionArguments(buffer, start + 4, end)
    const refusal = rules.functionCall ? undefined : FUNCTION_CALL_REFUSAL
    tracker.functionCall(buffer.readUInt32BE(start), parameters, length + HEADER, refusal)
    return true
  }

  function onDropped(type: number): void {
    if (type === F.FunctionCall && !terminated) rules.inject(FAILING_QUERY)
  }

  /** As `onHeader`, which lets CopyData pass in any state but behind Terminate. */
  function onRun(_type: number, _count: number, bytes: number): boolean {
    if (!terminated) tracker.copyData(bytes)
    return !terminated
  }

  return { onHeader, onBody, onRest, onDropped, runs: [F.CopyData], onRun }
}

/** Bytes that are looked through here: crossing into C++ for a name of four costs more than the search. */
const NEAR = 64

/** Position of the next NUL, -1 where none follows. */
function nulAt(buffer: Buffer, from: number): number {
  const near = Math.min(buffer.length, from + NEAR)
  for (let at = from; at < near; at++) if (buffer[at] === 0) return at
  return near < buffer.length ? buffer.indexOf(0, near) : -1
}

/** Whether the bytes are this text and ASCII, which is the same in every encoding of PostgreSQL. */
function isAscii(buffer: Buffer, start: number, end: number, text: string): boolean {
  if (end - start !== text.length || end > buffer.length) return false
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    if (unit !== buffer[start + i] || unit >= 0x80) return false
  }
  return true
}

/** Messages that consist of their header. */
function isBare(type: number): boolean {
  return type === F.Sync || type === F.Flush || type === F.CopyDone || type === F.Terminate
}

/** Messages that PostgreSQL throws away after an error, up to Sync. */
function mayRun(type: number): boolean {
  return !isBare(type) && type !== F.CopyData && type !== F.CopyFail
}

function describeType(type: number): string {
  return `a message of type "${String.fromCharCode(type)}"`
}

/** Bytes of one argument that are recorded. */
const MAX_ARGUMENT = 64

/** Arguments as PostgreSQL's bytea hex, whatever their format, as far as they lie in the buffer; NULL as `null`. */
function functionArguments(buffer: Buffer, start: number, end: number): string[] {
  const shown: string[] = []
  let position = start + 2 + buffer.readUInt16BE(start) * 2
  if (position + 2 > end) return shown
  const count = buffer.readUInt16BE(position)
  position += 2
  for (let i = 0; i < count && position + 4 <= end; i++) {
    const length = buffer.readInt32BE(position)
    position += 4
    const stop = Math.min(end, position + Math.min(Math.max(0, length), MAX_ARGUMENT))
    shown.push(
      length < 0 ? 'null' : `\\x${buffer.toString('hex', position, stop)}${length > stop - position ? '…' : ''}`,
    )
    position += Math.max(0, length)
  }
  return shown
}
