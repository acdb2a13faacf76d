/**
 * The names of one session's prepared statements and portals: those that PostgreSQL has committed, and, after an error, those of
 * the discarded part of a pipeline, which label its records and are then forgotten.
 */

import { BIND, EXECUTE, PARSE, QUERY } from './answer-queue.ts'
import type { CommandTag } from './command-tag.ts'
import { type NamedStatement, NameMap, NO_TEXT, type StatementText, UNKNOWN_STATEMENT } from './name-map.ts'
import type { Pending } from './pending.ts'

/**
 * A statement or portal that goes without an Execute. `prepared_only`: SQL's EXECUTE can have run it, and shows its name alone.
 * `bound_only`: SQL's FETCH can have, and planning a Bind runs the functions that are declared immutable (tried).
 */
export type Unexecuted = 'prepared_only' | 'bound_only'

/** EXECUTE, EXPLAIN ANALYZE EXECUTE, CREATE TABLE … AS EXECUTE. What hides it otherwise is told of in the end. */
const MAY_EXECUTE = /^\s*(?:execute|explain|create)\b/i

/** SQL cannot name the unnamed statement. */
function isUntold(name: string, { text }: NamedStatement): boolean {
  return name !== '' && text.recorded !== true
}

export class SessionNames {
  readonly #statements: NameMap
  readonly #portals: NameMap
  readonly #onUnexecuted: (statement: NamedStatement, what: Unexecuted) => void
  /** Something was prepared by name since `#recordPrepared`. */
  #untold = false
  #tentative: { statements: NameMap; portals: NameMap } | undefined

  /** @param onUnexecuted is told of a text that goes, or is cut, before it stands in a record */
  constructor(onUnexecuted: (statement: NamedStatement, what: Unexecuted) => void) {
    this.#onUnexecuted = onUnexecuted
    this.#statements = new NameMap((name, statement) => {
      if (isUntold(name, statement)) onUnexecuted(statement, 'prepared_only')
    })
    this.#portals = new NameMap((_name, statement) => {
      if (!statement.executed) onUnexecuted(statement, 'bound_only')
    })
  }

  prepared(name: string, text: StatementText, bytes: number): void {
    this.#statements.set(name, { text, statement: name, bindBytes: bytes, executed: false })
    if (name !== '') this.#untold = true
  }

  /** SQL that may run what the protocol prepared: the record of the text does not wait for the end of the session then. */
  #recordPrepared(sql: string | undefined): void {
    if (!this.#untold || sql === undefined || !MAY_EXECUTE.test(sql)) return
    this.#untold = false
    for (const [name, statement] of this.#statements.all()) {
      if (isUntold(name, statement)) this.#onUnexecuted(statement, 'prepared_only')
    }
  }

  bound(portal: string, statement: string, bytes: number): void {
    this.#portals.set(portal, this.#bindOf(statement, bytes))
  }

  statementClosed(name: string): void {
    this.#statements.delete(name)
  }

  portalClosed(name: string): void {
    this.#portals.delete(name)
  }

  /** Portals end with their transaction. A cursor WITH HOLD lives on and is labelled no more. */
  transactionEnded(): void {
    this.#portals.clear()
  }

  sessionEnded(): void {
    this.#portals.clear()
    this.#statements.clear()
  }

  /** A Parse or Bind that is not, or not known to be, committed still says what the Executes behind it meant. */
  nameTentatively(kind: number, entry: Pending | undefined): void {
    if (entry === undefined || (kind !== PARSE && kind !== BIND)) return
    this.#tentative ??= { statements: new NameMap(), portals: new NameMap() }
    const { name, portal, text = NO_TEXT, bytes } = entry
    if (kind === PARSE)
      this.#tentative.statements.set(name, { text, statement: name, bindBytes: bytes, executed: false })
    else this.#tentative.portals.set(portal, this.#bindOf(name, bytes))
  }

  forgetTentative(): void {
    this.#tentative = undefined
  }

  /** What an entry executes, by the names that PostgreSQL has committed. */
  statementOf(kind: number, { text, name, portal, bytes }: Pending): NamedStatement {
    if (kind === EXECUTE) return this.#tentative?.portals.get(portal) ?? this.#portals.get(portal) ?? UNKNOWN_STATEMENT
    if (kind === BIND) return this.#bindOf(name, bytes)
    if (kind === QUERY) this.#recordPrepared(text?.text)
    return text === undefined ? UNKNOWN_STATEMENT : { text, statement: name, bindBytes: 0, executed: false }
  }

  /** What a Bind makes of a prepared statement. */
  #bindOf(name: string, bytes: number): NamedStatement {
    const { text } = this.#tentative?.statements.get(name) ?? this.#statements.get(name) ?? UNKNOWN_STATEMENT
    return { text, statement: name, bindBytes: bytes, executed: false }
  }

  /**
   * PREPARE, DECLARE, DEALLOCATE, CLOSE and DISCARD share their name space with the protocol's messages.
   * @param batchIndex of the statement among those of `text`. Only the first begins where the text does; behind another one nobody
   *   reads which name it means, and the names are forgotten.
   */
  followSql(names: NonNullable<CommandTag['names']>, text: StatementText, batchIndex: number): void {
    if (names === 'discard') this.#statements.clear()
    else if (names === 'close_all') this.#portals.clear()
    else if (batchIndex > 0) (names === 'declare' || names === 'close' ? this.#portals : this.#statements).clear()
    else if (names === 'prepare') this.#statements.addFromSql(text, 'prepare')
    else if (names === 'declare') this.#portals.addFromSql(text, 'declare')
    else if (names === 'close') this.#portals.removeFromSql(text, 'close')
    else this.#statements.removeFromSql(text, 'deallocate')
  }
}
