import type { TextMode } from '../config/schema.ts'
import type { AuditEvent } from './recorder.ts'

export function redactedEvent(event: AuditEvent, _mode: TextMode): AuditEvent {
  return event
}
