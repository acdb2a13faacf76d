/**
 * The hot path: one `statement` event as a line, put together by hand from parts that are bytes already (who: once a session,
 * what: once a text) and the few numbers of this execution.
 *
 * Measured in turns on a busy two-core machine (Node 24, a record of 1.8 KB with a GitHub identity, CPU of all threads down to the
 * file): 5.3 to 7.1 us where each part is written into the slab, 6.7 to 8.5 us with parts that were texts first, more yet with one
 * text a line; JSON.stringify of the same object takes 3.6 us before anything is copied.
 */
import { ID_LENGTH, type StampWriter, TIME_LENGTH } from './clock.ts'
import type { IdentityBlock } from './identity-block.ts'
import { jsonString, jsonStringWithin } from './json.ts'
import { putBytes, putInteger, putSeconds } from './line-bytes.ts'
import type { StatementRecord } from './recorder.ts'
import type { TextPart } from './statement-text.ts'

/** A statement name is the client's and may be a megabyte long. */
const MAX_NAME_BYTES = 256
const MAX_PARAMETER_BYTES = 1_024
const MAX_PARAMETERS_BYTES = 8 * 1024
/** Bytes of a statement event besides identity, text and parameters: member names, numbers, tables and so on. */
export const STATEMENT_OVERHEAD_BYTES = 2 * 1024
/** Of it what is written here: member names, numbers of at most 21 digits. */
const FRAME_BYTES = 768

const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text))
const constants = <Name extends string>(names: readonly Name[]): Record<Name, Uint8Array> =>
  Object.fromEntries(names.map((name) => [name, bytes(name)])) as Record<Name, Uint8Array>

const OUTCOME = constants<StatementRecord['outcome']>(['success', 'failure', 'denied', 'would_deny', 'unknown'])
const PROTOCOL = constants<StatementRecord['protocol']>(['simple', 'extended', 'copy_in', 'copy_out', 'function'])
const TX = constants<StatementRecord['tx']>(['idle', 'open', 'failed'])
const BEFORE = {
  sessionSeq: bytes(',"session_seq":'),
  protocol: bytes(',"protocol":"'),
  batchIndex: bytes('","batch_index":'),
  tx: bytes(',"tx":"'),
  duration: bytes('","duration_s":'),
  affectedRows: bytes(',"affected_rows":'),
  requestBytes: bytes(',"request_bytes":'),
  responseBytes: bytes(',"response_bytes":'),
  returnedRows: bytes(',"response":{"returned_rows":'),
  end: bytes('}}}\n'),
}

const QUOTE = 0x22

/** From the beginning to the number; the time is put in. */
function headOf(event: string): { head: Uint8Array; timeAt: number } {
  const before = `{"event":"${event}","time":"`
  return {
    head: bytes(`${before}${' '.repeat(TIME_LENGTH)}","pgusher":{"schema":"1.0","seq":`),
    timeAt: before.length,
  }
}

/** The members that only few statements have. */
function rare(record: StatementRecord, secret: boolean): string {
  let json = ''
  if (record.statementName !== '') {
    json += `,"statement_name":${jsonStringWithin(record.statementName, MAX_NAME_BYTES).json}`
  }
  if (record.functionOid !== undefined) json += `,"function_oid":${record.functionOid}`
  if (record.decision !== undefined) json += `,"decision":${record.decision}`
  // Parameters of a statement that holds a password are most likely part of it.
  if (record.parameters !== undefined && !secret) json += `,"parameters":[${parameterList(record.parameters)}]`
  return json
}

/** Values beyond the limits are cut, or left out at the end. */
function parameterList(parameters: readonly (string | null)[]): string {
  const values: string[] = []
  let left = MAX_PARAMETERS_BYTES
  for (const parameter of parameters) {
    const json = parameter === null ? 'null' : jsonStringWithin(parameter, MAX_PARAMETER_BYTES).json
    left -= Buffer.byteLength(json)
    if (left < 0) break
    values.push(json)
  }
  return values.join(',')
}

const NOTHING: Uint8Array = new Uint8Array()
/** Names of prepared statements come again and again, and are few. */
const KNOWN_NAMES = 1_000

/** What this event alone has, beside its record. */
export interface Stamp {
  /** Milliseconds since the epoch. */
  at: number
  seq: number
  sessionSeq: number
}

interface StampWriters {
  readonly writeTime: StampWriter
  readonly writeId: StampWriter
}

