/** Functions that an expression calls, in each of the ways in which SQL can say so. */
import { type Fields, identifier, listOf, nameParts, nodeOf, textOf } from './parse-tree.ts'

/**
 * Columns of what these functions of PostgreSQL return. PostgreSQL looks for a column first: `(aclexplode(relacl)).grantee` calls
 * no function of that name.
 */
const COLUMNS: Readonly<Record<string, readonly string[]>> = {
  _pg_expandarray: ['x', 'n'],
  aclexplode: ['grantor', 'grantee', 'privilege_type', 'is_grantable'],
  json_each: ['key', 'value'],
  json_each_text: ['key', 'value'],
  jsonb_each: ['key', 'value'],
  jsonb_each_text: ['key', 'value'],
  pg_get_object_address: ['classid', 'objid', 'objsubid'],
  pg_identify_object: ['type', 'schema', 'name', 'identity'],
  pg_identify_object_as_address: ['type', 'object_names', 'object_args'],
  pg_options_to_table: ['option_name', 'option_value'],
  pg_sequence_parameters: [
    ...['start_value', 'minimum_value', 'maximum_value', 'increment', 'cycle_option', 'cache_size', 'data_type'],
  ],
}
/** Of a column with this name, which pgjdbc gives to what `_pg_expandarray` returns (getPrimaryKeys). */
const EXPANDED = 'keys'

function isColumn(of: unknown, name: string): boolean {
  const node = nodeOf(of)
  if (node === undefined) return false
  const called = node.type === 'FuncCall' ? nameParts(node.fields['funcname']).at(-1) : undefined
  const column = node.type === 'ColumnRef' ? nameParts(node.fields['fields']).at(-1) : undefined
  return (COLUMNS[column === EXPANDED ? '_pg_expandarray' : (called ?? '')] ?? []).includes(name)
}

/** `(x).f`, which is `f(x)` where x has no column f. Whether it has, its text does not tell. */
export interface FieldCall {
  /** What is read from, as SQL: `address`, `c.address`, `$1`; `…` for what is longer. Undefined for a literal, which has no columns. */
  of: string | undefined
  name: string
}

/** Schema, table and column. */
const MAX_PARTS = 3

function nameOf(value: unknown): string {
  const node = nodeOf(value)
  if (node?.type === 'ParamRef') return `$${Number(node.fields['number'])}`
  const parts = node?.type === 'ColumnRef' ? nameParts(node.fields['fields']) : []
  const whole = parts.length === listOf(node?.fields['fields']).length && parts.length <= MAX_PARTS
  return whole && parts.length > 0 ? parts.map(identifier).join('.') : '…'
}

/** `('orders_id_seq').nextval`, `('/etc/passwd').pg_read_file` are calls (tried, 15 and 18); a column of that name comes first. */
export function fieldCalls({ arg, indirection }: Fields): FieldCall[] {
  const literal = nodeOf(arg)?.type === 'A_Const'
  return listOf(indirection).flatMap((item, index) => {
    const node = nodeOf(item)
    const name = node?.type === 'String' ? textOf(node.fields['sval']) : undefined
    if (name === undefined || (index === 0 && isColumn(arg, name))) return []
    return [{ of: index > 0 ? '…' : literal ? undefined : nameOf(arg), name }]
  })
}

/** `OPERATOR(schema.=)` calls a function of that schema. */
function callsOfOperator(name: unknown): string[][] {
  const parts = nameParts(name)
  return parts.length > 1 && parts[0] !== 'pg_catalog' ? [parts] : []
}

/** Qualified names as parts, also of operators of other schemas than pg_catalog. */
export function callsOf(type: string, fields: Fields): string[][] {
  switch (type) {
    case 'FuncCall':
      return [nameParts(fields['funcname'])]
    case 'A_Indirection':
      return fieldCalls(fields).map(({ name }) => [name])
    case 'A_Expr':
      return callsOfOperator(fields['name'])
    // `a OPERATOR(schema.=) ANY (SELECT …)`
    case 'SubLink':
      return callsOfOperator(fields['operName'])
    // `ORDER BY a USING OPERATOR(schema.<)`
    case 'SortBy':
      return callsOfOperator(fields['useOp'])
    default:
      return []
  }
}
