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
import { createNameMap, type NamedStatement, type StatementText } from './name-map.ts'

export type TransactionStatus = 'idle' | 'open' | 'failed'

/** One entry of the queue that has something to remember. */
interface Pending {
  text: StatementText | undefined
  /** Statement name of Parse, Bind and Close; portal name of Execute. */
  name: string
  portal: string
  bytes: number
  sentAt: number
  oid: number
  parameters: string[] | undefined
  /** Sent upstream as something that fails, because the rule does not grant it. */
  refused: boolean
}

export interface SessionTotals {
  statements: number
  errors: number
  rows: number
  ddl: number
}

export interface StatementTracker {
  /** `performance.now()` of the chunk at hand; read once a chunk. */
  now: number
  readonly totals: SessionTotals
  readonly transaction: TransactionStatus
  /** Executions sent and not answered. */
  readonly running: number
  /** Length of the queue, to hold back a client that pipelines without end. */
  readonly backlog: number
  readonly copyIn: boolean

  query(text: StatementText, bytes: number): void
  parse(name: string, text: StatementText): void
  bind(portal: string, statement: string, bytes: number): void
  describe(): void
  execute(portal: string, bytes: number): void
  close(kind: number, name: string): void
  sync(): void
  functionCall(oid: number, parameters: string[] | undefined, bytes: number, refused: boolean): void
  copyData(bytes: number): void
  copyEnd(): void

  received(bytes: number): void
  rowReceived(bytes: number): void
  parseComplete(): void
  bindComplete(): void
  described(): void
  closeComplete(): void
  commandComplete(buffer: Buffer, start: number, end: number): void
  emptyQuery(): void
  portalSuspended(): void
  functionResponse(): void
  /** True when the error belongs to a message that pgusher refused: the caller puts its own in the place. */
  errorIsOurs(): boolean
  error(sqlstate: string): void
  copyInStarted(): void
  copyOutStarted(): void
  ready(status: number): void
  /** The connection is over: what has no outcome is recorded as such. */
  finish(errorType: string): void
}

/** How an execution ended. */
interface Ending {
  outcome: StatementRecord['outcome']
  sqlstate: string | undefined
  errorType: string | undefined
  tag: CommandTag | undefined
}

/** The state after an error in the extended protocol, until the Sync that the backend waits for. */
interface Discarded {
  statements: Map<string, StatementText>
  portals: Map<string, NamedStatement>
  /** The error of a Parse, Bind, Describe or Close, until an execution carries it. */
  sqlstate: string | undefined
}

const NO_TEXT: StatementText = { text: undefined, bytes: 0, sha256: undefined, truncated: false }
const UNKNOWN: NamedStatement = { text: NO_TEXT, statement: '', bindBytes: 0 }
const STATUS: Record<number, TransactionStatus> = { 73: 'idle', 84: 'open', 69: 'failed' }
const PORTAL = 0x50

