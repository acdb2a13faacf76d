/**
 * What a rule about classes of statements must allow before a statement may run. Beside the class that is its label this counts what
 * stands inside of it: CTEs that write, row locks, calls of functions. What a function, a trigger or a view does, nobody sees here.
 */
import type { AllowedClass } from '../config/schema.ts'
import type { StatementClass } from './classification.ts'
import { dotted, type Fields, identifier, isFields, listOf, nodeOf, textOf } from './parse-tree.ts'
import { callsOf, type FieldCall, fieldCalls } from './sql-calls.ts'
import { classesOfCall, LOCKING, NOTIFYING } from './sql-effects.ts'
import { type Guard, modesOf, type SettingChange, setConfigOf, settingOfRow, settingsOf } from './sql-settings.ts'

export interface Need {
  /** One of these is enough. */
  classes: readonly AllowedClass[]
  /** What needs it: `DELETE`, `function public.refresh`. Names are the job's. */
  what: string
  /** Of SET ROLE: a session that has this role anyway needs nothing for it. */
  role?: string
  /** Of `(of).name`, which needs nothing if it is a column. That is for PostgreSQL's catalog to know. */
  field?: { of: string; name: string }
}

export interface Needs {
  /** All must be met; none for what every session needs. Undefined: nobody can tell. */
  needs: readonly Need[] | undefined
  guards: readonly Guard[]
}

interface Collected {
  /** By its classes: the first that needs them stands for all. */
  needs: Map<string, Need>
  guards: Set<Guard>
}

const ACCESS_SHARE = 1
const CALLS: readonly AllowedClass[] = ['FUNCTION']

const WRITES: Readonly<Record<string, string>> = {
  InsertStmt: 'INSERT',
  UpdateStmt: 'UPDATE',
  DeleteStmt: 'DELETE',
  MergeStmt: 'MERGE',
}
/** Transaction control, cursors and names that this session made, and what only it notices. */
const FREE = new Set([
  'VariableShowStmt',
  'FetchStmt',
  'ClosePortalStmt',
  'DeallocateStmt',
  'DiscardStmt',
  'ListenStmt',
  'UnlistenStmt',
  'ConstraintsSetStmt',
])
const MAINTENANCE: Readonly<Record<string, string>> = {
  VacuumStmt: 'VACUUM or ANALYZE',
  ClusterStmt: 'CLUSTER',
  ReindexStmt: 'REINDEX',
}
/** What stands in them runs at once: a default of a column that is added, USING, a check, the bound of a partition. */
const EVALUATES = new Set(['AlterTableStmt', 'AlterDomainStmt', 'CreateStmt', 'IndexStmt'])
const TWO_PHASE = /^TRANS_STMT_(?:PREPARE|COMMIT_PREPARED|ROLLBACK_PREPARED)$/

function add(into: Collected, what: string, ...classes: readonly AllowedClass[]): void {
  addNeed(into, { classes, what })
}

function addNeed(into: Collected, need: Need): void {
  const key = need.classes.join()
  const known = into.needs.get(key)
  // What may be a column can be written otherwise, which does not help who needs the class for something else as well.
  if (known === undefined || (known.field !== undefined && need.field === undefined)) into.needs.set(key, need)
}

function addField(into: Collected, { of, name }: FieldCall): void {
  const classes = classesOfCall([name])
  if (classes.includes('READ')) return
  const column = identifier(name)
  if (of === undefined) add(into, `function ${dotted([name])}`, ...classes)
  else addNeed(into, { classes, what: `(${of}).${column} as a call of ${column}(${of})`, field: { of, name } })
}

function addSetting(into: Collected, { name, value, identity, guard }: SettingChange): void {
  const what = `SET ${name}`
  if (name === 'role' && value !== undefined) {
    into.needs.set(`${what} ${value}`, { classes: ['MISC_SET'], what, role: value })
  } else if (identity) add(into, what, 'MISC_SET')
  if (name === undefined) add(into, 'set_config of a setting that the text does not name', 'FUNCTION')
  if (guard !== undefined) into.guards.add(guard)
}

function addCalls(into: Collected, type: string, fields: Fields): void {
  const setting = type === 'FuncCall' ? setConfigOf(fields) : undefined
  if (setting !== undefined) {
    addSetting(into, setting)
    return
  }
  if (type === 'A_Indirection') {
    for (const call of fieldCalls(fields)) addField(into, call)
    return
  }
  for (const parts of callsOf(type, fields)) {
    const operator = /^\W+$/.test(parts.at(-1) ?? '')
    const classes = operator ? CALLS : classesOfCall(parts)
    // A function that reads, in an INSERT's values, takes nothing that the INSERT does not.
    if (!classes.includes('READ')) add(into, `${operator ? 'operator' : 'function'} ${dotted(parts)}`, ...classes)
  }
}

/** What stands anywhere inside. */
function addInside(into: Collected, value: unknown): void {
  if (Array.isArray(value)) {
    for (const item of value) addInside(into, item)
    return
  }
  if (!isFields(value)) return
  if (value['lockingClause'] !== undefined) add(into, 'SELECT with FOR UPDATE or FOR SHARE', 'WRITE')
  if (value['intoClause'] !== undefined) add(into, 'SELECT INTO', 'DDL')
  for (const [name, member] of Object.entries(value)) {
    if (isFields(member)) addNode(into, name, member)
    addInside(into, member)
  }
}

