/** Joins the job's connection and the upstream one: what passes is scanned, tracked and recorded, and bounded where the grant says so. */
import type { Socket } from 'node:net'
import { performance } from 'node:perf_hooks'
import type { Outcome, Recorder, SessionAudit, StatementRecord } from '../audit/recorder.ts'
import type { AccessError } from '../errors.ts'
import type { Grant } from '../policy/types.ts'
import { createFrameScanner } from '../wire/frame-scanner.ts'
import { BulkPacing } from './bulk-pacing.ts'
import { createBackendHandler, maxBackendLength } from './from-backend.ts'
import { createFrontendHandler, maxFrontendLength } from './from-frontend.ts'
import { limitStatements } from './limit-statements.ts'
import { mayMakeSetting } from './own-settings.ts'
import { createPump, type Pump } from './pump.ts'
import { type EndReason, SessionEnding, TERMINATE } from './session-ending.ts'
import { decoderFor } from './statement-text.ts'
import { type SessionTotals, StatementTracker } from './statement-tracker.ts'

export interface RelayEnd {
  reason: EndReason
  /** What the job was told, when pgusher ended the session. */
  error: AccessError | undefined
  totals: SessionTotals & { bytesFromClient: number; bytesToClient: number }
}

export interface RelayOptions {
  client: Socket
  /** Bytes of the job that were read behind its authentication. */
  clientRest: Buffer
  upstream: Socket
  upstreamRest: Buffer
  clientEncoding: string
  /** `standard_conforming_strings`; on without it. */
  standardStrings?: string | undefined
  grant: Grant
  audit: SessionAudit
  recorder: Pick<Recorder, 'accepting'>
  onStatement(outcome: Outcome): void
  /** Sends a CancelRequest upstream. Never rejects. */
  cancel(): Promise<void>
  /** Takes the upstream connection over for another session of the job, if it may. */
  handBack?: (() => boolean) | undefined
  /** A fault of pgusher's own, which costs this session and no other. */
  onFailure(error: unknown): void
}

export interface Relay {
  /** Statements run or a transaction is open: what a drain waits for. */
  busy(): boolean
  /** How many have ended. */
  statements(): number
  readonly ended: Promise<RelayEnd>
  /** Ends the session; a second call does nothing. */
  end(reason: EndReason, error: AccessError): void
}

/** Characters of messages without an answer at which a client that pipelines is held back, and let on. */
const BACKLOG_HIGH = 4 * 1024 * 1024
const BACKLOG_LOW = 2 * 1024 * 1024
const FLUSH = Buffer.from('H\0\0\0\x04', 'latin1')

