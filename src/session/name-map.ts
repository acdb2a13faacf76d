/**
 * Names of prepared statements or portals and the texts behind them, as PostgreSQL has them. It labels records; a name that is not
 * here leaves a record without text, never a guess.
 */

export interface StatementText {
  /** Undefined where the text was not kept. */
  text: string | undefined
  /** Bytes as sent. */
  bytes: number
  /** Hex; only where the text is cut or not kept. */
  sha256: string | undefined
  truncated: boolean
}

export interface NamedStatement {
  text: StatementText
  /** Name of the prepared statement, '' for the unnamed one. */
  statement: string
  /** Bytes of the Bind that made a portal. */
  bindBytes: number
}

export const NO_TEXT: StatementText = { text: undefined, bytes: 0, sha256: undefined, truncated: false }
/** A name that is not in the map. */
export const UNKNOWN_STATEMENT: NamedStatement = { text: NO_TEXT, statement: '', bindBytes: 0 }

export interface NameMap {
  get(name: string): NamedStatement | undefined
  set(name: string, statement: NamedStatement): void
  delete(name: string): void
  clear(): void
  /** PREPARE or DECLARE by SQL. */
  addFromSql(text: StatementText | undefined, verb: 'prepare' | 'declare'): void
  /** DEALLOCATE by SQL. */
  removeFromSql(text: StatementText | undefined): void
}

/** A session that prepares more than this keeps the newest; PostgreSQL itself would hold about 100 MB by then. */
const MAX_NAMES = 10_000
/** Texts held for one session; behind that a statement is known by hash and length only. */
const MAX_TEXT_CHARS = 8 * 1024 * 1024
const IDENTIFIER = String.raw`("(?:[^"]|"")+"|[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*)`
const PREPARE = new RegExp(String.raw`\bPREPARE\s+${IDENTIFIER}`, 'giu')
const DECLARE = new RegExp(String.raw`\bDECLARE\s+${IDENTIFIER}`, 'giu')
const DEALLOCATE = new RegExp(String.raw`\bDEALLOCATE\s+(?:PREPARE\s+)?${IDENTIFIER}`, 'giu')

export function createNameMap(): NameMap {
  const names = new Map<string, NamedStatement>()
  let chars = 0

  function remove(name: string): void {
    const known = names.get(name)
    if (known === undefined) return
    chars -= known.text.text?.length ?? 0
    names.delete(name)
  }

  function set(name: string, statement: NamedStatement): void {
    remove(name)
    const room = chars + (statement.text.text?.length ?? 0) <= MAX_TEXT_CHARS
    if (names.size >= MAX_NAMES) remove(names.keys().next().value!)
    names.set(name, room ? statement : { ...statement, text: { ...statement.text, text: undefined, truncated: true } })
    if (room) chars += statement.text.text?.length ?? 0
  }

  return {
    get: (name) => names.get(name),
    set,
    delete: remove,
    clear() {
      if (names.size === 0) return
      names.clear()
      chars = 0
    },
    addFromSql(text, verb) {
      if (text?.text === undefined) return
      for (const [, quoted] of text.text.matchAll(verb === 'prepare' ? PREPARE : DECLARE)) {
        set(unquoted(quoted!), { text, statement: verb === 'prepare' ? unquoted(quoted!) : '', bindBytes: 0 })
      }
    },
    removeFromSql(text) {
      for (const [, quoted] of text?.text?.matchAll(DEALLOCATE) ?? []) remove(unquoted(quoted!))
    },
  }
}

/** PostgreSQL folds what is not quoted to lower case. */
function unquoted(identifier: string): string {
  return identifier.startsWith('"') ? identifier.slice(1, -1).replaceAll('""', '"') : identifier.toLowerCase()
}