/** @param onStatement is called once for each execution, after its outcome is known, in the order of their ends. */
export function createStatementTracker(onStatement: (record: StatementRecord) => void): StatementTracker {
  const queue = createAnswerQueue<Pending>()
  const statements = createNameMap()
  const portals = createNameMap()
  const totals: SessionTotals = { statements: 0, errors: 0, rows: 0, ddl: 0 }
  let transaction: TransactionStatus = 'idle'
  let running = 0
  let discarded: Discarded | undefined
  let copy: 'copy_in' | 'copy_out' | undefined
  /** COPY FROM STDIN runs and its CopyDone or CopyFail has not been sent: a Sync sent now is ignored. */
  let ignoreSync = false
  let batchIndex = 0
  let rows = 0
  let responseBytes = 0
  let copyBytes = 0
  let lastEnd = 0

  function pending(text: StatementText | undefined, name: string, portal: string, bytes: number): Pending {
    return { text, name, portal, bytes, sentAt: tracker.now, oid: 0, parameters: undefined, refused: false }
  }

  function enqueue(kind: number, entry: Pending | undefined): void {
    if (discarded !== undefined) {
      if (kind !== SYNC) return discard(kind, entry)
      discarded = undefined
    }
    if (isExecution(kind)) running++
    queue.push(kind, entry)
  }

  function emit(kind: number, entry: Pending, of: NamedStatement, end: Ending): void {
    totals.statements++
    if (end.outcome !== 'success') totals.errors++
    totals.rows += rows
    if (end.tag?.ddl) totals.ddl++
    onStatement({
      text: of.text.text,
      textBytes: of.text.bytes,
      textSha256: of.text.sha256,
      truncated: of.text.truncated,
      protocol: copy ?? (kind === QUERY ? 'simple' : kind === FUNCTION_CALL ? 'function' : 'extended'),
      statementName: of.statement,
      batchIndex,
      inBatch: kind === QUERY && (batchIndex > 0 || hasInnerSemicolon(of.text.text)),
      tx: transaction,
      startedAt: Math.max(entry.sentAt, lastEnd),
      endedAt: tracker.now,
      returnedRows: rows,
      affectedRows: end.tag?.affectedRows,
      requestBytes: entry.bytes + of.bindBytes + copyBytes,
      responseBytes,
      outcome: end.outcome,
      sqlstate: end.sqlstate,
      errorType: end.errorType,
      functionOid: kind === FUNCTION_CALL ? entry.oid : undefined,
      parameters: entry.parameters,
    })
    lastEnd = tracker.now
    rows = 0
    responseBytes = 0
    copyBytes = 0
  }

  /** What an entry executes, by the names that PostgreSQL has committed. */
  function statementOf(kind: number, entry: Pending): NamedStatement {
    if (kind === EXECUTE) return portals.get(entry.portal) ?? UNKNOWN
    return entry.text === undefined ? UNKNOWN : { text: entry.text, statement: '', bindBytes: 0 }
  }

  /** The execution at the head has an outcome. A Query goes on with its next statement; the others are answered. */
  function complete(
    outcome: StatementRecord['outcome'],
    sqlstate: string | undefined,
    tag: CommandTag | undefined,
  ): void {
    const kind = headOf(QUERY, EXECUTE, FUNCTION_CALL)
    const entry = queue.head()
    if (kind === 0 || entry === undefined) return
    const statement = statementOf(kind, entry)
    emit(kind, entry, statement, { outcome, sqlstate, errorType: undefined, tag })
    if (tag !== undefined) followNames(tag, statement.text)
    endCopy()
    if (kind === QUERY) batchIndex++
    else if (kind === EXECUTE) {
      running--
      queue.shift()
    }
  }

  /** Kind of the head if it is one of these, after dropping end-of-COPY marks that nothing waits for. */
  function headOf(...kinds: number[]): number {
    while (queue.headKind() === COPY_END) queue.shift()
    const kind = queue.headKind()
    return kinds.includes(kind) ? kind : 0
  }

  function answered(kind: number): Pending | undefined {
    if (headOf(kind) === 0) return undefined
    const entry = queue.head()
    queue.shift()
    return entry
  }

  function endCopy(): void {
    copy = undefined
    ignoreSync = false
  }

  /** PREPARE, DECLARE, DEALLOCATE and DISCARD share their name space with the protocol's messages. */
  function followNames(tag: CommandTag, text: StatementText | undefined): void {
    if (tag.names === undefined) return
    if (tag.names === 'prepare') statements.addFromSql(text, 'prepare')
    else if (tag.names === 'declare') portals.addFromSql(text, 'declare')
    else if (tag.names === 'discard') {
      statements.clear()
      portals.clear()
    } else statements.removeFromSql(text)
  }

  function failed(sqlstate: string): void {
    const kind = headOf(QUERY, PARSE, BIND, DESCRIBE, EXECUTE, CLOSE, SYNC, FUNCTION_CALL)
    const entry = queue.head()
    if (kind === 0 || kind === SYNC) return
    if (isExecution(kind) && entry !== undefined) {
      emit(kind, entry, statementOf(kind, entry), ended(entry.refused ? 'denied' : 'failure', sqlstate, undefined))
    }
    endCopy()
    if (kind === QUERY) batchIndex++
    if (kind === QUERY || kind === FUNCTION_CALL) return
    discarded = { statements: new Map(), portals: new Map(), sqlstate: kind === EXECUTE ? undefined : sqlstate }
    if (kind === EXECUTE) {
      running--
      queue.shift()
    }
    discardUpToSync()
    // No Execute was behind it that could carry the error: a Parse or Bind on its own, as drivers send to prepare.
    if (discarded?.sqlstate !== undefined && entry !== undefined && (kind === PARSE || kind === BIND)) {
      discarded.sqlstate = undefined
      emit(
        kind,
        entry,
        preparing(kind, entry),
        ended('failure', sqlstate, kind === PARSE ? 'parse_failed' : 'bind_failed'),
      )
    }
    if (queue.headKind() === SYNC) discarded = undefined
  }

  function discardUpToSync(): void {
    while (queue.length > 0 && queue.headKind() !== SYNC) {
      const kind = queue.headKind()
      const entry = queue.head()
      if (isExecution(kind)) running--
      queue.shift()
      discard(kind, entry)
    }
  }

  function preparing(kind: number, entry: Pending): NamedStatement {
    if (kind === PARSE) return { text: entry.text ?? NO_TEXT, statement: entry.name, bindBytes: 0 }
    const known = discarded?.statements.get(entry.name) ?? statements.get(entry.name)?.text
    return { text: known ?? NO_TEXT, statement: entry.name, bindBytes: entry.bytes }
  }

  /**
   * A message that the backend reads and throws away. An execution among them was sent, so it is on record: the first one carries
   * the error of the Parse or Bind before it, the others were not executed. Names of the discarded part label it and end with it.
   */
  function discard(kind: number, entry: Pending | undefined): void {
    if (discarded === undefined || entry === undefined) return
    if (kind === PARSE) discarded.statements.set(entry.name, entry.text ?? NO_TEXT)
    else if (kind === BIND) discarded.portals.set(entry.portal, preparing(BIND, entry))
    else if (isExecution(kind)) {
      const statement = (kind === EXECUTE ? discarded.portals.get(entry.portal) : undefined) ?? statementOf(kind, entry)
      const { sqlstate } = discarded
      discarded.sqlstate = undefined
      emit(kind, entry, statement, ended('failure', sqlstate, sqlstate === undefined ? 'not_executed' : undefined))
    }
  }

  /** ReadyForQuery answers the oldest Query, Sync or FunctionCall; what stands before it got no answer of its own. */
  function ready(status: number): void {
    transaction = STATUS[status] ?? transaction
    endCopy()
    while (queue.length > 0) {
      const kind = queue.headKind()
      const entry = queue.head()
      if (kind === EXECUTE && entry !== undefined)
        emit(kind, entry, statementOf(kind, entry), ended('unknown', undefined, 'no_outcome'))
      if (isExecution(kind)) running--
      queue.shift()
      if (kind === QUERY || kind === SYNC || kind === FUNCTION_CALL) break
    }
    batchIndex = 0
    rows = 0
    responseBytes = 0
    // Portals end with their transaction; holdable cursors made by SQL are labelled again by their next DECLARE only.
    if (transaction === 'idle') portals.clear()
  }

  function finish(errorType: string): void {
    while (queue.length > 0) {
      const kind = queue.headKind()
      const entry = queue.head()
      const unanswered =
        kind === EXECUTE ||
        kind === FUNCTION_CALL ||
        (kind === QUERY && !(batchIndex > 0 && rows === 0 && copy === undefined))
      if (entry !== undefined && unanswered)
        emit(kind, entry, statementOf(kind, entry), ended('unknown', undefined, errorType))
      queue.shift()
      batchIndex = 0
    }
    running = 0
  }

  const tracker: StatementTracker = {
    now: performance.now(),
    totals,
    get transaction() {
      return transaction
    },
    get running() {
      return running
    },
    get backlog() {
      return queue.length
    },
    get copyIn() {
      return copy === 'copy_in'
    },

    query: (text, bytes) => enqueue(QUERY, pending(text, '', '', bytes)),
    parse: (name, text) => enqueue(PARSE, pending(text, name, '', 0)),
    bind: (portal, statement, bytes) => enqueue(BIND, pending(undefined, statement, portal, bytes)),
    describe: () => enqueue(DESCRIBE, undefined),
    execute: (portal, bytes) => enqueue(EXECUTE, pending(undefined, '', portal, bytes)),
    close: (kind, name) =>
      enqueue(CLOSE, kind === PORTAL ? pending(undefined, '', name, 0) : pending(NO_TEXT, name, '', 0)),
    sync() {
      if (!ignoreSync) enqueue(SYNC, undefined)
    },
    functionCall(oid, parameters, bytes, refused) {
      enqueue(FUNCTION_CALL, { ...pending(undefined, '', '', bytes), oid, parameters, refused })
    },
    copyData(bytes) {
      copyBytes += bytes
    },
    copyEnd() {
      ignoreSync = false
      queue.push(COPY_END, undefined)
    },

    received(bytes) {
      responseBytes += bytes
    },
    rowReceived(bytes) {
      rows++
      responseBytes += bytes
    },
    parseComplete() {
      const entry = answered(PARSE)
      if (entry?.text !== undefined)
        statements.set(entry.name, { text: entry.text, statement: entry.name, bindBytes: 0 })
    },
    bindComplete() {
      const entry = answered(BIND)
      if (entry === undefined) return
      const statement = statements.get(entry.name)
      portals.set(entry.portal, { text: statement?.text ?? NO_TEXT, statement: entry.name, bindBytes: entry.bytes })
    },
    described: () => void answered(DESCRIBE),
    closeComplete() {
      const entry = answered(CLOSE)
      if (entry === undefined) return
      if (entry.text === undefined) portals.delete(entry.portal)
      else statements.delete(entry.name)
    },
    commandComplete: (buffer, start, end) => complete('success', undefined, parseCommandTag(buffer, start, end, copy)),
    emptyQuery: () => complete('success', undefined, undefined),
    portalSuspended: () => complete('success', undefined, undefined),
    functionResponse: () => complete('success', undefined, undefined),
    errorIsOurs: () => headOf(FUNCTION_CALL) !== 0 && queue.head()?.refused === true,
    error: failed,
    copyInStarted() {
      copy = 'copy_in'
      headOf(QUERY, EXECUTE)
      ignoreSync = !queue.removeBehindHead(SYNC, COPY_END).met
    },
    copyOutStarted() {
      copy = 'copy_out'
    },
    ready,
    finish,
  }
  return tracker
}

function isExecution(kind: number): boolean {
  return kind === QUERY || kind === EXECUTE || kind === FUNCTION_CALL
}

function ended(outcome: Ending['outcome'], sqlstate: string | undefined, errorType: string | undefined): Ending {
  return { outcome, sqlstate, errorType, tag: undefined }
}

/** Whether a Query's text may hold more than one statement; the classifier knows for certain. */
function hasInnerSemicolon(text: string | undefined): boolean {
  if (text === undefined) return false
  const at = text.indexOf(';')
  return at >= 0 && at < text.length - 1
}
