/**
 * Matches what the job sent to what PostgreSQL answered, and makes one record an execution. It labels records and decides
 * nothing: whatever either side sends, it neither throws nor blocks.
 *
 * The protocol's rules it follows ("Message Flow" in the PostgreSQL documentation; src/backend/tcop/postgres.c):
 * names are committed when ParseComplete or BindComplete arrives; after an error in the extended protocol everything up to Sync is
 * discarded, a simple Query too; while COPY FROM STDIN runs, Sync and Flush are ignored; CopyData, CopyDone and CopyFail outside of
 * COPY are ignored.
 */
import type { StatementRecord } from '../audit/recorder.ts'
import {
  BIND,
  CLOSE,
  COPY_END,
  createAnswerQueue,
  DESCRIBE,
  EXECUTE,
  FUNCTION_CALL,
  PARSE,
  QUERY,
  SYNC,
} from './answer-queue.ts'
import { type CommandTag, parseCommandTag } from './command-tag.ts'
import { type NamedStatement, NO_TEXT, type StatementText, UNKNOWN_STATEMENT } from './name-map.ts'
import { type Ending, hasInnerSemicolon, isExecution, type Pending, pendingOf, type Unclaimed } from './pending.ts'
import { SessionNames } from './session-names.ts'

export type TransactionStatus = StatementRecord['tx']

export interface SessionTotals {
  statements: number
  errors: number
  rows: number
  ddl: number
}

const STATUS: Readonly<Record<number, TransactionStatus>> = { 73: 'idle', 84: 'open', 69: 'failed' }
const PORTAL = 0x50
const ANY = [QUERY, PARSE, BIND, DESCRIBE, EXECUTE, CLOSE, SYNC, FUNCTION_CALL]
const EXECUTIONS = [QUERY, EXECUTE, FUNCTION_CALL]

export class StatementTracker {
  /** `performance.now()` of the chunk at hand; set once a chunk. */
  now = performance.now()
  readonly totals: SessionTotals = { statements: 0, errors: 0, rows: 0, ddl: 0 }
  transaction: TransactionStatus = 'idle'
  /** Executions sent and not answered. */
  running = 0

  readonly #onStatement: (record: StatementRecord) => void
  readonly #queue = createAnswerQueue<Pending>()
  readonly #names = new SessionNames()
  /** After an error in the extended protocol the backend reads and throws away what comes, until Sync. */
  #discarding = false
  /** What failed before an Execute, until an execution of the discarded part carries its error, or Sync. */
  #unclaimed: Unclaimed | undefined
  #copy: 'copy_in' | 'copy_out' | undefined
  /** COPY FROM STDIN runs and its CopyDone or CopyFail has not been sent: a Sync sent now is ignored. */
  #ignoreSync = false
  #batchIndex = 0
  #rows = 0
  #responseBytes = 0
  #copyBytes = 0
  #lastEnd = 0

  /** @param onStatement is called once for each execution, when its outcome is known, in the order of their ends. */
  constructor(onStatement: (record: StatementRecord) => void) {
    this.#onStatement = onStatement
  }

  /** Messages without an answer, to hold back a client that pipelines without end. */
  get backlog(): number {
    return this.#queue.length
  }

  get copyIn(): boolean {
    return this.#copy === 'copy_in'
  }

  // What the job sends.

  query(text: StatementText, bytes: number): void {
    this.#send(QUERY, this.#pending(text, '', '', bytes))
  }

  parse(name: string, text: StatementText, bytes: number): void {
    this.#send(PARSE, this.#pending(text, name, '', bytes))
  }

  bind(portal: string, statement: string, bytes: number): void {
    this.#send(BIND, this.#pending(undefined, statement, portal, bytes))
  }

  describe(): void {
    this.#send(DESCRIBE, undefined)
  }

  execute(portal: string, bytes: number): void {
    this.#send(EXECUTE, this.#pending(undefined, '', portal, bytes))
  }

