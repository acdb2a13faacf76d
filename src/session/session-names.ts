/**
 * The names of one session's prepared statements and portals: those that PostgreSQL has committed, and, after an error, those of
 * the discarded part of a pipeline, which label its records and are then forgotten.
 */
import type { CommandTag } from './command-tag.ts'
import { createNameMap, type NamedStatement, NO_TEXT, type StatementText, UNKNOWN_STATEMENT } from './name-map.ts'

export class SessionNames {
  readonly #statements = createNameMap()
  readonly #portals = createNameMap()
  #tentative: { statements: Map<string, StatementText>; portals: Map<string, NamedStatement> } | undefined

  prepared(name: string, text: StatementText): void {
    this.#statements.set(name, { text, statement: name, bindBytes: 0 })
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

  preparedTentatively(name: string, text: StatementText): void {
    this.#tentatively().statements.set(name, text)
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
    const text = this.#tentative?.statements.get(name) ?? this.#statements.get(name)?.text ?? NO_TEXT
    return { text, statement: name, bindBytes: bytes }
  }

  /**
   * PREPARE, DECLARE, DEALLOCATE and DISCARD share their name space with the protocol's messages.
   * @param batchIndex of the statement among those of `text`. Only the first begins where the text does; behind another one nobody
   *   reads which name it means, and the names are forgotten.
   */
  followSql(names: NonNullable<CommandTag['names']>, text: StatementText, batchIndex: number): void {
    if (names === 'discard') this.#statements.clear()
    else if (batchIndex > 0) (names === 'declare' ? this.#portals : this.#statements).clear()
    else if (names === 'prepare') this.#statements.addFromSql(text, 'prepare')
    else if (names === 'declare') this.#portals.addFromSql(text, 'declare')
    else this.#statements.removeFromSql(text)
  }

  #tentatively(): { statements: Map<string, StatementText>; portals: Map<string, NamedStatement> } {
    this.#tentative ??= { statements: new Map(), portals: new Map() }
    return this.#tentative
  }
}
