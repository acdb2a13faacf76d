/** pgaudit's class of a statement, from PostgreSQL's own parse tree. What it can do counts, not what it says first. */
import type { StatementClass } from './classification.ts'
import { KNOWN_FUNCTIONS } from './known-functions.ts'
import { type Fields, isFields, listOf, nameParts, nodeOf, textOf } from './parse-tree.ts'
import { type Needs, needsOf } from './sql-needs.ts'
import { type Names, namesIn } from './sql-tables.ts'

/** As pgaudit and PostgreSQL's GetCommandLogLevel sort them; what is not here changes the schema: DDL. */
const CLASS_OF: Readonly<Record<string, StatementClass>> = {
  SelectStmt: 'READ',
  DeclareCursorStmt: 'READ',
  InsertStmt: 'WRITE',
  UpdateStmt: 'WRITE',
  DeleteStmt: 'WRITE',
  MergeStmt: 'WRITE',
  TruncateStmt: 'WRITE',
  DoStmt: 'FUNCTION',
  CallStmt: 'FUNCTION',
  LoadStmt: 'FUNCTION',
  GrantStmt: 'ROLE',
  GrantRoleStmt: 'ROLE',
  CreateRoleStmt: 'ROLE',
  AlterRoleStmt: 'ROLE',
  AlterRoleSetStmt: 'ROLE',
  DropRoleStmt: 'ROLE',
  AlterDefaultPrivilegesStmt: 'ROLE',
  ReassignOwnedStmt: 'ROLE',
  VariableSetStmt: 'MISC_SET',
  VariableShowStmt: 'MISC',
  TransactionStmt: 'MISC',
  FetchStmt: 'MISC',
  ClosePortalStmt: 'MISC',
  DeallocateStmt: 'MISC',
  DiscardStmt: 'MISC',
  ListenStmt: 'MISC',
  UnlistenStmt: 'MISC',
  NotifyStmt: 'MISC',
  LockStmt: 'MISC',
  ConstraintsSetStmt: 'MISC',
  CheckPointStmt: 'MISC',
  VacuumStmt: 'MISC',
  ClusterStmt: 'MISC',
  ReindexStmt: 'MISC',
  // Runs what was prepared under a name, which this text does not say.
  ExecuteStmt: 'unknown',
}

const WRITES = new Set(['InsertStmt', 'UpdateStmt', 'DeleteStmt', 'MergeStmt'])
const HIDES_TABLES = new Set([
  // They run code, or a text, that names tables of its own.
  ...['DoStmt', 'CallStmt', 'ExecuteStmt', 'LoadStmt', 'FetchStmt', 'ImportForeignSchemaStmt'],
  ...['CreateExtensionStmt', 'AlterExtensionStmt'],
  // They mean all that belongs to a role, or lies in a database or tablespace.
  ...['DropOwnedStmt', 'ReassignOwnedStmt', 'DropdbStmt', 'AlterTableMoveAllStmt'],
])

/** Reads and changes nothing as far as its name tells. */
function harmless(parts: readonly string[]): boolean {
  const [first = '', second] = parts
  if (second === undefined) return KNOWN_FUNCTIONS.has(first)
  return first === 'pg_catalog' && parts.length === 2 && KNOWN_FUNCTIONS.has(second)
}

/** EXPLAIN runs its statement with ANALYZE only; of several the last counts, and any that is on is taken as on. */
function analyzes(explain: Fields): boolean {
  return listOf(explain['options']).some((option) => {
    const node = nodeOf(option)
    if (node?.fields['defname'] !== 'analyze') return false
    const argument = nodeOf(node.fields['arg'])
    const value = textOf(argument?.fields['sval'] ?? argument?.fields['boolval'])
    return argument === undefined || !(/^(?:off|false|no|f|n)$/i.test(value) || isZero(argument.fields))
  })
}

/** libpg-query leaves members out that are zero. */
const isZero = (fields: Fields): boolean => fields['ival'] === 0 || Object.keys(fields).length === 0

/** SELECT INTO. Of a UNION the leftmost has it. */
function makesTable(select: Fields): boolean {
  for (let one: unknown = select; isFields(one); one = one['larg']) if (one['intoClause'] !== undefined) return true
  return false
}

function classOfNode(type: string, fields: Fields, names: Names): StatementClass {
  if (type === 'ExplainStmt' || type === 'PrepareStmt' || type === 'DeclareCursorStmt') {
    if (type === 'ExplainStmt' && !analyzes(fields)) return 'MISC'
    const inner = nodeOf(fields['query'])
    return inner === undefined ? 'unknown' : classOfNode(inner.type, inner.fields, names)
  }
  if (type === 'CopyStmt') {
    if (fields['is_program'] === true) return 'FUNCTION'
    if (fields['is_from'] === true) return 'WRITE'
    const query = nodeOf(fields['query'])
    return query === undefined ? 'READ' : classOfNode(query.type, query.fields, names)
  }
  if (type === 'SelectStmt' && makesTable(fields)) return 'DDL'
  if (type === 'RenameStmt' && fields['renameType'] === 'OBJECT_ROLE') return 'ROLE'
  const own = CLASS_OF[type] ?? 'DDL'
  if (own !== 'READ') return own
  if (names.statements.some((statement) => WRITES.has(statement))) return 'WRITE'
  return names.functions.every(harmless) ? 'READ' : 'FUNCTION'
}

