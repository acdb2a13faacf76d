/** The part of a statement's record that depends on its text only: made once a text, kept, and copied into each record. */
import { hash } from 'node:crypto'
import type { TextMode } from '../config/schema.ts'
import { type Classification, combine, type StatementFacts, UNKNOWN_FACTS } from './classification.ts'
import { type GenerationCache, generationCache } from './generation-cache.ts'
import { jsonString, jsonStringWithin } from './json.ts'
import { recentTexts } from './recent-texts.ts'
import type { StatementRecord } from './recorder.ts'

const CACHE_BYTES = 16 * 1024 * 1024
/** Two views of memory outside of V8's heap, and the object that holds them. */
const PART_OVERHEAD_BYTES = 400
/** An event names at most so many tables; `tables_complete` is false when there were more. */
const MAX_TABLES = 64

export interface TextPart {
  /** Members of `pgusher` as UTF-8, beginning with a comma. */
  pgusher: Buffer
  /** Members of `db` as UTF-8, beginning with a comma; empty where no text was seen. */
  db: Buffer
  /** Of both. */
  bytes: number
  secret: boolean
}

/** The text that a record is about, and what is known of it. */
interface Subject {
  text: string | undefined
  normalized: string | undefined
  facts: StatementFacts
  sha256: string | undefined
  bytes: number | undefined
}

const sha256 = (text: string | Buffer): string => hash('sha256', text, 'hex')

/**
 * In a multi-statement Query each record has its own statement's text, hash and length. The statement that failed (or was under
 * way when the connection broke) carries all that follows it as well: nothing after it has a record of its own.
 */
function subjectOf(record: StatementRecord, text: string, known: Classification): Subject {
  const { statements } = known
  const at = record.batchIndex
  const statement = statements[at]
  const alone = statements.length <= 1 && at === 0
  if (alone || statement === undefined || record.truncated) {
    // A batch that could not be cut into its statements: its text stands in the first record only.
    const repeated = record.inBatch && record.batchIndex > 0
    return {
      text: repeated ? undefined : known.text,
      normalized: repeated ? undefined : known.normalized,
      facts:
        known.parsed && (alone || !record.inBatch) ? combine(statements) : { ...UNKNOWN_FACTS, secret: known.secret },
      sha256: record.textSha256 ?? sha256(text),
      bytes: record.textBytes,
    }
  }
  const rest = record.outcome === 'success' ? [statement] : statements.slice(at)
  const last = rest[rest.length - 1] ?? statement
  // The raw slice is at hand where nothing was taken out of it; cutting it out of a long text again for each statement adds up.
  const untouched = rest.length === 1 && !statement.secret ? statement.text : undefined
  const raw = untouched ?? Buffer.from(text).subarray(statement.start, last.start + last.length)
  const join = (parts: (string | undefined)[]): string | undefined =>
    parts.every((part) => part !== undefined) ? parts.join(';\n') : undefined
  return {
    text: rest.length === 1 ? statement.text : join(rest.map((each) => each.text)),
    normalized: rest.length === 1 ? statement.normalized : join(rest.map((each) => each.normalized)),
    facts: combine(rest),
    // Where the Query's bytes are not the text's UTF-8, the statement's own are not known: both are those of the Query.
    sha256: record.textSha256 ?? sha256(raw),
    bytes: record.textSha256 === undefined ? last.start + last.length - statement.start : record.textBytes,
  }
}

function shown(subject: Subject, mode: TextMode): string | undefined {
  if (mode === 'full') return subject.text
  return mode === 'normalized' ? subject.normalized : undefined
}

