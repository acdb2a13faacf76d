/**
 * A ticket as text: `pgut_` and 44 bytes in base64url, 64 characters in all, since some clients cut a password at 100.
 *
 *     tag 4 | end 4 | random 8 | secret 24 | check 4
 *
 * The tag tells which database it is for, end and random are the id. The check is keyed, so a stranger's guess costs PostgreSQL
 * no query: it falsely holds once in 2^32. What it protects is only that; a ticket is proved by what its secret opens.
 */
import { createHmac, hash, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto'

/** By this alone a ticket and a token are told apart. */
export const TICKET_PREFIX = 'pgut_'

const TAG = 4
const END = 4
const ID = 12
const SECRET = 24
const CHECK = 4
const BYTES = TAG + ID + SECRET + CHECK
export const TICKET_LENGTH = TICKET_PREFIX.length + Math.ceil((BYTES * 8) / 6)

/** Seconds since the epoch that four bytes hold: until 2106. */
const LAST_END = 0xffffffff

export interface TicketParts {
  /** `tagOf` the entry of `databases`. */
  tag: Buffer
  /** Begins with the end in seconds, so that an expired ticket is told from one that nobody knows when all else of it is gone. */
  id: Buffer
  secret: Buffer
}

export function tagOf(alias: string): Buffer {
  return hash('sha256', alias, 'buffer').subarray(0, TAG)
}

/** @param expiresAt milliseconds since the epoch */
export function newTicketParts(alias: string, expiresAt: number): TicketParts {
  const id = randomBytes(ID)
  id.writeUInt32BE(Math.min(LAST_END, Math.ceil(expiresAt / 1000)))
  return { tag: tagOf(alias), id, secret: randomBytes(SECRET) }
}

/** Milliseconds since the epoch, up to a second after the ticket's own end. */
export function endOf({ id }: Pick<TicketParts, 'id'>): number {
  return id.subarray(0, END).readUInt32BE() * 1000
}

export function formatTicket({ tag, id, secret }: TicketParts, key: Buffer): string {
  const bytes = Buffer.concat([tag, id, secret])
  return `${TICKET_PREFIX}${Buffer.concat([bytes, checkOf(bytes, key)]).toString('base64url')}`
}

/** Undefined for what was cut or changed, and for a ticket under another key. */
export function parseTicket(text: string, keys: readonly Buffer[]): TicketParts | undefined {
  if (text.length !== TICKET_LENGTH || !text.startsWith(TICKET_PREFIX)) return undefined
  const encoded = text.slice(TICKET_PREFIX.length)
  const bytes = Buffer.from(encoded, 'base64url')
  // Only the canonical spelling: Node skips what is no base64url.
  if (bytes.length !== BYTES || bytes.toString('base64url') !== encoded) return undefined
  const body = bytes.subarray(0, BYTES - CHECK)
  const check = bytes.subarray(BYTES - CHECK)
  if (!keys.some((key) => timingSafeEqual(checkOf(body, key), check))) return undefined
  return {
    tag: body.subarray(0, TAG),
    id: body.subarray(TAG, TAG + ID),
    secret: body.subarray(TAG + ID),
  }
}

function checkOf(bytes: Buffer, key: Buffer): Buffer {
  const checkKey = Buffer.from(hkdfSync('sha256', key, '', 'pgusher ticket check 1', 32))
  return createHmac('sha256', checkKey).update(bytes).digest().subarray(0, CHECK)
}
