/** Everything that is recorded about a SQL text, by PostgreSQL's parser and, for secrets, by tokens. Runs in the worker. */
import { fingerprintSync, parseSync, SqlError } from 'libpg-query'
import type { Classification, ClassifiedStatement } from './classification.ts'
import { isFields, listOf } from './parse-tree.ts'
import { factsOf } from './sql-class.ts'
import { redactSecrets } from './sql-redact.ts'
import { normalizedText } from './sql-tokens.ts'

/** A longer text takes the parser too long and too much memory; it is recorded without a class. */
export const MAX_PARSED_BYTES = 64 * 1024

/**
 * At each operator the lexer reads to the end of its run, and then gives back all but the operator: 64 KiB of `/*` took it 23 s, in
 * which nobody else's text was read. A line of dashes or stars is shorter.
 */
const LONG_RUN = /[-+*/<>=~!@#%^&|`?]{1000}/

/** The part that does not need the parser. */
function shownText(
  sql: string,
  secretExpected: boolean,
): { text: string | undefined; normalized: string | undefined; secret: boolean } {
  const { text, count, ambiguous } = redactSecrets(sql)
  // The tree shows a secret and the tokens did not find it: better no text than that one.
  if (ambiguous || (secretExpected && count === 0)) return { text: undefined, normalized: undefined, secret: true }
  return { text, normalized: normalizedText(text), secret: secretExpected || count > 0 }
}

/**
 * @throws RangeError or WebAssembly.RuntimeError when the input crashed the parser, which is not to be used any more then.
 */
export function analyze(sql: string): Classification {
  const bytes = Buffer.from(sql)
  // The parser's strings end at NUL: what follows would not be looked at.
  const readable = bytes.length <= MAX_PARSED_BYTES && !sql.includes('\0') && !LONG_RUN.test(sql)
  const parsed = readable ? parseOrUndefined(sql) : undefined
  if (parsed === undefined) return { settled: true, parsed: false, statements: [], ...shownText(sql, false) }
  const alone = parsed.length === 1
  const statements = parsed.map((raw): ClassifiedStatement => {
    const { stmt, stmt_location: start = 0, stmt_len: length = 0 } = raw
    const end = length === 0 ? bytes.length : start + length
    const own = bytes.toString('utf8', start, end)
    const facts = factsOf(stmt)
    // A text of one statement is recorded whole, so its slice is not needed.
    const shown = alone ? shownText(sql, facts.secret) : shownText(own, facts.secret)
    return { ...facts, ...shown, fingerprint: fingerprintOf(own), start, length: end - start }
  })
  const [only] = statements
  if (alone && only !== undefined) {
    const { text, normalized, secret } = only
    return { settled: true, parsed: true, statements, text, normalized, secret }
  }
  const whole = shownText(sql, false)
  const withheld = statements.some(({ text }) => text === undefined)
  return {
    settled: true,
    parsed: true,
    statements,
    ...whole,
    ...(withheld ? { text: undefined, normalized: undefined, secret: true } : {}),
  }
}

interface RawStatement {
  stmt?: unknown
  /** Bytes; 0 is left out, and a length of 0 means up to the text's end. */
  stmt_location?: number
  stmt_len?: number
}

/** Undefined for a syntax error. */
function parseOrUndefined(sql: string): RawStatement[] | undefined {
  // libpg-query refuses the empty text, which PostgreSQL answers with EmptyQueryResponse.
  if (sql === '') return []
  try {
    const result: unknown = parseSync(sql)
    return isFields(result) ? listOf(result['stmts']).filter(isFields) : undefined
  } catch (error) {
    if (error instanceof SqlError) return undefined
    throw error
  }
}

/** libpg-query gives some error messages back as if they were fingerprints. */
function fingerprintOf(sql: string): string | undefined {
  const print = fingerprintSync(sql)
  return /^[0-9a-f]{16}$/.test(print) ? print : undefined
}
