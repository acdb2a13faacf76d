/**
 * The names of one session's prepared statements and portals: those that PostgreSQL has committed, and, after an error, those of
 * the discarded part of a pipeline, which label its records and are then forgotten.
 */
import type { CommandTag } from './command-tag.ts'
import { createNameMap, type NamedStatement, type StatementText, UNKNOWN_STATEMENT } from './name-map.ts'

/**
 * A statement or portal that goes without an Execute. `prepared_only`: SQL's EXECUTE can have run it, and shows its name alone.
 * `bound_only`: SQL's FETCH can have, and planning a Bind runs the functions that are declared immutable (tried).
 */
export type Unexecuted = 'prepared_only' | 'bound_only'

export class SessionNames {
  readonly #statements
  readonly #portals
  #tentative: { statements: ReturnType<typeof createNameMap>; portals: ReturnType<typeof createNameMap> } | undefined

  /** @param onUnexecuted is told of a text that goes, or is cut, before it stands in a record */
  constructor(onUnexecuted: (statement: NamedStatement, what: Unexecuted) => void) {
    this.#statements = createNameMap((name, statement) => {
      // SQL cannot name the unnamed statement.
      if (name !== '' && statement.text.recorded !== true) onUnexecuted(statement, 'prepared_only')
    })
    this.#portals = createNameMap((_name, statement) => {
      if (statement.executed !== true) onUnexecuted(statement, 'bound_only')
    })
  }

  prepared(name: string, text: StatementText, bytes: number): void {
    this.#statements.set(name, { text, statement: name, bindBytes: bytes })
  }

  bound(portal: string, statement: string, bytes: number): void {
    this.#portals.set(portal, this.bindOf(statement, bytes))
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

  preparedTentatively(name: string, text: StatementText): void {
    this.#tentatively().statements.set(name, { text, statement: name, bindBytes: 0 })
  }

  boundTentatively(portal: string, statement: string, bytes: number): void {
    this.#tentatively().portals.set(portal, this.bindOf(statement, bytes))
  }

  forgetTentative(): void {
    this.#tentative = undefined
  }

  /** What an Execute of this portal runs. */
  portal(name: string): NamedStatement {
    return this.#tentative?.portals.get(name) ?? this.#portals.get(name) ?? UNKNOWN_STATEMENT
  }

  /** What a Bind makes of a prepared statement. */
  bindOf(name: string, bytes: number): NamedStatement {
    const { text } = this.#tentative?.statements.get(name) ?? this.#statements.get(name) ?? UNKNOWN_STATEMENT
    return { text, statement: name, bindBytes: bytes }
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

  #tentatively() {
    this.#tentative ??= { statements: createNameMap(), portals: createNameMap() }
    return this.#tentative
  }
}