function render(subject: Subject, mode: TextMode, truncated: boolean, budget: number): TextPart {
  const { facts } = subject
  const text = shown(subject, mode)
  const tables = facts.tables.slice(0, MAX_TABLES)
  const fit = text === undefined ? undefined : jsonStringWithin(text, budget)
  const cut = fit?.cut === true || truncated
  // By hand: with a replacer JSON.stringify asks for each member, which is felt where each text is a new one.
  const pgusher = Buffer.from(
    `,"query":{"class":"${facts.class}"` +
      `${facts.fingerprint === undefined ? '' : `,"fingerprint":"${facts.fingerprint}"`}` +
      `${subject.sha256 === undefined ? '' : `,"sha256":"${subject.sha256}"`}` +
      `${subject.bytes === undefined ? '' : `,"length_bytes":${subject.bytes}`}` +
      `,"truncated":${cut},"tables":[${tables.map(jsonString).join(',')}]` +
      `,"tables_complete":${facts.tablesComplete && tables.length === facts.tables.length}}`,
  )
  const members: string[] = []
  if (fit !== undefined) members.push(`"text":${fit.json}`)
  if (facts.summary !== '') members.push(`"summary":${jsonString(facts.summary)}`)
  const db = Buffer.from(members.length === 0 ? '' : `,"query":{${members.join(',')}}`)
  return { pgusher, db, bytes: pgusher.length + db.length, secret: facts.secret }
}

const FUNCTION_CALL: TextPart = {
  pgusher: Buffer.from(',"query":{"class":"FUNCTION","tables":[],"tables_complete":false}'),
  db: Buffer.alloc(0),
  bytes: 66,
  secret: false,
}

export interface TextParts {
  /** Cached parts, or undefined when the text is new. The hot path. */
  cached(record: StatementRecord, mode: TextMode): TextPart | undefined
  /** `budget`: bytes that the text may take in the event; `keep`: for the next record with this text. */
  make(record: StatementRecord, mode: TextMode, known: Classification, budget: number, keep: boolean): TextPart
}

const MODE_LETTER: Record<TextMode, string> = { full: 'f', normalized: 'n', fingerprint: 'p', none: '-' }

/** A statement whose text was not kept, or never seen: a cursor's, one prepared before this session. */
const withoutText = (record: StatementRecord): Subject => ({
  text: undefined,
  normalized: undefined,
  facts: UNKNOWN_FACTS,
  sha256: record.textSha256,
  bytes: record.textBytes === 0 ? undefined : record.textBytes,
})

/** A long text of many statements would fill the cache with copies of itself, one a statement. */
const MAX_SPECIAL_UNITS = 4 * 1024

/** What beside the text tells two parts apart, with the text. */
const specialKey = (record: StatementRecord, mode: TextMode, text: string): string =>
  `${record.inBatch ? record.batchIndex : ''}${record.outcome === 'success' ? '' : '!'}${MODE_LETTER[mode]}${record.textSha256 ?? ''}:${text}`

export function textParts(): TextParts {
  // One look-up by the text itself for the usual statement, without making a new key of it.
  const plain: Record<TextMode, GenerationCache<TextPart>> = {
    full: generationCache(CACHE_BYTES),
    normalized: generationCache(CACHE_BYTES),
    fingerprint: generationCache(CACHE_BYTES),
    none: generationCache(CACHE_BYTES),
  }
  const special = generationCache<TextPart>(CACHE_BYTES / 4)
  const recent = recentTexts<undefined>()
  const comesAgain = (text: string): boolean => recent.get(text) !== undefined || !recent.put(text, undefined)
  const usual = (record: StatementRecord): boolean =>
    record.outcome === 'success' &&
    !record.inBatch &&
    // Two texts that read alike may be made of other bytes; one that was cut always has a hash of its own.
    record.textSha256 === undefined &&
    !record.truncated &&
    record.batchIndex === 0
  return {
    cached(record, mode) {
      const { text } = record
      if (text === undefined) return record.protocol === 'function' ? FUNCTION_CALL : undefined
      if (usual(record)) return plain[mode].get(text)
      if (record.truncated || text.length > MAX_SPECIAL_UNITS) return undefined
      return special.get(specialKey(record, mode, text))
    },
    make(record, mode, known, budget, keep) {
      const { text } = record
      if (text === undefined) return render(withoutText(record), mode, record.truncated, budget)
      const part = render(subjectOf(record, text, known), mode, record.truncated, budget)
      if (!keep || record.truncated) return part
      const cost = text.length * 2 + part.bytes + PART_OVERHEAD_BYTES
      if (usual(record)) {
        if (comesAgain(text)) plain[mode].set(text, part, cost)
      } else if (text.length <= MAX_SPECIAL_UNITS) special.set(specialKey(record, mode, text), part, cost)
      return part
    },
  }
}
