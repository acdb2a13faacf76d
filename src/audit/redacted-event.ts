/** Events other than `statement` may carry a statement's text as well (`statement.denied`): the same rules hold for it. */
import type { TextMode } from '../config/schema.ts'
import { type Fields, isFields } from './parse-tree.ts'
import type { AuditEvent } from './recorder.ts'
import { redactSecrets } from './sql-redact.ts'
import { normalizedText } from './sql-tokens.ts'

/** Bounds the work on the main thread; the event's own limit cuts further. */
const MAX_TEXT = 16 * 1024

function shown(text: string, mode: TextMode): string | undefined {
  if (mode === 'fingerprint' || mode === 'none') return undefined
  const { text: clean, ambiguous } = redactSecrets(text.slice(0, MAX_TEXT))
  if (ambiguous) return undefined
  return mode === 'normalized' ? normalizedText(clean) : clean
}

/** The event with its `db.query.text` as the mode allows. */
export function redactedEvent(event: AuditEvent, mode: TextMode): AuditEvent {
  const db = event.fields?.['db']
  const query: Fields | undefined = isFields(db) && isFields(db['query']) ? db['query'] : undefined
  const text = query?.['text']
  if (!isFields(db) || query === undefined || typeof text !== 'string') return event
  return { ...event, fields: { ...event.fields, db: { ...db, query: { ...query, text: shown(text, mode) } } } }
}