const OPERATION: Readonly<Record<string, string>> = {
  CreateStmt: 'CREATE TABLE',
  CreateTableAsStmt: 'CREATE TABLE AS',
  IndexStmt: 'CREATE INDEX',
  ViewStmt: 'CREATE VIEW',
  CreatedbStmt: 'CREATE DATABASE',
  DropdbStmt: 'DROP DATABASE',
  VariableSetStmt: 'SET',
  VariableShowStmt: 'SHOW',
  RenameStmt: 'ALTER RENAME',
  DefineStmt: 'CREATE',
  ClosePortalStmt: 'CLOSE',
  ConstraintsSetStmt: 'SET CONSTRAINTS',
  CompositeTypeStmt: 'CREATE TYPE',
  CheckPointStmt: 'CHECKPOINT',
}

/** `SELECT`, `CREATE INDEX`, `DROP TABLE`, `COMMIT`: from the node's type where the table above has nothing better. */
function operationOf(type: string, fields: Fields): string {
  const words = (name: string): string => name.replaceAll(/([a-z])([A-Z])/g, '$1 $2').toUpperCase()
  if (type === 'TransactionStmt') return textOf(fields['kind']).replace('TRANS_STMT_', '').replaceAll('_', ' ')
  if (type === 'DropStmt') return `DROP ${textOf(fields['removeType']).replace('OBJECT_', '').replaceAll('_', ' ')}`
  if (type === 'GrantStmt' || type === 'GrantRoleStmt') return fields['is_grant'] === true ? 'GRANT' : 'REVOKE'
  if (type === 'VariableSetStmt' && textOf(fields['kind']).startsWith('VAR_RESET')) return 'RESET'
  return OPERATION[type] ?? words(type.replace(/Stmt$/, ''))
}

/** OpenTelemetry: `db.query.summary` has at most 255 characters, and few values. */
const MAX_SUMMARY = 255
const MAX_TARGETS = 3

function summaryOf(type: string, fields: Fields, names: Names): string {
  const inner = type === 'ExplainStmt' || type === 'PrepareStmt' ? nodeOf(fields['query']) : undefined
  const operation = operationOf(type, fields)
  const operations = inner === undefined ? [operation] : [operation, operationOf(inner.type, inner.fields)]
  const called =
    type === 'CallStmt' ? nameParts((fields['funccall'] as Fields | undefined)?.['funcname']).join('.') : ''
  const setting = type === 'VariableSetStmt' || type === 'VariableShowStmt' ? textOf(fields['name']) : ''
  const targets = [...names.tables.slice(0, MAX_TARGETS), called, setting]
  return [...operations, ...targets]
    .filter((word) => word !== '')
    .join(' ')
    .slice(0, MAX_SUMMARY)
}

/** Options and settings that hold a secret as a literal, found by the tree: what the redaction must have replaced. */
function holdsSecret(type: string, fields: Fields): boolean {
  if (type === 'CreateSubscriptionStmt' || type === 'AlterSubscriptionStmt') return textOf(fields['conninfo']) !== ''
  if (type === 'CopyStmt') return fields['is_program'] === true
  if (!/^(?:Create|Alter)(?:Role|UserMapping)Stmt$/.test(type)) return false
  return listOf(fields['options']).some((option) => {
    const node = nodeOf(option)
    return node?.fields['defname'] === 'password' && node.fields['arg'] !== undefined
  })
}

export interface NodeFacts extends Needs {
  class: StatementClass
  tables: string[]
  tablesComplete: boolean
  summary: string
  /** The tree shows a password or a connection string. */
  secret: boolean
}

const NO_FACTS: NodeFacts = {
  ...{ class: 'unknown', tables: [], tablesComplete: false, summary: '', secret: false },
  ...{ needs: undefined, guards: [] },
}

/** @param statement a statement's node, `{ "SelectStmt": { … } }` */
export function factsOf(statement: unknown): NodeFacts {
  const node = nodeOf(statement)
  if (node === undefined) return NO_FACTS
  const { type, fields } = node
  const names = namesIn(statement)
  const hidden =
    names.unqualified ||
    names.unnamed ||
    !names.functions.every(harmless) ||
    names.statements.some((s) => HIDES_TABLES.has(s))
  const [label, summary] = [classOfNode(type, fields, names), summaryOf(type, fields, names)]
  return {
    ...{ class: label, tables: names.tables, tablesComplete: !hidden, summary, secret: holdsSecret(type, fields) },
    ...needsOf(statement, label, summary),
  }
}