/** Filled for one event, which a sink takes at once, and then for the next: an event makes no object of its own. */
export class StatementLine {
  /** At most so many bytes. */
  room = 0

  readonly #writeTime: StampWriter
  readonly #writeId: StampWriter
  readonly #plain = headOf('statement')
  readonly #denied = headOf('statement.denied')
  /** Behind the number, with the id. */
  readonly #id: Uint8Array
  readonly #names = new Map<string, Uint8Array>()
  #head = this.#plain.head
  #seq = 0
  #sessionSeq = 0
  #identity: IdentityBlock | undefined
  #part: TextPart | undefined
  #record: StatementRecord | undefined
  #special: Uint8Array = NOTHING
  #failure: Uint8Array = NOTHING

  /** @param instance as JSON */
  constructor({ writeTime, writeId }: StampWriters, instance: string) {
    this.#writeTime = writeTime
    this.#writeId = writeId
    this.#id = bytes(`,"id":"${' '.repeat(ID_LENGTH)}","instance":${instance},"outcome":"`)
  }

  fill({ at, seq, sessionSeq }: Stamp, identity: IdentityBlock, part: TextPart, record: StatementRecord): void {
    const { head, timeAt } = record.outcome === 'denied' ? this.#denied : this.#plain
    this.#writeTime(head, timeAt, at)
    this.#writeId(this.#id, ',"id":"'.length, at)
    this.#head = head
    this.#seq = seq
    this.#sessionSeq = sessionSeq
    this.#identity = identity
    this.#part = part
    this.#record = record
    this.#special = this.#specialOf(record, part.secret)
    this.#failure = failureOf(record)
    const extra = this.#special.length + this.#failure.length
    this.room = this.#id.length + identity.bytes + part.bytes + extra + FRAME_BYTES
  }

  /** @returns the position behind the line, which ends with a newline */
  write(into: Uint8Array, start: number): number {
    const identity = this.#identity!
    const part = this.#part!
    const record = this.#record!
    let at = putInteger(into, putBytes(into, start, this.#head), this.#seq)
    at = putBytes(into, putBytes(into, at, this.#id), OUTCOME[record.outcome])
    into[at++] = QUOTE
    at = putBytes(into, at, identity.pgusher)
    at = putInteger(into, putBytes(into, at, BEFORE.sessionSeq), this.#sessionSeq)
    at = putBytes(into, at, part.pgusher)
    at = putBytes(into, putBytes(into, at, BEFORE.protocol), PROTOCOL[record.protocol])
    at = putInteger(into, putBytes(into, at, BEFORE.batchIndex), record.batchIndex)
    at = putBytes(into, putBytes(into, at, BEFORE.tx), TX[record.tx])
    at = putSeconds(into, putBytes(into, at, BEFORE.duration), record.endedAt - record.startedAt)
    if (record.affectedRows !== undefined)
      at = putInteger(into, putBytes(into, at, BEFORE.affectedRows), record.affectedRows)
    at = putInteger(into, putBytes(into, at, BEFORE.requestBytes), record.requestBytes)
    at = putInteger(into, putBytes(into, at, BEFORE.responseBytes), record.responseBytes)
    at = putBytes(into, at, this.#special)
    at = putBytes(into, putBytes(into, at, identity.rest), part.db)
    at = putInteger(into, putBytes(into, at, BEFORE.returnedRows), record.returnedRows)
    return putBytes(into, at, this.#failure.length === 0 ? BEFORE.end : this.#failure)
  }

  #specialOf(record: StatementRecord, secret: boolean): Uint8Array {
    const { statementName: name, outcome } = record
    const alone = record.functionOid === undefined && record.parameters === undefined && outcome !== 'denied'
    if (!alone) return bytes(rare(record, secret))
    if (name === '') return NOTHING
    const known = this.#names.get(name)
    if (known !== undefined) return known
    const special = bytes(rare(record, secret))
    if (name.length <= MAX_NAME_BYTES) {
      if (this.#names.size >= KNOWN_NAMES) this.#names.clear()
      this.#names.set(name, special)
    }
    return special
  }
}

/** From the number of rows to the end, where it is not the usual one. */
function failureOf({ sqlstate, errorType }: StatementRecord): Uint8Array {
  if (sqlstate === undefined && errorType === undefined) return NOTHING
  const status = sqlstate === undefined ? '' : `,"status_code":${jsonString(sqlstate)}`
  return bytes(`${status}}},"error":{"type":${jsonString(errorType ?? sqlstate ?? '')}}}\n`)
}
