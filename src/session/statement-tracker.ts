/**
 * Matches what the job sent to what PostgreSQL answered, and makes one record an execution. It labels records and decides
 * nothing: whatever either side sends, it neither throws nor blocks.
 *
 * The protocol's rules it follows ("Message Flow" in the PostgreSQL documentation; src/backend/tcop/postgres.c):
 * names are committed when ParseComplete or BindComplete arrives; after an error in the extended protocol everything up to Sync is
 * discarded, a simple Query too; while COPY FROM STDIN runs, Sync and Flush are ignored; CopyData, CopyDone and CopyFail outside of
 * COPY are ignored; Sync commits, and that can fail.
 *
 * A COPY that fails leaves open whether PostgreSQL read a Sync before it as part of the COPY, and ignored it, or after. `strays`
 * counts them: so many ReadyForQuery may come that answer nothing in the queue. Where executions would depend on it, `ambiguous` says
 * so, and the session cannot go on.
 */
import type { StatementRecord } from '../audit/recorder.ts'
import {
  AnswerQueue,
  BIND,
  CLOSE,
  COPY_END,
  DESCRIBE,
  EXECUTE,
  FUNCTION_CALL,
  PARSE,
  QUERY,
  SYNC,
} from './answer-queue.ts'
import { type CommandTag, parseCommandTag } from './command-tag.ts'
import { DiscardedPipeline } from './discarded-pipeline.ts'
import { EMPTY_STATEMENT, NO_TEXT, type StatementText } from './name-map.ts'
import {
  deniedBy,
  type Ending,
  isBlank,
  isExecution,
  mayHoldMore,
  type Pending,
  pendingOf,
  type Refusal,
  weightOf,
} from './pending.ts'
import { SessionNames } from './session-names.ts'
import { type SessionTotals, StatementRecords, statusOf, type TransactionStatus } from './statement-records.ts'

export type { SessionTotals } from './statement-records.ts'

const PORTAL = 0x50
/** Kinds as a set of bits. */
const setOf = (...kinds: readonly number[]): number => kinds.reduce((set, kind) => set | (1 << kind), 0)
const ANY = setOf(QUERY, PARSE, BIND, DESCRIBE, EXECUTE, CLOSE, SYNC, FUNCTION_CALL)
const EXECUTIONS = setOf(QUERY, EXECUTE, FUNCTION_CALL)

export class StatementTracker {
  /** Executions sent and not answered. */
  running = 0
  /** It cannot be told any more which of the executions sent have run. */
  ambiguous = false
  /** Of the Query or Parse that comes next: it goes upstream as one that fails. */
  refusal: Refusal | undefined

  readonly #records: StatementRecords
  readonly #queue = new AnswerQueue<Pending>(weightOf)
  readonly #names: SessionNames
  readonly #discarded: DiscardedPipeline
  /** Syncs that the COPY at hand ignores. */
  #ignoredSyncs = 0
  #strays = 0
  /** Something was sent behind the last message that ReadyForQuery answers: in the extended protocol a transaction is open then. */
  #unsynced = false
  /** A COPY ignored a Sync: how many ReadyForQuery were to come is a guess since. */
  #guessed = false

  /** @param onStatement is called once for each execution, when its outcome is known, in the order of their ends. */
  constructor(onStatement: (record: StatementRecord) => void) {
    this.#records = new StatementRecords(onStatement)
    this.#names = new SessionNames((statement, what) => this.#records.addUnexecuted(statement, what))
    this.#discarded = new DiscardedPipeline(this.#records, this.#names)
  }

  /** Set to `performance.now()` once a chunk. */
  set now(now: number) {
    this.#records.now = now
  }

  get totals(): SessionTotals {
    return this.#records.totals
  }

  get transaction(): TransactionStatus {
    return this.#records.transaction
  }

  /** Characters kept for messages without an answer, to hold back a client that pipelines without end. */
  get backlog(): number {
    return this.#queue.weight
  }

  get copyIn(): boolean {
    return this.#records.copy === 'copy_in'
  }

