/** Which tables and functions a statement names. */
import { dotted, type Fields, isFields, listOf, nameParts, nodeOf, textOf } from './parse-tree.ts'
import { callsOf } from './sql-calls.ts'

export interface Names {
  /** As written, in the order of their first mention. */
  tables: string[]
  /** A table without a schema: which one it is depends on the search path. */
  unqualified: boolean
  /** It falls on tables that it does not name. */
  unnamed: boolean
  /** Functions called, and operators of other schemas than pg_catalog, as parts of a qualified name. */
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

/** Commands that mean every table where this field of theirs is not there. */
const WITHOUT_NAMES: Readonly<Record<string, string>> = {
  VacuumStmt: 'rels',
  ClusterStmt: 'relation',
  ReindexStmt: 'relation',
}

/**
 * CASCADE, all tables of a schema or of the database, what an extension made, and an index, which does not say whose it is. REVOKE's
 * CASCADE goes to other roles, not to other tables.
 */
function fallsOnUnnamed(type: string, fields: Fields): boolean {
  if (type === 'GrantStmt') return fields['targtype'] === 'ACL_TARGET_ALL_IN_SCHEMA'
  if (fields['behavior'] === 'DROP_CASCADE') return true
  const member = WITHOUT_NAMES[type]
  if (member !== undefined && fields[member] === undefined) return true
  if (type === 'RenameStmt' && fields['renameType'] === 'OBJECT_SCHEMA') return true
  if (fields['removeType'] === 'OBJECT_EXTENSION') return true
  if (type === 'AlterObjectSchemaStmt' && fields['objectType'] === 'OBJECT_EXTENSION') return true
  return ['removeType', 'renameType', 'objtype', 'kind'].some((name) =>
    /^(?:REINDEX_)?OBJECT_INDEX$/.test(textOf(fields[name])),
  )
}

type Ctes = ReadonlySet<string>

interface Collector {
  table(parts: string[]): void
  relation(fields: Fields, ctes: Ctes): void
  /** DROP and COMMENT name objects as lists of strings, whatever they are. */
  objects(objectType: unknown, list: readonly unknown[]): void
  /** The statement reaches tables that it does not name. */
  unnamed(): void
  names(): Names
  functions: string[][]
  statements: string[]
}

function collector(): Collector {
  const tables = new Set<string>()
  const functions: string[][] = []
  const statements: string[] = []
  let [unqualified, unnamed] = [false, false]
  const table = (parts: string[]): void => {
    if (parts.length === 1) unqualified = true
    tables.add(dotted(parts))
  }
  return {
    table,
    relation(fields, ctes) {
      const name = textOf(fields['relname'])
      const parts = [fields['catalogname'], fields['schemaname'], name].map(textOf).filter((part) => part !== '')
      if (parts.length > 1 || !ctes.has(name)) table(parts)
    },
    objects(objectType, list) {
      const type = textOf(objectType)
      if (!IS_TABLE.has(type) && !BELONGS_TO_TABLE.has(type)) return
      for (const object of list) {
        const parts = nameParts(nodeOf(object)?.fields['items'])
        if (BELONGS_TO_TABLE.has(type)) parts.pop()
        if (parts.length > 0) table(parts)
      }
    },
    unnamed() {
      unnamed = true
    },
    names: () => ({ tables: [...tables], unqualified, unnamed, functions, statements }),
    functions,
    statements,
  }
}

/**
 * A CTE is seen by what follows it, and with RECURSIVE by all of them; the table of that name stays hidden there only: in
 * `WITH t AS (SELECT * FROM t)` the inner `t` is the table.
 */
function walkCtes(clause: Fields, outer: Ctes, into: Collector): Ctes {
  const list = listOf(clause['ctes']).map((cte) => nodeOf(cte)?.fields ?? {})
  const visible = new Set(outer)
  if (clause['recursive'] === true) for (const cte of list) visible.add(textOf(cte['ctename']))
  for (const cte of list) {
    walk(cte['ctequery'], visible, into)
    visible.add(textOf(cte['ctename']))
  }
  return visible
}

function noteNode(type: string, fields: Fields, into: Collector): void {
  if (/^[A-Z]\w*Stmt$/.test(type)) into.statements.push(type)
  into.functions.push(...callsOf(type, fields))
  if (fallsOnUnnamed(type, fields)) into.unnamed()
  if (type === 'DropStmt') into.objects(fields['removeType'], listOf(fields['objects']))
  if (type === 'CommentStmt' || type === 'SecLabelStmt') into.objects(fields['objtype'], [fields['object']])
}

function walk(value: unknown, ctes: Ctes, into: Collector): void {
  if (Array.isArray(value)) {
    for (const item of value) walk(item, ctes, into)
    return
  }
  if (!isFields(value)) return
  // A RangeVar stands under its type's name in lists and bare in fields such as `relation`.
  if (typeof value['relname'] === 'string') into.relation(value, ctes)
  const clause = value['withClause']
  const visible = isFields(clause) ? walkCtes(clause, ctes, into) : ctes
  for (const [name, member] of Object.entries(value)) {
    if (name === 'withClause') continue
    if (isFields(member)) noteNode(name, member, into)
    walk(member, visible, into)
  }
}

/** @param statement a statement's node, `{ "SelectStmt": { … } }` */
export function namesIn(statement: unknown): Names {
  const into = collector()
  walk(statement, new Set(), into)
  return into.names()
}