  /** @param kind `S` or `P` */
  close(kind: number, name: string): void {
    this.#send(CLOSE, kind === PORTAL ? this.#pending(undefined, '', name, 0) : this.#pending(NO_TEXT, name, '', 0))
  }

  sync(): void {
    if (!this.#ignoreSync) this.#send(SYNC, undefined)
  }

  /** @param refused it goes upstream as a Query that fails */
  functionCall(oid: number, parameters: string[] | undefined, bytes: number, refused: boolean): void {
    this.#send(FUNCTION_CALL, { ...this.#pending(undefined, '', '', bytes), oid, parameters, refused })
  }

  copyData(bytes: number): void {
    this.#copyBytes += bytes
  }

  /** Outside of COPY it is ignored; where something is unanswered a COPY may be on its way. */
  copyEnd(): void {
    this.#ignoreSync = false
    if (this.#queue.length > 0 && !this.#discarding) this.#queue.push(COPY_END, undefined)
  }

  // What PostgreSQL answers.

  received(bytes: number): void {
    this.#responseBytes += bytes
  }

  rowReceived(bytes: number): void {
    this.#rows++
    this.#responseBytes += bytes
  }

  parseComplete(): void {
    const entry = this.#answered(PARSE)
    if (entry?.text !== undefined) this.#names.prepared(entry.name, entry.text)
  }

  bindComplete(): void {
    const entry = this.#answered(BIND)
    if (entry !== undefined) this.#names.bound(entry.portal, entry.name, entry.bytes)
  }

  described(): void {
    this.#answered(DESCRIBE)
  }

  closeComplete(): void {
    const entry = this.#answered(CLOSE)
    if (entry === undefined) return
    if (entry.text === undefined) this.#names.portalClosed(entry.portal)
    else this.#names.statementClosed(entry.name)
  }

  /** `buffer[start, end)` holds the tag. */
  commandComplete(buffer: Buffer, start: number, end: number): void {
    this.#complete(parseCommandTag(buffer, start, end, this.#copy))
  }

  /** EmptyQueryResponse, PortalSuspended or FunctionCallResponse. */
  completedWithoutTag(): void {
    this.#complete(undefined)
  }

  copyInStarted(): void {
    this.#copy = 'copy_in'
    this.#headOf(EXECUTIONS)
    this.#ignoreSync = !this.#queue.removeBehindHead(SYNC, COPY_END).met
  }

  copyOutStarted(): void {
    this.#copy = 'copy_out'
  }

  /** True when the error belongs to a message that pgusher refused: the caller puts its own in the place. */
  errorIsOurs(): boolean {
    return this.#headOf(EXECUTIONS) === FUNCTION_CALL && this.#queue.head()?.refused === true
  }

  error(sqlstate: string): void {
    const kind = this.#headOf(ANY)
    const entry = this.#queue.head()
    if (kind === 0 || kind === SYNC) return
    if (isExecution(kind) && entry !== undefined && !entry.failed) {
      this.#emit(kind, entry, this.#statementOf(kind, entry), {
        outcome: entry.refused ? 'denied' : 'failure',
        sqlstate,
      })
      entry.failed = true
    }
    this.#endCopy()
    if (kind === QUERY) this.#batchIndex++
    if (kind !== QUERY && kind !== FUNCTION_CALL) this.#discardUpToSync(kind, entry, sqlstate)
  }

