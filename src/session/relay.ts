/**
 * Joins the job's connection and the upstream one until one side ends, or pgusher ends them. Knows how each side must be told:
 * the job by an ErrorResponse that stands between two messages, PostgreSQL by a CancelRequest, CopyFail and Terminate, so that
 * neither is left with half a message or a running statement.
 */
import type { Socket } from 'node:net'
import { performance } from 'node:perf_hooks'
import type { Outcome, Recorder, SessionAudit, StatementRecord } from '../audit/recorder.ts'
import { AccessError } from '../errors.ts'
import { errorFrame, lastWords } from '../frontend/respond.ts'
import type { Grant } from '../policy/types.ts'
import { createFrameScanner } from '../wire/frame-scanner.ts'
import { BulkPacing } from './bulk-pacing.ts'
import { createBackendHandler, maxBackendLength } from './from-backend.ts'
import { createFrontendHandler, maxFrontendLength } from './from-frontend.ts'
import { limitStatements } from './limit-statements.ts'
import { mayMakeSetting } from './own-settings.ts'
import { createPump, type Pump } from './pump.ts'
import { decoderFor } from './statement-text.ts'
import { type SessionTotals, StatementTracker } from './statement-tracker.ts'

/** `pgusher.end_reason` of the audit schema. */
export type EndReason = 'client' | 'expired' | 'killed' | 'policy' | 'upstream' | 'shutdown' | 'protocol' | 'audit'

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

/** Milliseconds that a session which pgusher ends has for the end of a message and the outcome of a cancelled statement. */
const END_GRACE = 800
/** Milliseconds that both sides have to close once one has; a backend that is stuck is then cut off. */
const CLOSE_GRACE = 2_000
/** A client that sent FIN but no Terminate may still read (half-close); after this its running statement is cancelled. */
const VANISHED_GRACE = 3_000
/** Characters of messages without an answer at which a client that pipelines is held back, and let on. */
const BACKLOG_HIGH = 4 * 1024 * 1024
const BACKLOG_LOW = 2 * 1024 * 1024
/** Milliseconds behind a closed connection at which what still runs there is cancelled. */
const LATE_CANCELS = [0, 100, 200, 400]

const TERMINATE = Buffer.from('X\0\0\0\x04', 'latin1')
const FLUSH = Buffer.from('H\0\0\0\x04', 'latin1')
const COPY_FAIL = Buffer.from('f\0\0\0\x17the client is gone\0', 'latin1')

