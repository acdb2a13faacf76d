/** How a refusal is told: once in the audit, once to the job, under one id by which the operator finds it again. */
import { randomBytes } from 'node:crypto'
import type { AuditEvent } from '../audit/recorder.ts'
import type { AccessError } from '../errors.ts'
import type { Timing } from './stopwatch.ts'

/** Crockford's alphabet: no I, L, O or U, so that an id survives being read aloud. */
const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'

/** `D-` and six characters: 30 bits, enough to tell the refusals of a log apart by id and time. */
export function newDenialId(): string {
  return `D-${Array.from(randomBytes(6), (byte) => ALPHABET[byte & 31]).join('')}`
}

/**
 * An id as a person types it: in any case, with or without `D-` and the brackets around it, with blanks, and with the letters
 * that the alphabet leaves out read as those that they look like.
 * @returns undefined for what is no id
 */
export function parseDenialId(typed: string): string | undefined {
  const text = typed.toUpperCase().replace(/[\s[\].,]/g, '')
  const behindPrefix = /^D[-\u2010-\u2014](.*)$/s.exec(text)?.[1] ?? (text.length === 7 ? text.replace(/^D/, '') : text)
  const id = behindPrefix
    .replace(/[-\u2010-\u2014]/g, '')
    .replaceAll(/[IL]/g, '1')
    .replaceAll('O', '0')
    .replaceAll('U', 'V')
  return /^[0-9A-HJKMNP-TV-Z]{6}$/.test(id) ? `D-${id}` : undefined
}

/** Where in the life of a connection it was refused. */
export type Stage =
  | 'accept'
  | 'handshake'
  | 'authenticate'
  | 'verify'
  | 'exchange'
  | 'whoami'
  | 'decide'
  | 'mint'
  | 'upstream'

/** Bytes of a policy denial's trace where the event may be larger than that. */
const MAX_TRACE_BYTES = 32 * 1024

/** @param maxEvent bytes that an event may have (`audit.max_event`); half of them are for the trace of a policy denial */
export function denialEvent(
  error: AccessError,
  stage: Stage,
  id: string | undefined,
  maxEvent: number,
  timing?: Timing,
): AuditEvent {
  return {
    event: 'session.denied',
    outcome: 'denied',
    fields: {
      pgusher: {
        decision: {
          stage,
          code: error.code,
          id,
          message: error.message,
          nearest: error.nearest.length > 0 ? error.nearest : undefined,
          trace: error.evidence?.(Math.min(MAX_TRACE_BYTES, maxEvent / 2)),
        },
        timing,
      },
      db: { response: { status_code: error.sqlstate } },
    },
  }
}