function addNode(into: Collected, type: string, fields: Fields): void {
  const writes = WRITES[type]
  if (writes !== undefined) add(into, writes, 'WRITE')
  addCalls(into, type, fields)
  // An UPDATE of this view is set_config (its rule says so).
  const target = fields['relation']
  if (type === 'UpdateStmt' && isFields(target) && target['relname'] === 'pg_settings')
    add(into, 'UPDATE of pg_settings', 'FUNCTION')
}

/** @returns false where nobody can tell */
function addStatement(into: Collected, type: string, fields: Fields, label: StatementClass, summary: string): boolean {
  switch (type) {
    case 'PrepareStmt':
    case 'DeclareCursorStmt':
    case 'ExplainStmt': {
      const inner = nodeOf(fields['query'])
      if (inner === undefined) return false
      // Without ANALYZE it runs what planning runs: functions that are declared immutable or stable.
      if (type !== 'ExplainStmt' || label !== 'MISC')
        return addStatement(into, inner.type, inner.fields, label, summary)
      addCallsOf(into, inner.fields)
      return true
    }
    case 'CopyStmt':
      return addCopy(into, fields, label, summary)
    case 'SelectStmt':
    case 'ExecuteStmt':
      if (type === 'SelectStmt') addSelect(into, fields)
      else addInside(into, fields)
      return true
    case 'CreateTableAsStmt':
      add(into, summary, 'DDL')
      addInside(into, fields['query'])
      return true
    case 'TransactionStmt':
      if (TWO_PHASE.test(textOf(fields['kind']))) add(into, summary, 'WRITE')
      for (const change of modesOf(listOf(fields['options']))) addSetting(into, change)
      return true
    case 'VariableSetStmt':
      for (const change of settingsOf(fields)) addSetting(into, change)
      return true
    default:
      return addSimple(into, type, fields, label, summary)
  }
}

function addSelect(into: Collected, fields: Fields): void {
  add(into, 'SELECT', 'READ')
  const setting = settingOfRow(fields)
  if (setting === undefined) addInside(into, fields)
  else addSetting(into, setting)
}

function addSimple(into: Collected, type: string, fields: Fields, label: StatementClass, summary: string): boolean {
  if (FREE.has(type)) return true
  const maintenance = MAINTENANCE[type]
  if (WRITES[type] !== undefined) addNested(into, type, fields)
  else if (type === 'NotifyStmt') add(into, 'NOTIFY', ...NOTIFYING)
  else if (type === 'LockStmt' && fields['mode'] === ACCESS_SHARE) add(into, 'LOCK in ACCESS SHARE mode', 'READ')
  else if (type === 'LockStmt') add(into, 'LOCK', ...LOCKING)
  else if (maintenance !== undefined) add(into, maintenance, 'MISC', 'DDL')
  else if (label === 'unknown' || label === 'READ') return false
  else add(into, summary, label)
  if (EVALUATES.has(type)) addSettingsInside(into, fields)
  // CREATE SCHEMA … GRANT …: statements of their own in all but the semicolon.
  if (listOf(fields['schemaElts']).some((element) => nodeOf(element)?.type === 'GrantStmt')) add(into, 'GRANT', 'ROLE')
  return true
}

/** Calls of set_config alone: what else a change of the schema calls, a function that it makes could call as well. */
function addSettingsInside(into: Collected, value: unknown): void {
  if (Array.isArray(value)) {
    for (const item of value) addSettingsInside(into, item)
    return
  }
  if (!isFields(value)) return
  const call = value['FuncCall']
  const setting = isFields(call) ? setConfigOf(call) : undefined
  if (setting !== undefined) addSetting(into, setting)
  for (const member of Object.values(value)) addSettingsInside(into, member)
}

function addNested(into: Collected, type: string, fields: Fields): void {
  addNode(into, type, fields)
  addInside(into, fields)
}

/** Calls alone: a query that is planned and not run. */
function addCallsOf(into: Collected, fields: Fields): void {
  const inside: Collected = { needs: new Map(), guards: new Set() }
  addInside(inside, fields)
  const call = inside.needs.get('FUNCTION')
  if (call !== undefined) into.needs.set('FUNCTION', call)
}

function addCopy(into: Collected, fields: Fields, label: StatementClass, summary: string): boolean {
  const query = nodeOf(fields['query'])
  const [from, program, file] = [fields['is_from'] === true, fields['is_program'] === true, textOf(fields['filename'])]
  if (program) add(into, `COPY ${from ? 'FROM' : 'TO'} PROGRAM`, 'FUNCTION')
  else if (file !== '') add(into, `COPY ${from ? 'FROM' : 'TO'} a file of the server`, 'FUNCTION')
  if (from) add(into, 'COPY FROM', 'WRITE')
  addInside(into, fields['whereClause'])
  if (query !== undefined) return addStatement(into, query.type, query.fields, label, summary)
  if (!from) add(into, 'COPY TO', 'READ')
  return true
}

/**
 * @param statement a statement's node, `{ "SelectStmt": { … } }`
 * @param label the class under which it is recorded. @param summary what it is called in words
 */
export function needsOf(statement: unknown, label: StatementClass, summary: string): Needs {
  const node = nodeOf(statement)
  const into: Collected = { needs: new Map(), guards: new Set() }
  const told = node !== undefined && addStatement(into, node.type, node.fields, label, summary)
  return { needs: told ? [...into.needs.values()] : undefined, guards: [...into.guards] }
}