  /** All that was sent is answered up to ReadyForQuery, no transaction is open, and nothing of that is a guess. */
  get settled(): boolean {
    const { transaction, copy } = this.#records
    if (this.#unsynced || this.#guessed || this.ambiguous || this.#discarded.active) return false
    return this.#queue.length === 0 && this.running === 0 && transaction === 'idle' && copy === undefined
  }

  /** What is sent now may run or be discarded, and nobody can tell: only Sync makes an end of it. */
  get needsSync(): boolean {
    return this.#discarded.active && this.#strays > 0
  }

  // What the job sends.

  query(text: StatementText, bytes: number): void {
    this.#sendText(QUERY, this.#pending(text, '', '', bytes))
  }

  parse(name: string, text: StatementText, bytes: number): void {
    this.#sendText(PARSE, this.#pending(text, name, '', bytes))
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

  /** COPY FROM STDIN ignores it, unless something stands between the two that ends the COPY, or the session. */
  sync(): void {
    if (this.copyIn && this.#queue.length === 1) {
      this.#ignoredSyncs++
      this.#guessed = true
    } else this.#send(SYNC, undefined)
  }

  /** @param refusal where it goes upstream as a Query that fails */
  functionCall(oid: number, parameters: string[] | undefined, bytes: number, refusal: Refusal | undefined): void {
    this.#send(FUNCTION_CALL, { ...this.#pending(undefined, '', '', bytes), oid, parameters, refusal })
  }

  copyData(bytes: number): void {
    this.#records.copyData(bytes)
  }

  /** Outside of COPY it is ignored; where something is unanswered a COPY may be on its way. */
  copyEnd(): void {
    if (this.#queue.length > 0 && !this.#discarded.active) this.#queue.push(COPY_END, undefined)
  }

  // What PostgreSQL answers.

  received(bytes: number): void {
    this.#records.received(bytes)
  }

  rowsReceived(count: number, bytes: number): void {
    this.#records.rowsReceived(count, bytes)
  }

  parseComplete(): void {
    const entry = this.#answered(PARSE)
    if (entry?.text !== undefined) this.#names.prepared(entry.name, entry.text, entry.bytes)
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
    this.#complete(parseCommandTag(buffer, start, end, this.#records.copy))
  }

  /** Also the answer of a portal that its Bind made and left empty when it failed: what stood under the name before does not run then. */
  emptyQuery(): void {
    this.#complete(undefined, true)
  }

  /** PortalSuspended or FunctionCallResponse. */
  completedWithoutTag(): void {
    this.#complete(undefined)
  }

  copyInStarted(): void {
    if (this.#headOf(EXECUTIONS) === 0) return
    this.#records.copy = 'copy_in'
    this.#ignoredSyncs = this.#queue.dropBehindHead(SYNC, this.#queue.length)
    if (this.#ignoredSyncs > 0) this.#guessed = true
  }

  copyOutStarted(): void {
    this.#records.copy = 'copy_out'
  }

  /** What the job gets in place of the error that comes, where that belongs to a message which pgusher refused. */
  errorInstead(): Buffer | undefined {
    return this.#headOf(ANY) === 0 ? undefined : this.#queue.head()?.refusal?.frame
  }

  /** @param fatal the connection ends with it, whatever was to be done */
  error(sqlstate: string, fatal = false): void {
    const kind = this.#headOf(ANY)
    const entry = this.#queue.head()
    if (kind === SYNC && !fatal) this.#records.commitFailed(sqlstate)
    if (kind === 0 || kind === SYNC) return
    this.#strays = 0
    if (isExecution(kind) && entry !== undefined && !entry.failed) {
      const end = entry.refusal === undefined ? { outcome: 'failure' as const, sqlstate } : deniedBy(entry.refusal)
      this.#records.add(kind, entry, this.#names.statementOf(kind, entry), end)
      entry.failed = true
    }
    if (this.copyIn) this.#strays = this.#ignoredSyncs
    this.#endCopy()
    if (kind === QUERY) this.#records.batchIndex++
    if (kind === QUERY || kind === FUNCTION_CALL) return
    const behind = this.#queue.kindBehindHead(COPY_END)
    if (this.#strays > 0 && behind !== 0 && behind !== SYNC) this.ambiguous = true
    else this.#discardUpToSync(kind, entry, sqlstate)
  }

  /** ReadyForQuery answers the oldest Query, Sync or FunctionCall; what stands before it got no answer of its own. */
  ready(status: number): void {
    const records = this.#records
    records.release()
    records.transaction = statusOf(status) ?? records.transaction
    this.#endCopy()
    if (this.#strays > 0 && this.#isStray()) this.#strays--
    else this.#answerReady()
    // The Sync that ended it was taken for one that COPY ignores.
    if (this.#discarded.active) this.#discarded.end()
    if (this.#queue.length === 0) this.#unsynced = false
    records.nextQuery()
    if (records.transaction === 'idle') this.#names.transactionEnded()
  }

  /** The connection is over: what has no outcome is recorded as such. */
  finish(errorType: string): void {
    // Without ReadyForQuery nobody knows of the commit.
    if (this.transaction === 'idle') this.#records.endHeld('unknown', undefined, errorType)
    this.#records.release()
    for (; this.#queue.length > 0; this.#queue.shift()) {
      const kind = this.#queue.headKind()
      const entry = this.#queue.head()
      if (this.#refusedAtEnd(kind, entry)) continue
      this.#names.nameTentatively(kind, entry)
      // Of a Query with more statements than were answered the next one may have run.
      const over = entry?.failed || (entry?.recorded && !(kind === QUERY && mayHoldMore(entry.text)))
      if (isExecution(kind) && entry !== undefined && !over) this.#addUnknown(kind, entry, errorType)
      this.#records.batchIndex = 0
    }
    this.#discarded.end()
    this.#names.sessionEnded()
    this.running = 0
  }

  #pending(text: StatementText | undefined, name: string, portal: string, bytes: number): Pending {
    return pendingOf(text, name, portal, bytes, this.#records.now)
  }

  #sendText(kind: number, entry: Pending): void {
    if (this.refusal !== undefined) entry.refusal = this.refusal
    this.#send(kind, entry)
  }

  #send(kind: number, entry: Pending | undefined): void {
    this.#unsynced = true
    if (this.#discarded.active) {
      if (kind !== SYNC) {
        this.#discarded.add(kind, entry)
        return
      }
      this.#discarded.end()
    }
    if (isExecution(kind)) this.running++
    this.#queue.push(kind, entry)
  }

  /** Kind of the head if it is one of these, after dropping end-of-COPY marks that nothing waits for. */
  #headOf(kinds: number): number {
    while (this.#queue.headKind() === COPY_END) this.#queue.shift()
    const kind = this.#queue.headKind()
    return (kinds >> kind) & 1 ? kind : 0
  }

  /** Takes the head off if it is of this kind. */
  #answered(kind: number): Pending | undefined {
    while (this.#queue.headKind() === COPY_END) this.#queue.shift()
    if (this.#queue.headKind() !== kind) return undefined
    this.#strays = 0
    const entry = this.#queue.head()
    this.#queue.shift()
    return entry
  }

  /** Nothing of the head was answered yet, so a ReadyForQuery cannot be its own. */
  #isStray(): boolean {
    const kind = this.#headOf(ANY)
    return kind !== 0 && kind !== SYNC && this.#queue.head()?.recorded !== true
  }

  #answerReady(): void {
    while (this.#queue.length > 0) {
      const kind = this.#queue.headKind()
      const entry = this.#queue.head()
      if (isExecution(kind)) {
        if (entry?.recorded === false) this.#addUnknown(kind, entry, 'no_outcome')
        this.running--
      }
      this.#queue.shift()
      if (kind === QUERY || kind === SYNC || kind === FUNCTION_CALL) return
    }
  }

  /** The execution at the head succeeded. A Query goes on with its next statement; a FunctionCall stays for its ReadyForQuery. */
  #complete(tag: CommandTag | undefined, empty = false): void {
    const kind = this.#headOf(EXECUTIONS)
    const entry = this.#queue.head()
    if (kind === 0 || entry === undefined) return
    const records = this.#records
    this.#strays = 0
    const named = this.#names.statementOf(kind, entry)
    const statement = empty && kind === EXECUTE && !isBlank(named.text.text) ? EMPTY_STATEMENT : named
    const end: Ending = { outcome: 'success', tag }
    if (kind === EXECUTE) records.hold(kind, entry, statement, end)
    else records.add(kind, entry, statement, end)
    if (tag?.names !== undefined)
      this.#names.followSql(tag.names, statement.text, kind === QUERY ? records.batchIndex : 0)
    // The CopyDone that ended it; the next COPY of the same Query waits for its own.
    if (this.copyIn) this.#queue.dropBehindHead(COPY_END, 1)
    this.#endCopy()
    if (kind === QUERY) records.batchIndex++
    if (kind !== EXECUTE) return
    this.running--
    this.#queue.shift()
  }

  #endCopy(): void {
    this.#records.copy = undefined
    this.#ignoredSyncs = 0
  }

  /** @param kind, entry of the message that failed */
  #discardUpToSync(kind: number, entry: Pending | undefined, sqlstate: string): void {
    this.#discarded.begin(kind, entry, sqlstate)
    if (kind === EXECUTE) {
      this.running--
      this.#queue.shift()
    }
    while (this.#queue.length > 0 && this.#queue.headKind() !== SYNC) {
      const headKind = this.#queue.headKind()
      const head = this.#queue.head()
      if (isExecution(headKind)) this.running--
      this.#queue.shift()
      this.#discarded.add(headKind, head)
    }
    if (this.#queue.headKind() === SYNC) this.#discarded.end()
  }

  /** The connection broke before the answer to a refused Parse, and what stands behind it up to Sync: none of it can have run. */
  #refusedAtEnd(kind: number, entry: Pending | undefined): boolean {
    if (kind === SYNC && this.#discarded.active) this.#discarded.end()
    if (kind === PARSE && entry?.refusal !== undefined) this.#discarded.active = true
    if (this.#discarded.active) this.#discarded.add(kind, entry)
    return this.#discarded.active
  }

  #addUnknown(kind: number, entry: Pending, errorType: string): void {
    const end = entry.refusal === undefined ? { outcome: 'unknown' as const, errorType } : deniedBy(entry.refusal)
    this.#records.add(kind, entry, this.#names.statementOf(kind, entry), end)
  }
}
