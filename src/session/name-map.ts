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
  /** PREPARE or DECLARE by SQL. All names are forgotten where the text does not tell for certain which one it is. */
  addFromSql(text: StatementText | undefined, verb: 'prepare' | 'declare'): void
  /** DEALLOCATE by SQL; as `addFromSql`. */
  removeFromSql(text: StatementText | undefined): void
}

/** A session that prepares more than this keeps the newest; PostgreSQL itself would hold about 100 MB by then. */
const MAX_NAMES = 10_000
/** Texts held for one session; behind that a statement is known by hash and length only. */
const MAX_TEXT_CHARS = 8 * 1024 * 1024
/**
 * Only what begins with the command, without a comment, and names something that PostgreSQL folds as we do: in a text that reads
 * otherwise nobody but PostgreSQL knows which name is meant.
 */
const IDENTIFIER = '("(?:[^"]|"")+"|[A-Za-z_][A-Za-z0-9_$]*)'
const PREPARE = new RegExp(String.raw`^\s*PREPARE\s+${IDENTIFIER}(?=[\s(])`, 'iu')
const DECLARE = new RegExp(String.raw`^\s*DECLARE\s+${IDENTIFIER}(?=\s)`, 'iu')
const DEALLOCATE = new RegExp(String.raw`^\s*DEALLOCATE\s+(?:PREPARE\s+)?${IDENTIFIER}\s*(?:;|$)`, 'iu')
/** NAMEDATALEN - 1: SQL cuts a name here, the protocol does not. */
const MAX_SQL_NAME = 63

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

  function clear(): void {
    if (names.size === 0) return
    names.clear()
    chars = 0
  }

  return {
    get: (name) => names.get(name),
    set,
    delete: remove,
    clear,
    addFromSql(text, verb) {
      const name = nameIn(text, verb === 'prepare' ? PREPARE : DECLARE)
      if (text === undefined || name === undefined) clear()
      else set(name, { text, statement: verb === 'prepare' ? name : '', bindBytes: 0 })
    },
    removeFromSql(text) {
      const name = nameIn(text, DEALLOCATE)
      if (name === undefined) clear()
      else remove(name)
    },
  }
}

function nameIn(text: StatementText | undefined, command: RegExp): string | undefined {
  const quoted = command.exec(text?.text ?? '')?.[1]
  if (quoted === undefined) return undefined
  const name = unquoted(quoted)
  return Buffer.byteLength(name) <= MAX_SQL_NAME ? name : undefined
}

/** PostgreSQL folds what is not quoted to lower case. */
function unquoted(identifier: string): string {
  return identifier.startsWith('"') ? identifier.slice(1, -1).replaceAll('""', '"') : identifier.toLowerCase()
}
