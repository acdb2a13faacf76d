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

/** A session that prepares more than this keeps the newest; PostgreSQL itself would hold about 100 MB by then. */
const MAX_NAMES = 10_000
/** Characters of all texts of a session. When there are more, the oldest are cut. */
const MAX_CHARS = 4 * 1024 * 1024
/** What stays of a text that is cut, with its hash and length. */
const CUT_CHARS = 256
/** NAMEDATALEN - 1. PostgreSQL looks names up by so many bytes: `…a` and `…b` with 63 bytes before them are one name (tried). */
const MAX_NAME = 63

/** A class with tables where there is something for them: two of each session, of which most hold nothing but the unnamed one. */
export class NameMap {
  readonly #onForget: (name: string, statement: NamedStatement) => void
  /** Most transactions use the unnamed portal, and it goes with each: in a Map it was 3 % of the CPU. It counts for none of the bounds. */
  #unnamed: NamedStatement | undefined
  #names: Map<string, NamedStatement> | undefined
  /** Those whose text can be cut, oldest first. */
  #long: Set<string> | undefined
  #chars = 0

  /** @param onForget is told of each that goes, before its text is cut too */
  constructor(onForget: (name: string, statement: NamedStatement) => void = () => {}) {
    this.#onForget = onForget
  }

  get(name: string): NamedStatement | undefined {
    return name === '' ? this.#unnamed : this.#names?.get(name.slice(0, MAX_NAME))
  }

  set(name: string, statement: NamedStatement): void {
    if (name === '') {
      this.#setUnnamed(statement)
      return
    }
    const key = name.slice(0, MAX_NAME)
    this.#remove(key)
    this.#names ??= new Map()
    if (this.#names.size >= MAX_NAMES) this.#remove(this.#names.keys().next().value!)
    this.#names.set(key, statement)
    const length = statement.text.text?.length ?? 0
    this.#chars += length
    if (length > CUT_CHARS) this.#long = (this.#long ?? new Set()).add(key)
    if (this.#chars > MAX_CHARS) this.#cutOldest(this.#names)
  }

  delete(name: string): void {
    this.#remove(name.slice(0, MAX_NAME))
  }

  clear(): void {
    this.#setUnnamed(undefined)
    const names = this.#names
    if (names === undefined) return
    this.#names = undefined
    this.#long = undefined
    this.#chars = 0
    for (const [key, statement] of names) this.#onForget(key, statement)
  }

  /** But for the unnamed one. */
  all(): Iterable<[name: string, statement: NamedStatement]> {
    return this.#names ?? []
  }

  /** PREPARE or DECLARE by SQL. All names are forgotten where the text does not tell for certain which one it is. */
  addFromSql(text: StatementText | undefined, verb: 'prepare' | 'declare'): void {
    const name = sqlName(text?.text, verb)
    if (text === undefined || name === undefined) this.clear()
    else this.set(name, { text, statement: verb === 'prepare' ? name : '', bindBytes: 0, executed: true })
  }

  /** DEALLOCATE or CLOSE by SQL; as `addFromSql`. */
  removeFromSql(text: StatementText | undefined, verb: 'deallocate' | 'close'): void {
    const name = sqlName(text?.text, verb)
    if (name === undefined) this.clear()
    else this.#remove(name)
  }

  #remove(key: string): void {
    if (key === '') {
      this.#setUnnamed(undefined)
      return
    }
    const known = this.#names?.get(key)
    if (known === undefined) return
    this.#chars -= known.text.text?.length ?? 0
    this.#names?.delete(key)
    this.#long?.delete(key)
    this.#onForget(key, known)
  }

  #setUnnamed(statement: NamedStatement | undefined): void {
    const known = this.#unnamed
    this.#unnamed = statement
    if (known !== undefined) this.#onForget('', known)
  }

  #cutOldest(names: Map<string, NamedStatement>): void {
    for (const key of this.#long ?? []) {
      if (this.#chars <= MAX_CHARS) return
      const known = names.get(key)!
      this.#onForget(key, known)
      const text = cut(known.text)
      this.#chars -= known.text.text!.length - text.text!.length
      names.set(key, { ...known, text })
      this.#long?.delete(key)
    }
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
