/** What a ticket stands for, sealed so that it opens to who has the ticket and a configured key, and to nobody with one of the two. */
import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from 'node:crypto'
import { z } from 'zod'
import { PRESET_NAMES } from '../config/schema.ts'
import type { JobFields, Principal } from '../identity/principal.ts'
import { runPage, withoutAttempt } from '../identity/run-page.ts'
import type { TicketParts } from './ticket-text.ts'

/** What a ticket stands for. */
export interface TicketContent {
  /** The ticket's public part in hex: in events, logs and the name of its role, and worth nothing without the rest. */
  id: string
  principal: Principal
  rule: string
  /** Entry of `databases`. */
  database: string
  role: string
  /** The only address that may use it; undefined where any may. */
  address: string | undefined
  /** Milliseconds since the epoch. */
  issuedAt: number
  expiresAt: number
}

type Key = Pick<TicketParts, 'id' | 'secret'>

const CIPHER = 'aes-256-gcm'
const IV = 12
const TAG = 16
/** Bytes of the hashes by which tickets are found. */
const TAG_OF_WHOSE = 16

const claimValue = z.union([z.string(), z.array(z.string())])
/** As pairs: an issuer may call a claim `__proto__`, which objects that are parsed lose. */
const claimPairs = z.array(z.tuple([z.string(), claimValue]))

const sealedContent = z.object({
  /** Version of this format. */
  v: z.literal(1),
  principal: z.object({
    issuerName: z.string(),
    provider: z.enum(PRESET_NAMES),
    iss: z.string(),
    subject: z.string(),
    claims: claimPairs,
    auditClaims: claimPairs,
    job: z.record(z.string(), z.string()),
    jobKey: z.string(),
    tokenSha256: z.string(),
    expiresAt: z.number(),
    issuedAt: z.number(),
    tenancyMatches: z.boolean(),
  }),
  rule: z.string(),
  database: z.string(),
  role: z.string(),
  address: z.string().optional(),
  issuedAt: z.number(),
  expiresAt: z.number(),
})

/** @returns base64, for a place that others can read and perhaps write */
export function sealTicket(content: Omit<TicketContent, 'id'>, parts: Key, key: Buffer): string {
  const { principal, rule, database, role, address, issuedAt, expiresAt } = content
  const asPairs = { ...principal, claims: [...principal.claims], auditClaims: Object.entries(principal.auditClaims) }
  const ticket = { v: 1, rule, database, role, address, issuedAt, expiresAt }
  const iv = randomBytes(IV)
  const cipher = createCipheriv(CIPHER, sealKey(parts, key), iv).setAAD(parts.id)
  const sealed = cipher.update(JSON.stringify({ ...ticket, principal: asPairs }), 'utf8')
  return Buffer.concat([iv, sealed, cipher.final(), cipher.getAuthTag()]).toString('base64')
}

/** Undefined for what was sealed for another ticket or with another key, and for what was changed. */
export function openTicket(sealed: string, parts: Key, keys: readonly Buffer[]): TicketContent | undefined {
  const bytes = Buffer.from(sealed, 'base64')
  if (bytes.length <= IV + TAG) return undefined
  for (const key of keys) {
    const text = decrypted(bytes, parts, key)
    if (text !== undefined) return contentOf(text, parts.id.toString('hex'))
  }
  return undefined
}

function decrypted(bytes: Buffer, parts: Key, key: Buffer): string | undefined {
  const decipher = createDecipheriv(CIPHER, sealKey(parts, key), bytes.subarray(0, IV), { authTagLength: TAG })
  decipher.setAAD(parts.id).setAuthTag(bytes.subarray(-TAG))
  try {
    return Buffer.concat([decipher.update(bytes.subarray(IV, -TAG)), decipher.final()]).toString('utf8')
  } catch {
    return undefined
  }
}

/** @throws ZodError for what a pgusher of another format sealed under our key */
function contentOf(text: string, id: string): TicketContent {
  const { principal, rule, database, role, address, issuedAt, expiresAt } = sealedContent.parse(JSON.parse(text))
  // Member by member, so that a field which Principal gets is not forgotten here.
  const { issuerName, provider, iss, subject, jobKey, tokenSha256, tenancyMatches } = principal
  const whole: Principal = {
    ...{ issuerName, provider, iss, subject, jobKey, tokenSha256, tenancyMatches },
    claims: new Map(principal.claims),
    auditClaims: Object.fromEntries(principal.auditClaims),
    job: principal.job as JobFields,
    expiresAt: principal.expiresAt,
    issuedAt: principal.issuedAt,
  }
  return { id, principal: whole, rule, database, role, address, issuedAt, expiresAt }
}

function sealKey({ secret }: Key, key: Buffer): Buffer {
  return Buffer.from(hkdfSync('sha256', key, secret, 'pgusher ticket seal 1', 32))
}

/** By this the tickets of a job are found. Keyed, since what is in a job's key can be guessed and its reader may be anybody. */
export function jobTag(jobKey: string, key: Buffer): string {
  return tag('pgusher ticket job 1', jobKey, key)
}

/** By these the tickets of a run are found, whose operator knows its URL: as this attempt of the run, and as any. */
export function runTags({ runUrl }: JobFields, key: Buffer): string[] {
  if (runUrl === undefined) return []
  return [...new Set([runPage(runUrl), withoutAttempt(runUrl)])].map((page) => runTag(page, key))
}

/** @param url in any of the ways in which people copy it */
export function runTag(url: string, key: Buffer): string {
  return tag('pgusher ticket run 1', runPage(url), key)
}

function tag(purpose: string, text: string, key: Buffer): string {
  const tagKey = Buffer.from(hkdfSync('sha256', key, '', purpose, 32))
  return createHmac('sha256', tagKey).update(text).digest().subarray(0, TAG_OF_WHOSE).toString('hex')
}