  /** ReadyForQuery answers the oldest Query, Sync or FunctionCall; what stands before it got no answer of its own. */
  ready(status: number): void {
    this.transaction = STATUS[status] ?? this.transaction
    this.#endCopy()
    // The Sync that ended it was taken for one that COPY ignores.
    if (this.#discarding) this.#endDiscarding()
    while (this.#queue.length > 0) {
      const kind = this.#queue.headKind()
      const entry = this.#queue.head()
      if (isExecution(kind)) {
        if (entry?.recorded === false) this.#emitUnknown(kind, entry, 'no_outcome')
        this.running--
      }
      this.#queue.shift()
      if (kind === QUERY || kind === SYNC || kind === FUNCTION_CALL) break
    }
    this.#batchIndex = 0
    this.#rows = 0
    this.#responseBytes = 0
    if (this.transaction === 'idle') this.#names.transactionEnded()
  }

  /** The connection is over: what has no outcome is recorded as such. */
  finish(errorType: string): void {
    for (; this.#queue.length > 0; this.#queue.shift()) {
      const kind = this.#queue.headKind()
      const entry = this.#queue.head()
      // Of a Query some statements may have been answered; without rows of a next one nobody knows of more.
      const over = entry?.failed || (entry?.recorded && this.#rows === 0 && this.#copy === undefined)
      if (isExecution(kind) && entry !== undefined && !over) this.#emitUnknown(kind, entry, errorType)
      this.#batchIndex = 0
    }
    this.#endDiscarding()
    this.running = 0
  }

  #pending(text: StatementText | undefined, name: string, portal: string, bytes: number): Pending {
    return pendingOf(text, name, portal, bytes, this.now)
  }

  #send(kind: number, entry: Pending | undefined): void {
    if (this.#discarding) {
      if (kind !== SYNC) {
        this.#discard(kind, entry)
        return
      }
      this.#endDiscarding()
    }
    if (isExecution(kind)) this.running++
    this.#queue.push(kind, entry)
  }

  /** Kind of the head if it is one of these, after dropping end-of-COPY marks that nothing waits for. */
  #headOf(kinds: readonly number[]): number {
    while (this.#queue.headKind() === COPY_END) this.#queue.shift()
    const kind = this.#queue.headKind()
    return kinds.includes(kind) ? kind : 0
  }

  #answered(kind: number): Pending | undefined {
    while (this.#queue.headKind() === COPY_END) this.#queue.shift()
    if (this.#queue.headKind() !== kind) return undefined
    const entry = this.#queue.head()
    this.#queue.shift()
    return entry
  }

  /** What an entry executes, by the names that PostgreSQL has committed. */
  #statementOf(kind: number, entry: Pending): NamedStatement {
    if (kind === EXECUTE) return this.#names.portal(entry.portal)
    if (kind === BIND) return this.#names.bindOf(entry.name, entry.bytes)
    return entry.text === undefined ? UNKNOWN_STATEMENT : { text: entry.text, statement: entry.name, bindBytes: 0 }
  }

