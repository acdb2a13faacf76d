/**
 * Names of prepared statements or portals and the texts behind them, as PostgreSQL has them. It labels records; a name that is not
 * here leaves a record without text, never a guess.
 */
import { hash } from 'node:crypto'
import { sqlName } from './sql-name.ts'

export interface StatementText {
  /** Undefined where the text was not kept. */
  text: string | undefined
  /** Bytes as sent. */
  bytes: number
  /** Hex, of the bytes as sent; undefined where it is that of the whole text as UTF-8. */
  sha256: string | undefined
  truncated: boolean
  /** It stands in a record, as a whole or as far as it was kept when it came. */
  recorded?: boolean
}

export interface NamedStatement {
  text: StatementText
  /** Name of the prepared statement, '' for the unnamed one. */
  statement: string
  /** Bytes of the Bind that made a portal, or of the Parse. */
  bindBytes: number
  /** A portal that an Execute ran, or that SQL declared: there is a record of it. */
  executed: boolean
}

export const NO_TEXT: StatementText = { text: undefined, bytes: 0, sha256: undefined, truncated: false }
/** A name that is not in the map. */
export const UNKNOWN_STATEMENT: NamedStatement = { text: NO_TEXT, statement: '', bindBytes: 0, executed: false }
/** What an EmptyQueryResponse answers where the text is not known: it had no statement in it. */
export const EMPTY_STATEMENT: NamedStatement = {
  text: { text: '', bytes: 0, sha256: undefined, truncated: false },
  statement: '',
  bindBytes: 0,
  executed: false,
}

export interface NameMap {
  get(name: string): NamedStatement | undefined
  set(name: string, statement: NamedStatement): void
  delete(name: string): void
  clear(): void
  /** But for the unnamed one. */
  all(): Iterable<[name: string, statement: NamedStatement]>
  /** PREPARE or DECLARE by SQL. All names are forgotten where the text does not tell for certain which one it is. */
  addFromSql(text: StatementText | undefined, verb: 'prepare' | 'declare'): void
  /** DEALLOCATE or CLOSE by SQL; as `addFromSql`. */
  removeFromSql(text: StatementText | undefined, verb: 'deallocate' | 'close'): void
}

/** A session that prepares more than this keeps the newest; PostgreSQL itself would hold about 100 MB by then. */
const MAX_NAMES = 10_000
/** Characters of all texts of a session. When there are more, the oldest are cut. */
const MAX_CHARS = 4 * 1024 * 1024
/** What stays of a text that is cut, with its hash and length. */
const CUT_CHARS = 256
/** NAMEDATALEN - 1. PostgreSQL looks names up by so many bytes: `…a` and `…b` with 63 bytes before them are one name (tried). */
const MAX_NAME = 63

/** @param onForget is told of each that goes, before its text is cut too */
export function createNameMap(onForget: (name: string, statement: NamedStatement) => void = () => {}): NameMap {
  /** Most transactions use the unnamed portal, and it goes with each: in a Map it was 3 % of the CPU. It counts for none of the bounds. */
  let unnamed: NamedStatement | undefined
  const names = new Map<string, NamedStatement>()
  /** Those whose text can be cut, oldest first. */
  const long = new Set<string>()
  let chars = 0

  function remove(key: string): void {
    if (key === '') {
      setUnnamed(undefined)
      return
    }
    const known = names.get(key)
    if (known === undefined) return
    chars -= known.text.text?.length ?? 0
    names.delete(key)
    long.delete(key)
    onForget(key, known)
  }

  function setUnnamed(statement: NamedStatement | undefined): void {
    const known = unnamed
    unnamed = statement
    if (known !== undefined) onForget('', known)
  }

  function cutOldest(): void {
    for (const key of long) {
      if (chars <= MAX_CHARS) return
      const known = names.get(key)!
      onForget(key, known)
      const text = cut(known.text)
      chars -= known.text.text!.length - text.text!.length
      names.set(key, { ...known, text })
      long.delete(key)
    }
  }

  function set(name: string, statement: NamedStatement): void {
    if (name === '') {
      setUnnamed(statement)
      return
    }
    const key = name.slice(0, MAX_NAME)
    remove(key)
    if (names.size >= MAX_NAMES) remove(names.keys().next().value!)
    names.set(key, statement)
    const length = statement.text.text?.length ?? 0
    chars += length
    if (length > CUT_CHARS) long.add(key)
    if (chars > MAX_CHARS) cutOldest()
  }

  function clear(): void {
    setUnnamed(undefined)
    // Clearing a Map makes a new table.
    if (names.size === 0) return
    const all = [...names]
    names.clear()
    long.clear()
    chars = 0
    for (const [key, statement] of all) onForget(key, statement)
  }

  return {
    get: (name) => (name === '' ? unnamed : names.get(name.slice(0, MAX_NAME))),
    set,
    delete: (name) => remove(name.slice(0, MAX_NAME)),
    clear,
    all: () => names,
    addFromSql(text, verb) {
      const name = sqlName(text?.text, verb)
      if (text === undefined || name === undefined) clear()
      else set(name, { text, statement: verb === 'prepare' ? name : '', bindBytes: 0, executed: true })
    },
    removeFromSql(text, verb) {
      const name = sqlName(text?.text, verb)
      if (name === undefined) clear()
      else remove(name)
    },
  }
}

function cut({ text = '', bytes, sha256 }: StatementText): StatementText {
  return {
    // Through bytes, because a slice of a string keeps the whole of it alive.
    text: Buffer.from(text.slice(0, CUT_CHARS)).toString(),
    bytes,
    sha256: sha256 ?? hash('sha256', text, 'hex'),
    truncated: true,
    recorded: true,
  }
}
