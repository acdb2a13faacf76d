/** The configuration's JSON Schema, and what can be looked up in it for messages. */
import { z } from 'zod'
import { configSchema } from './schema.ts'
import type { Path } from './yaml-source.ts'

/** As much of JSON Schema as `z.toJSONSchema` writes for our file. */
export interface JsonSchema {
  [keyword: string]: unknown
  properties?: Record<string, JsonSchema>
  additionalProperties?: boolean | JsonSchema
  items?: JsonSchema
  anyOf?: JsonSchema[]
  oneOf?: JsonSchema[]
}

/** JSON Schema (draft 2020-12) of what a person writes, before defaults and transformations. */
export function configJsonSchema(): JsonSchema {
  const { $schema, ...rest }: JsonSchema = JSON.parse(
    JSON.stringify(z.toJSONSchema(configSchema, { io: 'input', target: 'draft-2020-12' })),
  )
  return {
    $schema,
    title: 'pgusher configuration',
    description: 'Listener, issuers, databases and rules of pgusher, an identity-aware access proxy for PostgreSQL.',
    ...rest,
  }
}

let cached: JsonSchema | undefined

/** The keys that may stand in the mapping at `path`; of all alternatives where there are several. */
export function knownKeys(path: Path): string[] {
  cached ??= configJsonSchema()
  let schemas = [cached]
  for (const step of path) schemas = schemas.flatMap(alternatives).flatMap((schema) => descend(schema, step))
  return [...new Set(schemas.flatMap(alternatives).flatMap((schema) => Object.keys(schema.properties ?? {})))]
}

function alternatives(schema: JsonSchema): JsonSchema[] {
  const inner = [...(schema.anyOf ?? []), ...(schema.oneOf ?? [])]
  return inner.length === 0 ? [schema] : inner.flatMap(alternatives)
}

function descend(schema: JsonSchema, step: string | number): JsonSchema[] {
  if (typeof step === 'number') return schema.items === undefined ? [] : [schema.items]
  const property = Object.hasOwn(schema.properties ?? {}, step) ? schema.properties?.[step] : undefined
  if (property !== undefined) return [property]
  return typeof schema.additionalProperties === 'object' ? [schema.additionalProperties] : []
}
