/** What the rest of pgusher sees of the audit: `open.ts` makes a Recorder from the configuration. */
import type { TextMode } from '../config/schema.ts'
import type { Principal } from '../identity/principal.ts'
import type { Classification } from './classification.ts'

export type Outcome = 'success' | 'failure' | 'denied' | 'would_deny' | 'unknown'

/** What is known of a connection, growing from accept to ReadyForQuery; serialised once when the session starts. */
export interface SessionIdentity {
  sessionId: string
  client: { address: string; port: number | undefined }
  tlsProtocol?: string
  principal?: Principal
  /** Hash of a token that was shown but not verified; no claims of it are recorded. */
  unverifiedTokenSha256?: string
  db?: {
    /** Entry of `databases`, as the client asked for it. */
    alias: string
    /** Group role asked for or granted. */
    role?: string
    /** The minted login. */
    login?: string
    namespace?: string
    serverAddress?: string
    serverPort?: number
  }
  rule?: { name: string; ruleset: string; version: string }
}

/** Whom an event is about that belongs to no session, or not to one alone: a job's credential. */
export type JobIdentity = Omit<SessionIdentity, 'sessionId' | 'client'> &
  Partial<Pick<SessionIdentity, 'sessionId' | 'client'>>

export type StatementProtocol = 'simple' | 'extended' | 'copy_in' | 'copy_out' | 'function'

/**
 * One execution. `record` reads it at once or keeps it until its text is classified, so the caller makes one object an
 * execution and does not touch it afterwards.
 */
export interface StatementRecord {
  /** The statement's text as far as it was kept (a prefix where `truncated`); undefined where none was seen, as with FunctionCall. */
  text: string | undefined
  /** Bytes of the whole text as sent. */
  textBytes: number
  /** Hex SHA-256 of the whole text as sent, already known where the text was too long to keep or its bytes were not UTF-8; else the recorder computes it (cached by text). */
  textSha256: string | undefined
  truncated: boolean
  protocol: StatementProtocol
  statementName: string
  /** Position in a multi-statement Query; 0 for the first. */
  batchIndex: number
  /** True where more statements of the same Query follow or came before. */
  inBatch: boolean
  tx: 'idle' | 'open' | 'failed'
  /** `performance.now()` values. */
  startedAt: number
  endedAt: number
  /** DataRow or CopyData messages sent to the client. */
  returnedRows: number
  /** From the CommandComplete tag; undefined where it has none. */
  affectedRows: number | undefined
  requestBytes: number
  responseBytes: number
  outcome: Outcome
  /** SQLSTATE of the ErrorResponse; undefined on success. */
  sqlstate: string | undefined
  /** `not_executed` for what an aborted pipeline skipped, `connection_lost`, `killed`; undefined otherwise. */
  errorType: string | undefined
  /** Why it was denied, as JSON: an object. */
  decision?: string | undefined
  /** FunctionCall only. */
  functionOid: number | undefined
  /** Parameters of the execution, only where recording them is switched on. */
  parameters: readonly (string | null)[] | undefined
}

/** Any other event. Nested objects as in the schema; `undefined` members are left out. Never a token, password or key. */
export interface AuditEvent {
  event: string
  outcome: Outcome
  /** Merged into the event beside the identity: `{ pgusher: { duration_s: 1.2 }, db: {...} }`. */
  fields?: Readonly<Record<string, unknown>>
}

/** The audit of one session: its identity block is serialised once, here. */
export interface SessionAudit {
  /** The hot path. Order of calls is order of events. */
  statement(record: StatementRecord): void
  /** Asks for the classification of a text ahead of the statement's end, so that the event need not wait for it. */
  prefetch(text: string): void
  /** What a statement of this text does, for who decides whether it may run: at once where it is known. Never rejects. */
  read(text: string): Classification | Promise<Classification>
  event(event: AuditEvent): void
}

export interface Recorder {
  /** False while the sink fails or is too slow under `on_failure: deny`: no new session starts, running ones end at their next statement. */
  readonly accepting: boolean
  /** The reason, for the log and /readyz. */
  readonly failure: string | undefined
  /** Events of this process so far, which is the last `pgusher.seq`. */
  readonly recorded: number
  /** Called with the new value of `accepting` whenever it changes. */
  onAcceptingChange(listener: (accepting: boolean) => void): void
  /** An event without a session: `policy.loaded`, `credential.revoked` and the like; identity where there is one. */
  event(event: AuditEvent, identity?: JobIdentity): void
  session(identity: SessionIdentity, textMode: TextMode): SessionAudit
  /** New file (SIGUSR2). */
  rotate(): Promise<void>
  /** Resolves when everything recorded so far is in the sink, or rejects with the sink's error. */
  flush(): Promise<void>
  close(): Promise<void>
}
