/** Events other than statements: rare, so they are built as objects and serialised whole. */
import { identityFields } from './identity-block.ts'
import { jsonValue } from './json.ts'
import type { AuditEvent, JobIdentity } from './recorder.ts'

export interface EventStamp {
  time: string
  seq: number
  id: string
  instance: string
  sessionSeq: number | undefined
}

type Fields = Record<string, unknown>

const isPlain = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype

/** Members of both; where both have a plain object of one name these are merged, else `over` wins. */
function merged(under: Fields, over: Fields): Fields {
  const result: Fields = { ...under }
  for (const [name, value] of Object.entries(over)) {
    if (value === undefined) continue
    const below = result[name]
    result[name] = isPlain(below) && isPlain(value) ? merged(below, value) : value
  }
  return result
}

/** Members whose values are too long for any event. A list keeps its first entries. */
function shortened(value: unknown, maxString: number, maxItems: number): unknown {
  if (typeof value === 'string') return value.length > maxString ? `${value.slice(0, maxString)}…` : value
  if (Array.isArray(value)) return value.slice(0, maxItems).map((item) => shortened(item, maxString, maxItems))
  if (!isPlain(value)) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, member]) => [name, shortened(member, maxString, maxItems)]),
  )
}

/**
 * One line, ending with a newline. What makes an event an event (name, time, seq, id, instance, outcome) cannot be overridden
 * by its fields. Beyond `maxBytes` the fields' texts and lists are cut; the identity never is.
 * @throws TypeError for fields with a cycle.
 */
export function eventLine(
  stamp: EventStamp,
  event: AuditEvent,
  identity: JobIdentity | undefined,
  maxBytes: number,
): string {
  const who = identity === undefined ? { pgusher: {}, db: {}, top: {} } : identityFields(identity)
  const common = {
    schema: '1.0',
    seq: stamp.seq,
    id: stamp.id,
    instance: stamp.instance,
    outcome: event.outcome,
  }
  const base = merged({ pgusher: common }, { pgusher: { ...who.pgusher, session_seq: stamp.sessionSeq } })
  const head = { event: event.event, time: stamp.time }
  const known: Fields = { ...head, ...base, ...who.top, db: identity === undefined ? undefined : who.db }
  const line = (fields: Fields): string => {
    const all = merged(known, fields)
    Object.assign(all, head, { pgusher: merged(isPlain(all['pgusher']) ? all['pgusher'] : {}, common) })
    return `${jsonValue(all)}\n`
  }
  const fields = event.fields ?? {}
  const full = line(fields)
  if (Buffer.byteLength(full) <= maxBytes) return full
  return line(shortened(fields, 512, 16) as Fields)
}