export function startRelay(options: RelayOptions): Relay {
  const { client, upstream, grant, audit } = options
  // Each by itself: the options, which hold what was read before, are not needed to the end.
  const { recorder, cancel, handBack, onStatement, onFailure } = options
  const { promise: ended, resolve } = Promise.withResolvers<RelayEnd>()
  let decode = decoderFor(options.clientEncoding)
  /** The upstream connection is to be handed back. */
  let keeping = false
  /** The session may have left in the upstream connection what cannot be undone or seen. */
  let marked = false

  const tracker = new StatementTracker(recordStatement)
  const frontend = createFrontendHandler(tracker, {
    functionCall: grant.functionCall,
    auditAccepts: () => recorder.accepting,
    decode: () => decode,
    inject: (bytes) => fromClient.inject(bytes),
    stop: (reason, error) => ending.refuse(reason, error),
    ...{ prefetch, onTerminate },
  })
  const limit = limitStatements(frontend, tracker, {
    ...{ grant, read: audit.read, pump: () => fromClient },
    parameters: { clientEncoding: options.clientEncoding, standardStrings: options.standardStrings ?? 'on' },
    end: (error) => ending.end('policy', error),
  })
  const clientScanner = limit?.scanner ?? createFrameScanner(frontend, maxFrontendLength)
  const upstreamScanner = createFrameScanner(
    createBackendHandler(tracker, {
      replication: grant.replication,
      inject: (bytes) => fromUpstream.inject(bytes),
      stop: (reason, error) => ending.refuse(reason, error),
      onParameter: (name, value) => {
        if (name === 'client_encoding') decode = decoderFor(value)
        limit?.follow(name, value)
      },
      onFatal: () => {
        ending.fatalSeen = true
      },
    }),
    maxBackendLength,
  )
  const both = { pacing: new BulkPacing(), beforeChunk: readClock, onFailure: failed }
  const fromClient: Pump = createPump(client, upstream, clientScanner, {
    ...both,
    afterChunk: () => {
      if (keeping) keepUpstream()
      if (tracker.backlog > BACKLOG_HIGH) fromClient.atBoundary(holdClient)
    },
    onStop: () => ending.clientStopped(clientScanner.violation),
    onEnd: () => ending.clientEnded(),
  })
  const fromUpstream: Pump = createPump(upstream, client, upstreamScanner, {
    ...both,
    afterChunk: () => {
      if (tracker.backlog < BACKLOG_LOW && limit?.scanner.waiting !== true) fromClient.release()
    },
    onStop: () => ending.upstreamStopped(upstreamScanner.violation),
    onEnd: () => ending.upstreamEnded(),
  })
  const ending = new SessionEnding({
    ...{ client, upstream, fromClient, fromUpstream, tracker, gate: limit?.scanner },
    ...{ readClock, cancel, onSettled },
  })

  function recordStatement(record: StatementRecord): void {
    const byUs = ending.error !== undefined && record.outcome !== 'success' && record.errorType === undefined
    audit.statement(byUs ? { ...record, errorType: ending.reason } : record)
    onStatement(record.outcome)
  }

  function readClock(): void {
    tracker.now = performance.now()
  }

  /** A client that is held cannot send Sync, and without that PostgreSQL keeps up to 8 KiB of answers to itself. */
  function holdClient(): void {
    if (!grant.replication) fromClient.inject(FLUSH)
    fromClient.hold()
  }

  function failed(error: unknown): void {
    ending.failed()
    onFailure(error)
  }

  function prefetch(text: string, truncated: boolean): void {
    audit.prefetch(text)
    if (!marked && handBack !== undefined) marked = truncated || mayMakeSetting(text)
  }

  function onTerminate(): boolean {
    ending.terminated = true
    keeping = mayKeep()
    return keeping
  }

  /** At Terminate: PostgreSQL has answered everything, and has nothing to say that was not passed on. */
  function mayKeep(): boolean {
    if (handBack === undefined || marked || !ending.goesOn) return false
    const open = upstream.writable && !upstream.readableEnded
    return open && upstreamScanner.between && tracker.settled
  }

  function keepUpstream(): void {
    keeping = false
    both.pacing.stop()
    // What the job sent in front of Terminate may still be on its way.
    if (upstream.writableLength === 0 && handBack?.()) ending.handedOver()
    else fromClient.inject(TERMINATE)
  }

  function onSettled(): void {
    readClock()
    const { error, reason = 'upstream' } = ending
    tracker.finish(error === undefined ? 'connection_lost' : reason)
    fromClient.detach()
    fromUpstream.detach()
    const { totals } = tracker
    resolve({
      ...{ reason, error },
      totals: { ...totals, bytesFromClient: fromClient.bytes(), bytesToClient: fromUpstream.bytes() },
    })
  }

  function busy(): boolean {
    return tracker.running > 0 || tracker.transaction !== 'idle'
  }

  ending.watch()
  fromUpstream.start(options.upstreamRest)
  fromClient.start(options.clientRest)
  ending.catchUp()
  return {
    ...{ busy, ended, statements: () => tracker.totals.statements },
    end: (reason, error) => ending.end(reason, error),
  }
}