export function startRelay(options: RelayOptions): Relay {
  const { client, upstream, grant, audit } = options
  // Each by itself: the options, which hold what was read before, are not needed to the end.
  const { recorder, cancel, handBack, onStatement, onFailure } = options
  const { promise: ended, resolve } = Promise.withResolvers<RelayEnd>()
  const timers = new Set<NodeJS.Timeout>()
  let decode = decoderFor(options.clientEncoding)
  let terminated = false
  /** The upstream connection is to be handed back, and was: from then on nothing here touches it. */
  let keeping = false
  let handedBack = false
  /** The session may have left in the upstream connection what cannot be undone or seen. */
  let marked = false
  let clientGone = false
  let fatalSeen = false
  let end: { reason: EndReason; error: AccessError | undefined } | undefined
  /** What a handler refused; its scanner stops at once. */
  let refused: { reason: EndReason; error: AccessError } | undefined

  const tracker = new StatementTracker(recordStatement)
  const frontend = createFrontendHandler(tracker, {
    functionCall: grant.functionCall,
    auditAccepts: () => recorder.accepting,
    decode: () => decode,
    inject: (bytes) => fromClient.inject(bytes),
    ...{ prefetch, stop: refuse, onTerminate },
  })
  const limit = limitStatements(frontend, tracker, {
    ...{ grant, read: audit.read, pump: () => fromClient },
    parameters: { clientEncoding: options.clientEncoding, standardStrings: options.standardStrings ?? 'on' },
    end: (error) => endSession('policy', error),
  })
  const clientScanner = limit?.scanner ?? createFrameScanner(frontend, maxFrontendLength)
  const upstreamScanner = createFrameScanner(
    createBackendHandler(tracker, {
      replication: grant.replication,
      inject: (bytes) => fromUpstream.inject(bytes),
      stop: refuse,
      onParameter: (name, value) => {
        if (name === 'client_encoding') decode = decoderFor(value)
        limit?.follow(name, value)
      },
      onFatal: () => {
        fatalSeen = true
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
    onStop: () => stopped(clientScanner.violation, 'protocol'),
    onEnd: clientEnded,
  })
  const fromUpstream: Pump = createPump(upstream, client, upstreamScanner, {
    ...both,
    afterChunk: () => {
      if (tracker.backlog < BACKLOG_LOW && limit?.scanner.waiting !== true) fromClient.release()
    },
    onStop: () => stopped(upstreamScanner.violation, 'upstream'),
    onEnd: upstreamEnded,
  })

  function recordStatement(record: StatementRecord): void {
    const byUs = end?.error !== undefined && record.outcome !== 'success' && record.errorType === undefined
    audit.statement(byUs ? { ...record, errorType: end?.reason } : record)
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
    end ??= {
      reason: 'killed',
      error: new AccessError('internal_error', 'session ended: internal error in pgusher'),
    }
    onFailure(error)
    destroyBoth()
  }

  /** Carried out once what stands before the refused message is on its way: it counts as sent. */
  function refuse(reason: EndReason, error: AccessError): void {
    refused = { reason, error }
  }

  function stopped(violation: string | undefined, reason: 'protocol' | 'upstream'): void {
    if (refused !== undefined) endSession(refused.reason, refused.error)
    // Behind Terminate nothing is read, so nothing there is wrong.
    if (violation === undefined || (reason === 'protocol' && terminated)) return
    const error =
      reason === 'protocol'
        ? new AccessError('protocol_violation', `protocol violation: ${violation}`)
        : new AccessError(
            'upstream_lost',
            'session ended: PostgreSQL sent something that is no message of its protocol',
          )
    endSession(reason, error)
  }

  function after(milliseconds: number, then: () => void): void {
    const timer = setTimeout(() => {
      timers.delete(timer)
      then()
    }, milliseconds)
    timers.add(timer)
  }

  function prefetch(text: string, truncated: boolean): void {
    audit.prefetch(text)
    if (!marked && handBack !== undefined) marked = truncated || mayMakeSetting(text)
  }

  function onTerminate(): boolean {
    terminated = true
    keeping = mayKeep()
    return keeping
  }

  /** At Terminate: PostgreSQL has answered everything, and has nothing to say that was not passed on. */
  function mayKeep(): boolean {
    if (handBack === undefined || marked || end !== undefined || refused !== undefined || clientGone || fatalSeen)
      return false
    const open = upstream.writable && !upstream.readableEnded
    return open && upstreamScanner.between && tracker.settled
  }

  function keepUpstream(): void {
    keeping = false
    both.pacing.stop()
    // What the job sent in front of Terminate may still be on its way.
    handedBack = upstream.writableLength === 0 && (handBack?.() ?? false)
    if (!handedBack) {
      fromClient.inject(TERMINATE)
      return
    }
    end = { reason: 'client', error: undefined }
    fromUpstream.detach()
    upstream.off('error', destroyUpstream).off('close', upstreamClosed)
    fromClient.drain()
    client.end()
    closeBoth()
  }

  function destroyUpstream(): void {
    upstream.destroy()
  }

  function finishUpstream(): void {
    if (handedBack || !upstream.writable) return
    fromClient.atBoundary(() => {
      if (tracker.copyIn) upstream.write(COPY_FAIL)
      if (!terminated) upstream.write(TERMINATE)
    })
    upstream.end()
  }

  function destroyBoth(): void {
    client.destroy()
    cutUpstream()
  }

  /**
   * A backend notices that its connection is gone only when it writes, and then at the second time: what the job pipelined lies in
   * its buffer and would go on, statement by statement, without anybody's record.
   */
  function cutUpstream(): void {
    if (handedBack) return
    const late = tracker.running > 0 && !upstream.destroyed
    upstream.destroy()
    if (late) for (const delay of LATE_CANCELS) setTimeout(() => void cancel(), delay).unref()
  }

  /** A client that still takes what was sent to it is given the time for it. */
  function closeBoth(left = client.writableLength): void {
    after(CLOSE_GRACE, () => {
      cutUpstream()
      const now = client.writableLength
      if (now > 0 && now < left) closeBoth(now)
      else client.destroy()
    })
  }

  /** FIN from the job. With Terminate before it, or nothing running, PostgreSQL is told at once and says the rest itself. */
  function clientEnded(): void {
    if (handedBack) return
    // What it sent before is on its way to PostgreSQL once it is decided.
    if (limit?.scanner.waiting) {
      limit.scanner.whenFree(clientEnded)
      return
    }
    upstream.end()
    end ??= { reason: 'client', error: undefined }
    if (terminated) return
    if (tracker.copyIn || tracker.running === 0) closeBoth()
    else cancelForGoneClient()
  }

  /** Nothing tells a client that has closed from one that listens but that what is sent to it is taken. */
  function cancelForGoneClient(): void {
    const taken = fromUpstream.bytes()
    after(VANISHED_GRACE, () => (fromUpstream.bytes() > taken ? cancelForGoneClient() : cancelForGood()))
  }

  function cancelForGood(): void {
    readClock()
    if (tracker.running > 0) void cancel()
    fromUpstream.discard()
    after(CLOSE_GRACE - END_GRACE, destroyBoth)
  }

  /** Reset, or closed in the middle: nobody is there to read. */
  function clientClosed(): void {
    if (clientGone) return
    clientGone = true
    end ??= { reason: 'client', error: undefined }
    if (upstream.destroyed || handedBack) {
      settle()
      return
    }
    if (tracker.running > 0 && !terminated) void cancel()
    fromUpstream.discard()
    finishUpstream()
    if (!terminated || tracker.running === 0) after(CLOSE_GRACE, cutUpstream)
  }

  function upstreamEnded(): void {
    if (end === undefined) {
      end = { reason: terminated ? 'client' : 'upstream', error: undefined }
      if (!terminated && !fatalSeen) {
        end.error = new AccessError('upstream_lost', 'session ended: PostgreSQL closed the connection')
        const frame = errorFrame(end.error)
        fromUpstream.atBoundary(() => fromUpstream.inject(frame))
      }
    }
    // Ending twice makes an error with its stack, which nobody sees: 2 % of a connection.
    if (!upstream.writableEnded) upstream.end()
    fromClient.drain()
    client.end()
    closeBoth()
  }

  function upstreamClosed(): void {
    if (end === undefined) upstreamEnded()
    if (clientGone || client.destroyed) settle()
  }

  function endSession(reason: EndReason, error: AccessError): void {
    readClock()
    if (tracker.running > 0) void cancel()
    if (end !== undefined) {
      // The job is gone or told already, and what it left running shall not outlive this.
      after(END_GRACE, destroyBoth)
      return
    }
    end = { reason, error }
    fromClient.drain()
    let left = 0
    fromUpstream.finish(tellClient)
    finishUpstream()
    // A client that takes what was sent to it, if slowly, is left to its last words, which have an end of their own.
    after(END_GRACE, () => (client.writableLength < left ? cutUpstream() : destroyBoth()))

    function tellClient(): void {
      fromUpstream.discard()
      fromClient.detach()
      void lastWords(client, errorFrame(error))
      // TLS tells a turn later of what the kernel has taken.
      setImmediate(() => {
        left = client.writableLength
      })
    }
  }

  let settled = false
  function settle(): void {
    if (settled) return
    settled = true
    for (const timer of timers) clearTimeout(timer)
    readClock()
    tracker.finish(end?.error === undefined ? 'connection_lost' : end.reason)
    fromClient.detach()
    fromUpstream.detach()
    resolve({
      reason: end?.reason ?? 'upstream',
      error: end?.error,
      totals: { ...tracker.totals, bytesFromClient: fromClient.bytes(), bytesToClient: fromUpstream.bytes() },
    })
  }

  function begin(clientRest: Buffer, upstreamRest: Buffer): void {
    client.on('error', () => client.destroy())
    upstream.on('error', destroyUpstream)
    client.once('close', clientClosed)
    upstream.once('close', upstreamClosed)
    fromUpstream.start(upstreamRest)
    fromClient.start(clientRest)
    // What happened before there were listeners is not said again.
    if (client.destroyed) clientClosed()
    else if (client.readableEnded) clientEnded()
    if (upstream.closed && !handedBack) upstreamClosed()
  }

  function busy(): boolean {
    return tracker.running > 0 || tracker.transaction !== 'idle'
  }

  begin(options.clientRest, options.upstreamRest)
  return { busy, statements: () => tracker.totals.statements, ended, end: endSession }
}
