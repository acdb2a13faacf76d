/**
 * TLS session tickets that every worker accepts (RFC 5077, RFC 8446 section 4.6.1): one key for all, a new one each period, and the
 * one before it is good for a period more. A ticket resumes encryption; who the job is has to be shown again all the same.
 */
import { randomBytes } from 'node:crypto'
import type { SecureContext } from 'node:tls'

/** 48 bytes each: name, HMAC key and AES key, 16 each, as `ticketKeys` of node:tls. */
export interface TicketKeys {
  current: Uint8Array
  previous: Uint8Array | undefined
}

/** Milliseconds. OpenSSL's tickets live for two hours at most; who holds a key that is over could read what was recorded with it. */
export const TICKET_KEY_PERIOD = 2 * 3_600_000

const NAME = 16
const KEY_BYTES = 48

/** Node has the callback since 2014, without a word of documentation; its own tests use it (test-https-resume-after-renew). */
interface TicketContext {
  setTicketKeys(keys: Uint8Array): void
  enableTicketKeyCallback?(): void
  onticketkeycallback?: (name: Buffer, iv: Buffer, encrypt: boolean) => unknown[]
}

/** OpenSSL's answers: the key is not known, it is, it is and the client gets a new ticket. */
const ANSWER = { unknown: 0, known: 1, renew: 2 } as const

export function newTicketKeys(before?: TicketKeys): TicketKeys {
  return { current: randomBytes(KEY_BYTES), previous: before?.current }
}

/** @param keys those of now, asked for with each ticket */
export function shareTickets(secureContext: SecureContext, keys: () => TicketKeys): void {
  const context = secureContext.context as TicketContext
  // Without the callback the previous key is not known, and a job whose ticket is of that makes a full handshake.
  context.setTicketKeys(keys().current)
  if (typeof context.enableTicketKeyCallback !== 'function') return
  context.onticketkeycallback = (name, _iv, encrypt) => (encrypt ? seal(keys().current) : open(keys(), name))
  context.enableTicketKeyCallback()
}

function seal(key: Uint8Array): unknown[] {
  return [ANSWER.known, ...secretsOf(key), Buffer.from(key.subarray(0, NAME)), randomBytes(16)]
}

function open({ current, previous }: TicketKeys, name: Buffer): unknown[] {
  const isNamed = (key: Uint8Array): boolean => name.equals(key.subarray(0, NAME))
  if (isNamed(current)) return [ANSWER.known, ...secretsOf(current)]
  if (previous !== undefined && isNamed(previous)) return [ANSWER.renew, ...secretsOf(previous)]
  // Node 24 reads both keys before it looks at the answer, and an absent one ends the process: anybody can send such a ticket.
  return [ANSWER.unknown, ...secretsOf(current)]
}

const secretsOf = (key: Uint8Array): [Buffer, Buffer] => [
  Buffer.from(key.subarray(NAME, 2 * NAME)),
  Buffer.from(key.subarray(2 * NAME)),
]
