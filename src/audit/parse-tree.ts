/** Walking libpg-query's JSON parse trees. A node is an object with one member named after its type: `{ "SelectStmt": { … } }`. */

export type Fields = Readonly<Record<string, unknown>>

export const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** The type and the fields of a node; undefined for what is none. */
export function nodeOf(value: unknown): { type: string; fields: Fields } | undefined {
  if (!isFields(value)) return undefined
  for (const [type, fields] of Object.entries(value)) {
    return isFields(fields) && /^[A-Z]/.test(type) ? { type, fields } : undefined
  }
  return undefined
}

export const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [])

export const textOf = (value: unknown): string => (typeof value === 'string' ? value : '')

/** The strings of a list of String nodes: a qualified name. */
export const nameParts = (value: unknown): string[] =>
  listOf(value).flatMap((item) => {
    const node = nodeOf(item)
    return node?.type === 'String' ? [textOf(node.fields['sval'])] : []
  })

/** As a person would write it: a part is quoted only where a dot or a quote inside would mislead. */
export const dotted = (parts: readonly string[]): string =>
  parts.map((part) => (/[."]/.test(part) ? `"${part.replaceAll('"', '""')}"` : part)).join('.')

/** As SQL has it, but for a reserved word, which would need quotes. */
export const identifier = (name: string): string =>
  /^[a-z_][a-z0-9_$]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`
