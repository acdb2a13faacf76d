/** Makes the records of a session's executions: counts what each sent and received, and keeps the totals. */
import type { StatementRecord } from '../audit/recorder.ts'
import { FUNCTION_CALL, QUERY } from './answer-queue.ts'
import { type NamedStatement, UNKNOWN_STATEMENT } from './name-map.ts'
import { type Ending, hasInnerSemicolon, type Pending } from './pending.ts'

const SYNC_BYTES = 5

export type TransactionStatus = StatementRecord['tx']

/** Of ReadyForQuery. An object with such numbers for keys would be a hash table to V8. */
export function statusOf(byte: number): TransactionStatus | undefined {
  if (byte === 0x49) return 'idle'
  if (byte === 0x54) return 'open'
  return byte === 0x45 ? 'failed' : undefined
}

export interface SessionTotals {
  statements: number
  errors: number
  rows: number
  ddl: number
}

export class StatementRecords {
  readonly totals: SessionTotals = { statements: 0, errors: 0, rows: 0, ddl: 0 }
  /** `performance.now()` of the chunk at hand. */
  now = performance.now()
  transaction: TransactionStatus = 'idle'
  /** The COPY that runs. */
  copy: 'copy_in' | 'copy_out' | undefined
  /** Position of the statement at hand in its Query. */
  batchIndex = 0
  /** Rows since the last record. */
  rows = 0

  readonly #onStatement: (record: StatementRecord) => void
  #responseBytes = 0
  #copyBytes = 0
  #lastEnd = 0
  #held: StatementRecord | undefined

  /** @param onStatement is called once for each record, in the order of their ends */
  constructor(onStatement: (record: StatementRecord) => void) {
    this.#onStatement = onStatement
  }

  received(bytes: number): void {
    this.#responseBytes += bytes
  }

  rowsReceived(count: number, bytes: number): void {
    this.rows += count
    this.#responseBytes += bytes
  }

  copyData(bytes: number): void {
    this.#copyBytes += bytes
  }

  /** ReadyForQuery: the next Query begins to count. */
  nextQuery(): void {
    this.batchIndex = 0
    this.rows = 0
    this.#responseBytes = 0
  }

  add(kind: number, entry: Pending, statement: NamedStatement, end: Ending): void {
    this.release()
    this.#tell(this.#make(kind, entry, statement, end))
  }

  /** As `add`, for an execution that Sync commits, which can fail: kept until the next record, or one of the following. */
  hold(kind: number, entry: Pending, statement: NamedStatement, end: Ending): void {
    this.release()
    this.#held = this.#make(kind, entry, statement, end)
  }

  /** What was held is as it was. */
  release(): void {
    const held = this.#held
    if (held === undefined) return
    this.#held = undefined
    this.#tell(held)
  }

  /** What was held came to another end than it seemed. */
  endHeld(outcome: StatementRecord['outcome'], sqlstate: string | undefined, errorType: string | undefined): void {
    if (this.#held === undefined) return
    this.#held = { ...this.#held, outcome, sqlstate, errorType, endedAt: this.now }
    this.release()
  }

  /**
   * The implicit transaction that Sync commits came to nothing. Where its last execution is on record already (a simple Query within a
   * pipeline, which PostgreSQL commits by the next Sync only: tried) this is a record of its own.
   */
  commitFailed(sqlstate: string): void {
    if (this.#held !== undefined) this.endHeld('failure', sqlstate, undefined)
    else
      this.#tell({
        ...this.#bare(UNKNOWN_STATEMENT, SYNC_BYTES),
        outcome: 'failure',
        sqlstate,
        errorType: 'commit_failed',
      })
  }

  /** A text that goes without an execution of its own. It takes no part in what the execution at hand counts, and one that is held stays so. */
  addUnexecuted(named: NamedStatement, errorType: string): void {
    named.text.recorded = true
    this.#tell({ ...this.#bare(named, named.bindBytes), outcome: 'unknown', sqlstate: undefined, errorType })
  }

  #bare(
    { text, statement }: NamedStatement,
    requestBytes: number,
  ): Omit<StatementRecord, 'outcome' | 'sqlstate' | 'errorType'> {
    return {
      ...{ text: text.text, textBytes: text.bytes, textSha256: text.sha256, truncated: text.truncated },
      ...{ protocol: 'extended', statementName: statement, batchIndex: 0, inBatch: false, tx: this.transaction },
      ...{ startedAt: this.now, endedAt: this.now, returnedRows: 0, affectedRows: undefined },
      ...{ requestBytes, responseBytes: 0, functionOid: undefined, parameters: undefined },
    }
  }

  #make(kind: number, entry: Pending, named: NamedStatement, end: Ending): StatementRecord {
    const { text, statement, bindBytes } = named
    entry.recorded = true
    text.recorded = true
    named.executed = true
    if (end.tag?.ddl === true) this.totals.ddl++
    const record: StatementRecord = {
      text: text.text,
      textBytes: text.bytes,
      textSha256: text.sha256,
      truncated: text.truncated,
      protocol: this.copy ?? (kind === QUERY ? 'simple' : kind === FUNCTION_CALL ? 'function' : 'extended'),
      statementName: statement,
      batchIndex: kind === QUERY ? this.batchIndex : 0,
      inBatch: kind === QUERY && (this.batchIndex > 0 || hasInnerSemicolon(text.text)),
      tx: this.transaction,
      startedAt: Math.max(entry.sentAt, this.#lastEnd),
      endedAt: this.now,
      returnedRows: end.tag?.returnedRows ?? this.rows,
      affectedRows: end.tag?.affectedRows,
      requestBytes: entry.bytes + bindBytes + this.#copyBytes,
      responseBytes: this.#responseBytes,
      outcome: end.outcome,
      sqlstate: end.sqlstate,
      errorType: end.errorType,
      decision: end.decision,
      functionOid: kind === FUNCTION_CALL ? entry.oid : undefined,
      parameters: entry.parameters,
    }
    this.#lastEnd = this.now
    this.rows = 0
    this.#responseBytes = 0
    this.#copyBytes = 0
    return record
  }

  #tell(record: StatementRecord): void {
    const { totals } = this
    totals.statements++
    if (record.outcome !== 'success') totals.errors++
    totals.rows += record.returnedRows
    this.#onStatement(record)
  }
}
