/** What a statement does to the settings that rules about statements rely on. */
import { type Fields, isFields, listOf, nameParts, nodeOf, textOf } from './parse-tree.ts'

/**
 * What a rule must not let happen to it. `read_only`: the session's read-only transactions are switched off. `encoding`,
 * `strings`: what comes next would be read otherwise by PostgreSQL than by us.
 */
export type Guard = 'read_only' | 'encoding' | 'strings'

export interface SettingChange {
  /** In lower case; undefined where the text does not tell. */
  name: string | undefined
  /** Of SET ROLE, where the text tells it. */
  value?: string
  /** It changes who the session is, or what its triggers do. */
  identity: boolean
  guard: Guard | undefined
}

/** They make the session act as somebody else, or past triggers and foreign keys. */
const IDENTITY = new Set(['role', 'session_authorization', 'session_replication_role'])
const READ_ONLY = new Set(['transaction_read_only', 'default_transaction_read_only'])
/** PostgreSQL's words for true as far as they are whole; what is none of these is taken as false. */
const TRUE = new Set(['on', 'true', 'yes', '1', 't', 'y'])

/**
 * Encodings in which each byte of a character of several bytes lies above ASCII, so that quotes and backslashes are where they seem
 * to be: PostgreSQL's names and aliases, without punctuation and in lower case (src/common/encnames.c).
 */
const PLAIN_ENCODING =
  /^(?:utf8|unicode|sqlascii|latin(?:[1-9]|10)|iso8859\d{1,2}|win(?:dows)?(?:866|874|125[0-8])?|koi8[ru]?|alt|abc|tcvn(?:5712)?|vscii|euc(?:jp|kr|cn))$/

/** @param name as PostgreSQL takes it: it looks at letters and digits only, in any case */
export function isPlainEncoding(name: string): boolean {
  return PLAIN_ENCODING.test(name.toLowerCase().replaceAll(/[^a-z0-9]/g, ''))
}

/** @param value undefined where the text does not tell; `reset` for RESET and TO DEFAULT */
function settingChange(name: string, value: string | undefined | { reset: true }): SettingChange {
  const lower = name.toLowerCase()
  const reset = typeof value === 'object'
  const text = typeof value === 'string' ? value : ''
  const change: SettingChange = { name: lower, identity: IDENTITY.has(lower) && !reset, guard: undefined }
  if (lower === 'role' && typeof value === 'string') return { ...change, value }
  if (READ_ONLY.has(lower)) {
    // RESET of the transaction's own is its beginning, whatever that was; of the session's default it is the StartupMessage's value.
    const stays = reset ? lower.startsWith('default_') : TRUE.has(text.toLowerCase())
    return stays ? change : { ...change, guard: 'read_only' }
  }
  if (reset) return change
  if (lower === 'client_encoding' && !isPlainEncoding(text)) return { ...change, guard: 'encoding' }
  if (lower === 'standard_conforming_strings' && !TRUE.has(text.toLowerCase())) return { ...change, guard: 'strings' }
  return change
}

/** A constant as PostgreSQL's GUC reads it. Undefined for anything else. */
function constant(value: unknown): string | undefined {
  const node = nodeOf(value)
  if (node?.type !== 'A_Const') return undefined
  const { sval, ival, boolval } = node.fields
  if (isFields(sval)) return textOf(sval['sval'])
  if (isFields(ival)) return String(ival['ival'] ?? 0)
  if (isFields(boolval)) return boolval['boolval'] === true ? 'on' : 'off'
  return undefined
}

/** SET and RESET in all their forms. */
export function settingsOf(fields: Fields): SettingChange[] {
  const [kind, name, args] = [textOf(fields['kind']), textOf(fields['name']), listOf(fields['args'])]
  if (kind === 'VAR_RESET_ALL' || kind === 'VAR_SET_CURRENT') return []
  if (kind === 'VAR_RESET' || kind === 'VAR_SET_DEFAULT') return [settingChange(name, { reset: true })]
  if (kind === 'VAR_SET_MULTI') return modesOf(args)
  return [settingChange(name, args.length === 1 ? constant(args[0]) : undefined)]
}

/** Modes of BEGIN, SET TRANSACTION and SET SESSION CHARACTERISTICS. */
export function modesOf(options: readonly unknown[]): SettingChange[] {
  return options.flatMap((option) => {
    const { defname, arg } = nodeOf(option)?.fields ?? {}
    return textOf(defname) === 'transaction_read_only' ? [settingChange('transaction_read_only', constant(arg))] : []
  })
}

/**
 * `SELECT set_config(name, 'value', false) FROM pg_settings WHERE name = 'setting'`, exactly: so pg_dump sets what an older server may not
 * know. Undefined for any other SELECT.
 */
export function settingOfRow(select: Fields): SettingChange | undefined {
  const { targetList, fromClause, whereClause, ...rest } = select
  if (Object.keys(rest).some((key) => key !== 'limitOption' && key !== 'op')) return undefined
  const [target, table, where] = [only(targetList), only(fromClause), nodeOf(whereClause)?.fields]
  const call = nodeOf(target?.['val'])
  const [name, ...values] = listOf(call?.fields['args'])
  const schema = textOf(table?.['schemaname'])
  const ofCatalog = schema === '' || schema === 'pg_catalog'
  const fromSettings = ofCatalog && table?.['relname'] === 'pg_settings' && table['alias'] === undefined
  const equal = where?.['kind'] === 'AEXPR_OP' && nameParts(where['name']).join('.') === '='
  if (call?.type !== 'FuncCall' || !fromSettings || !equal || !isName(name) || !isName(where['lexpr'])) return undefined
  const row = constant(where['rexpr'])
  if (row === undefined || values.some((value) => constant(value) === undefined)) return undefined
  return setConfigOf({ ...call.fields, args: [where['rexpr'], ...values] })
}

const only = (list: unknown): Fields | undefined =>
  listOf(list).length === 1 ? nodeOf(listOf(list)[0])?.fields : undefined

/** The column `name`. */
function isName(value: unknown): boolean {
  const node = nodeOf(value)
  return node?.type === 'ColumnRef' && nameParts(node.fields['fields']).join('.') === 'name'
}

/** `set_config(name, value, local)`. Undefined where it is another function. */
export function setConfigOf(fields: Fields): SettingChange | undefined {
  const parts = nameParts(fields['funcname'])
  if (parts.at(-1) !== 'set_config' || (parts.length > 1 && parts[0] !== 'pg_catalog') || parts.length > 2)
    return undefined
  const [name, value] = listOf(fields['args'])
  const known = constant(name)
  return known === undefined
    ? { name: undefined, identity: false, guard: undefined }
    : settingChange(known, constant(value))
}
