/** How a refusal is told: once in the audit, once to the job, under one id by which the operator finds it again. */
import { randomBytes } from 'node:crypto'
import type { AuditEvent } from '../audit/recorder.ts'
import type { AccessError } from '../errors.ts'

/** Crockford's alphabet: no I, L, O or U, so that an id survives being read aloud. */
const ALPHABET = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'

/** `D-` and six characters: 30 bits, enough to tell the refusals of a log apart by id and time. */
export function newDenialId(): string {
  return `D-${Array.from(randomBytes(6), (byte) => ALPHABET[byte & 31]).join('')}`
}

/** Where in the life of a connection it was refused. */
export type Stage = 'accept' | 'handshake' | 'authenticate' | 'verify' | 'decide' | 'mint' | 'upstream'

export function denialEvent(error: AccessError, stage: Stage, id: string | undefined): AuditEvent {
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
        },
      },
      db: { response: { status_code: error.sqlstate } },
    },
  }
}
