/** Which tables and functions a statement names. */
import { dotted, type Fields, isFields, listOf, nameParts, nodeOf, textOf } from './parse-tree.ts'

export interface Names {
  /** As written, in the order of their first mention. */
  tables: string[]
  /** A table without a schema: which one it is depends on the search path. */
  unqualified: boolean
  /** Functions called, as parts of a qualified name. */
  functions: string[][]
  /** Types of the statements inside, the outermost first: CTEs, the query of COPY, EXPLAIN and so on. */
  statements: string[]
}

/** Object types whose name is a table's (or what is read like one). */
const IS_TABLE = new Set(['OBJECT_TABLE', 'OBJECT_VIEW', 'OBJECT_MATVIEW', 'OBJECT_FOREIGN_TABLE', 'OBJECT_SEQUENCE'])
/** Object types whose name is a table's and one part more. */
const BELONGS_TO_TABLE = new Set([
  'OBJECT_COLUMN',
  'OBJECT_TABCONSTRAINT',
  'OBJECT_TRIGGER',
  'OBJECT_POLICY',
  'OBJECT_RULE',
])

type Ctes = ReadonlySet<string>

export function namesIn(statement: unknown): Names {
  const tables = new Set<string>()
  const names: Names = { tables: [], unqualified: false, functions: [], statements: [] }

  const table = (parts: string[]): void => {
    if (parts.length === 1) names.unqualified = true
    tables.add(dotted(parts))
  }

  const relation = (fields: Fields, ctes: Ctes): void => {
    const name = textOf(fields['relname'])
    const parts = [fields['catalogname'], fields['schemaname'], name].map(textOf).filter((part) => part !== '')
    if (parts.length === 1 && ctes.has(name)) return
    table(parts)
  }

  /**
   * A CTE is seen by what follows it, and with RECURSIVE by all of them; the table of that name stays hidden there only:
   * in `WITH t AS (SELECT * FROM t)` the inner `t` is the table.
   */
  const withClause = (clause: Fields, outer: Ctes): Ctes => {
    const list = listOf(clause['ctes']).map((cte) => nodeOf(cte)?.fields ?? {})
    const visible = new Set(outer)
    if (clause['recursive'] === true) for (const cte of list) visible.add(textOf(cte['ctename']))
    for (const cte of list) {
      walk(cte['ctequery'], visible)
      visible.add(textOf(cte['ctename']))
    }
    return visible
  }

  const members = (fields: Fields, ctes: Ctes): void => {
    const clause = fields['withClause']
    const visible = isFields(clause) ? withClause(clause, ctes) : ctes
    for (const [name, value] of Object.entries(fields)) if (name !== 'withClause') walk(value, visible)
  }

  const walk = (value: unknown, ctes: Ctes): void => {
    if (Array.isArray(value)) {
      for (const item of value) walk(item, ctes)
      return
    }
    if (!isFields(value)) return
    // A RangeVar stands under its type's name in lists and bare in fields such as `relation`.
    if (typeof value['relname'] === 'string') relation(value, ctes)
    for (const [type, fields] of Object.entries(value)) {
      if (type === 'withClause') continue
      if (/^[A-Z]\w*Stmt$/.test(type)) names.statements.push(type)
      if (type === 'FuncCall' && isFields(fields)) names.functions.push(nameParts(fields['funcname']))
      if (type === 'DropStmt' && isFields(fields)) objects(fields['removeType'], listOf(fields['objects']))
      if ((type === 'CommentStmt' || type === 'SecLabelStmt') && isFields(fields))
        objects(fields['objtype'], [fields['object']])
    }
    members(value, ctes)
  }

  /** DROP and COMMENT name objects as lists of strings, whatever they are. */
  const objects = (objectType: unknown, list: readonly unknown[]): void => {
    const type = textOf(objectType)
    if (!IS_TABLE.has(type) && !BELONGS_TO_TABLE.has(type)) return
    for (const object of list) {
      const parts = nameParts(nodeOf(object)?.fields['items'])
      if (BELONGS_TO_TABLE.has(type)) parts.pop()
      if (parts.length > 0) table(parts)
    }
  }

  walk(statement, new Set())
  names.tables = [...tables]
  return names
}