  /** The execution at the head succeeded. A Query goes on with its next statement; a FunctionCall stays for its ReadyForQuery. */
  #complete(tag: CommandTag | undefined): void {
    const kind = this.#headOf(EXECUTIONS)
    const entry = this.#queue.head()
    if (kind === 0 || entry === undefined) return
    const statement = this.#statementOf(kind, entry)
    this.#emit(kind, entry, statement, { outcome: 'success', tag })
    if (tag?.names !== undefined)
      this.#names.followSql(tag.names, statement.text, kind === QUERY ? this.#batchIndex : 0)
    this.#endCopy()
    if (kind === QUERY) this.#batchIndex++
    if (kind !== EXECUTE) return
    this.running--
    this.#queue.shift()
  }

  #endCopy(): void {
    this.#copy = undefined
    this.#ignoreSync = false
  }

  /** @param kind, entry of the message that failed */
  #discardUpToSync(kind: number, entry: Pending | undefined, sqlstate: string): void {
    this.#discarding = true
    if (kind === EXECUTE) {
      this.running--
      this.#queue.shift()
    } else this.#unclaimed = { kind, entry, sqlstate }
    while (this.#queue.length > 0 && this.#queue.headKind() !== SYNC) {
      const headKind = this.#queue.headKind()
      const head = this.#queue.head()
      if (isExecution(headKind)) this.running--
      this.#queue.shift()
      this.#discard(headKind, head)
    }
    if (this.#queue.headKind() === SYNC) this.#endDiscarding()
  }

  #endDiscarding(): void {
    this.#discarding = false
    this.#recordUnclaimed()
    this.#names.forgetTentative()
  }

  /** No Execute carried the error: a Parse or Bind on its own, as drivers send to prepare. */
  #recordUnclaimed(): void {
    const { kind, entry, sqlstate } = this.#unclaimed ?? {}
    this.#unclaimed = undefined
    if (entry === undefined || (kind !== PARSE && kind !== BIND)) return
    const errorType = kind === PARSE ? 'parse_failed' : 'bind_failed'
    this.#emit(kind, entry, this.#statementOf(kind, entry), { outcome: 'failure', sqlstate, errorType })
  }

  /**
   * A message that the backend reads and throws away. An execution among them was sent, so it is on record: the Execute of what failed
   * to parse or bind carries that error, the others were not executed.
   */
  #discard(kind: number, entry: Pending | undefined): void {
    if (entry === undefined) return
    if (kind === PARSE) this.#names.preparedTentatively(entry.name, entry.text ?? NO_TEXT)
    else if (kind === BIND) this.#names.boundTentatively(entry.portal, entry.name, entry.bytes)
    if (!isExecution(kind)) return
    const statement = this.#statementOf(kind, entry)
    const failed = this.#unclaimed
    const carries = failed !== undefined && kind === EXECUTE && this.#isOf(failed, statement)
    const end = carries ? { sqlstate: failed.sqlstate } : { errorType: 'not_executed' }
    if (carries) this.#unclaimed = undefined
    else this.#recordUnclaimed()
    this.#emit(kind, entry, statement, { outcome: 'failure', ...end })
  }

  /** Describe and Close name nothing to compare with: the first Execute behind them carries their error. */
  #isOf({ kind, entry }: Unclaimed, statement: NamedStatement): boolean {
    if (entry === undefined || (kind !== PARSE && kind !== BIND)) return true
    return this.#statementOf(kind, entry).text === statement.text
  }

  #emitUnknown(kind: number, entry: Pending, errorType: string): void {
    this.#emit(kind, entry, this.#statementOf(kind, entry), { outcome: 'unknown', errorType })
  }

  #emit(kind: number, entry: Pending, { text, statement, bindBytes }: NamedStatement, end: Ending): void {
    const { totals } = this
    const returnedRows = end.tag?.returnedRows ?? this.#rows
    entry.recorded = true
    totals.statements++
    if (end.outcome !== 'success') totals.errors++
    totals.rows += returnedRows
    if (end.tag?.ddl === true) totals.ddl++
    this.#onStatement({
      text: text.text,
      textBytes: text.bytes,
      textSha256: text.sha256,
      truncated: text.truncated,
      protocol: this.#copy ?? (kind === QUERY ? 'simple' : kind === FUNCTION_CALL ? 'function' : 'extended'),
      statementName: statement,
      batchIndex: kind === QUERY ? this.#batchIndex : 0,
      inBatch: kind === QUERY && (this.#batchIndex > 0 || hasInnerSemicolon(text.text)),
      tx: this.transaction,
      startedAt: Math.max(entry.sentAt, this.#lastEnd),
      endedAt: this.now,
      returnedRows,
      affectedRows: end.tag?.affectedRows,
      requestBytes: entry.bytes + bindBytes + this.#copyBytes,
      responseBytes: this.#responseBytes,
      outcome: end.outcome,
      sqlstate: end.sqlstate,
      errorType: end.errorType,
      functionOid: kind === FUNCTION_CALL ? entry.oid : undefined,
      parameters: entry.parameters,
    })
    this.#lastEnd = this.now
    this.#rows = 0
    this.#responseBytes = 0
    this.#copyBytes = 0
  }
}
