/**
 * Texts that differ in nothing but plain literals have the same class, tables and fingerprint, so one look by the parser is enough
 * for all of them: an ORM without parameters, a COPY in pieces of INSERT, pgbench's simple protocol send each text once.
 *
 * A text that needs PostgreSQL's lexer to tell a literal from something else has no shape and goes to the parser itself: quoted
 * identifiers, dollar quotes, comments, escapes, what is not ASCII. So has one whose literals decide what it means.
 */
import type { Classification } from './classification.ts'
import { maySecret } from './sql-redact.ts'

/** Units; a longer text's shape costs more than it is likely to save. */
const MAX_UNITS = 4 * 1024
/** Statements of data only: in others a literal is more often part of what is done. */
const DATA = /^\s*(?:select|insert|update|delete|values|with)\b/i
const NEEDS_LEXER = /["$\\]|--|\/\*|[^\t\n\r\x20-\x7e]/
/** The literal behind one of these changes the type (float(24), interval(3), localtime(3)), or a cast may read it, or it names a setting. */
const NEEDS_PARSER = /\b(?:float|interval|precision)\b|set_config|\b(?:local|current_)time(?:stamp)?\s*\(|::/i
/**
 * A quoted literal of characters that no scheme, password or inner statement can be made of, or a whole number that fits into 32 bits: a
 * larger one is another token in PostgreSQL's grammar. The quote of E'', B'', U&'' begins none, and is left.
 */
const LITERAL = /(?<![\w&])'[\w .,:+-]*'|\b\d{1,9}\b/g

/** Equal for texts that one classification fits, but for the text itself. Undefined where that cannot be told by a glance. */
export function shapeOf(sql: string): string | undefined {
  if (sql.length > MAX_UNITS || !DATA.test(sql) || NEEDS_LEXER.test(sql) || NEEDS_PARSER.test(sql)) return undefined
  const shape = sql.replace(LITERAL, (literal) => (literal.startsWith("'") ? '\0s' : '\0n'))
  // A quote that is left is of a literal of another kind, with other characters, or without an end.
  return shape.includes("'") || maySecret(sql) ? undefined : shape
}

/** Whether other texts of the same shape may take their classification from this one. */
export function isExemplar(sql: string, { parsed, statements, text, secret }: Classification): boolean {
  return parsed && statements.length === 1 && !secret && text === sql
}

/** @param exemplar of another text of the same shape */
export function sameShape(sql: string, exemplar: Classification): Classification {
  const statements = exemplar.statements.map((statement) => {
    // Both are ASCII, and differ in length behind the statement's beginning only.
    const length = statement.length + sql.length - (exemplar.text?.length ?? 0)
    return { ...statement, length, text: sql }
  })
  return { ...exemplar, statements, text: sql }
}
