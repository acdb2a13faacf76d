/** What is known of a SQL text without running it. */
import type { Needs } from './sql-needs.ts'

/** pgaudit's words; `unknown` for what PostgreSQL's grammar does not read, or did not read in time. */
export type StatementClass = 'READ' | 'WRITE' | 'FUNCTION' | 'ROLE' | 'DDL' | 'MISC' | 'MISC_SET' | 'unknown'

/** What the parser says of one statement of a text. */
export interface StatementFacts {
  class: StatementClass
  /** As written: `public.orders`, or `orders` where the text names no schema. */
  tables: readonly string[]
  /** False where the text can hide tables: functions, DO, CALL, EXECUTE, or a name without a schema. */
  tablesComplete: boolean
  /** Low-cardinality, as OpenTelemetry's `db.query.summary`: `SELECT public.orders`. */
  summary: string
  /** libpg_query's, 16 hex digits: equal for statements that differ in literals only. */
  fingerprint: string | undefined
  /** Whether it holds a password or a connection string. */
  secret: boolean
}

export interface ClassifiedStatement extends StatementFacts, Needs {
  /** Where it stands in the text, in bytes of UTF-8. */
  start: number
  length: number
  /** The statement's own text with passwords replaced; undefined where they could not be found for certain. */
  text: string | undefined
  /** `text` without comments and with `?` for each literal. */
  normalized: string | undefined
}

export interface Classification {
  /** False where the deadline passed: asked again later, the answer may be better. */
  settled: boolean
  /** False for a text that was not parsed: the class is unknown then, and there are no statements. */
  parsed: boolean
  /** In order; empty also for a text of comments only. */
  statements: readonly ClassifiedStatement[]
  /** The whole text with passwords replaced; undefined where it must not be recorded. */
  text: string | undefined
  normalized: string | undefined
  secret: boolean
}

/** How much a statement can do, least first; for a text whose statements are recorded as one. */
const SEVERITY: readonly StatementClass[] = ['READ', 'MISC', 'MISC_SET', 'WRITE', 'FUNCTION', 'ROLE', 'DDL', 'unknown']

const NO_FACTS = { tables: [], summary: '', fingerprint: undefined, secret: false }
/** Of a text that was not parsed. */
export const UNKNOWN_FACTS: StatementFacts = { ...NO_FACTS, class: 'unknown', tablesComplete: false }
/** Of a text that holds no statement: PostgreSQL answers with EmptyQueryResponse. */
const EMPTY_FACTS: StatementFacts = { ...NO_FACTS, class: 'MISC', tablesComplete: true }

/** Several statements as one: the class of the one that can do most, all tables. */
export function combine(statements: readonly StatementFacts[]): StatementFacts {
  const [first] = statements
  if (first === undefined) return EMPTY_FACTS
  if (statements.length === 1) return first
  const most = statements.reduce((a, b) => (SEVERITY.indexOf(b.class) > SEVERITY.indexOf(a.class) ? b : a))
  return {
    class: most.class,
    tables: [...new Set(statements.flatMap(({ tables }) => tables))],
    tablesComplete: statements.every(({ tablesComplete }) => tablesComplete),
    summary: statements
      .map(({ summary }) => summary)
      .join('; ')
      .slice(0, 255),
    fingerprint: undefined,
    secret: statements.some(({ secret }) => secret),
  }
}
