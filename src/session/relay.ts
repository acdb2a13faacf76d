/**
 * Joins the job's connection and the upstream one until one side ends, or pgusher ends them. Knows how each side must be told:
 * the job by an ErrorResponse that stands between two messages, PostgreSQL by a CancelRequest, CopyFail and Terminate, so that
 * neither is left with half a message or a running statement.
 */
import type { Socket } from 'node:net'
import type { Outcome, Recorder, SessionAudit } from '../audit/recorder.ts'
import { AccessError } from '../errors.ts'
import { errorFrame, lastWords } from '../frontend/respond.ts'
import type { Grant } from '../policy/types.ts'
import { createFrameScanner } from '../wire/frame-scanner.ts'
import { createBackendHandler, maxBackendLength } from './from-backend.ts'
import { createFrontendHandler, maxFrontendLength } from './from-frontend.ts'
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
  grant: Grant
  audit: SessionAudit
  recorder: Pick<Recorder, 'accepting'>
  onStatement(outcome: Outcome): void
  /** Sends a CancelRequest upstream. Never rejects. */
  cancel(): void
}

export interface Relay {
  /** Statements run or a transaction is open: what a drain waits for. */
  readonly busy: boolean
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
/** Messages without an answer at which a client that pipelines is held back, and let on. */
const BACKLOG_HIGH = 65_536
const BACKLOG_LOW = 32_768

const TERMINATE = Buffer.from('X\0\0\0\x04', 'latin1')
const COPY_FAIL = Buffer.from('f\0\0\0\x17the client is gone\0', 'latin1')

export function startRelay(options: RelayOptions): Relay {
  const { client, upstream, grant, audit } = options
  const { promise: ended, resolve } = Promise.withResolvers<RelayEnd>()
  const timers = new Set<NodeJS.Timeout>()
  let decode = decoderFor(options.clientEncoding)
  let terminated = false
  let clientGone = false
  let fatalSeen = false
  let end: { reason: EndReason; error: AccessError | undefined } | undefined

  const tracker = new StatementTracker((record) => {
    audit.statement(
      end?.error !== undefined && record.outcome !== 'success'
        ? { ...record, errorType: endedBy(record.errorType) }
        : record,
    )
    options.onStatement(record.outcome)
  })
  const endedBy = (errorType: string | undefined): string => errorType ?? end?.reason ?? 'connection_lost'

  const clientScanner = createFrameScanner(
    createFrontendHandler(tracker, {
      functionCall: grant.functionCall,
      auditAccepts: () => options.recorder.accepting,
      decode: () => decode,
      prefetch: (text) => audit.prefetch(text),
      inject: (bytes) => fromClient.inject(bytes),
      stop: endSession,
      onTerminate: () => {
        terminated = true
      },
    }),
    maxFrontendLength,
  )
  const upstreamScanner = createFrameScanner(
    createBackendHandler(tracker, {
      replication: grant.replication,
      inject: (bytes) => fromUpstream.inject(bytes),
      stop: endSession,
      onParameter: (name, value) => {
        if (name === 'client_encoding') decode = decoderFor(value)
      },
      onFatal: () => {
        fatalSeen = true
      },
    }),
    maxBackendLength,
  )
  const fromClient: Pump = createPump(client, upstream, clientScanner, {
    beforeChunk: readClock,
    afterChunk: () => {
      if (tracker.backlog > BACKLOG_HIGH) fromClient.hold()
    },
    onStop: () => stoppedBy(clientScanner.violation, 'protocol'),
    onEnd: clientEnded,
  })
  const fromUpstream: Pump = createPump(upstream, client, upstreamScanner, {
    beforeChunk: readClock,
    afterChunk: () => {
      if (tracker.backlog < BACKLOG_LOW) fromClient.release()
    },
    onStop: () => stoppedBy(upstreamScanner.violation, 'upstream'),
    onEnd: upstreamEnded,
  })

  function readClock(): void {
    tracker.now = performance.now()
  }

  /** The scanner itself refused a length; a handler that refused has called `endSession` with its own words. */
  function stoppedBy(violation: string | undefined, reason: 'protocol' | 'upstream'): void {
    if (violation === undefined) return
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

  function finishUpstream(): void {
    if (!upstream.writable) return
    fromClient.atBoundary(() => {
      if (tracker.copyIn) upstream.write(COPY_FAIL)
      if (!terminated) upstream.write(TERMINATE)
    })
    upstream.end()
  }

  function destroyBoth(): void {
    client.destroy()
    upstream.destroy()
  }

  /** FIN from the job. With Terminate before it, or nothing running, PostgreSQL is told at once and says the rest itself. */
  function clientEnded(): void {
    upstream.end()
    end ??= { reason: 'client', error: undefined }
    if (terminated) return
    if (tracker.copyIn || tracker.running === 0) after(CLOSE_GRACE, destroyBoth)
    else after(VANISHED_GRACE, cancelForGoneClient)
  }

  function cancelForGoneClient(): void {
    readClock()
    if (tracker.running > 0) options.cancel()
    fromUpstream.discard()
    after(CLOSE_GRACE - END_GRACE, destroyBoth)
  }

  /** Reset, or closed in the middle: nobody is there to read. */
  function clientClosed(): void {
    if (clientGone) return
    clientGone = true
    end ??= { reason: 'client', error: undefined }
    if (upstream.destroyed) {
      settle()
      return
    }
    if (tracker.running > 0 && !terminated) options.cancel()
    fromUpstream.discard()
    finishUpstream()
    if (!terminated || tracker.running === 0) after(CLOSE_GRACE, () => upstream.destroy())
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
    upstream.end()
    fromClient.drain()
    client.end()
    after(CLOSE_GRACE, destroyBoth)
  }

  function upstreamClosed(): void {
    if (end === undefined) upstreamEnded()
    if (clientGone || client.destroyed) settle()
  }

  function endSession(reason: EndReason, error: AccessError): void {
    readClock()
    if (tracker.running > 0) options.cancel()
    if (end !== undefined) {
      // The job is gone or told already, and what it left running shall not outlive this.
      after(END_GRACE, destroyBoth)
      return
    }
    end = { reason, error }
    fromClient.drain()
    fromUpstream.atBoundary(tellClient)
    finishUpstream()
    after(END_GRACE, destroyBoth)

    function tellClient(): void {
      fromUpstream.discard()
      fromClient.detach()
      void lastWords(client, errorFrame(error))
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
      totals: { ...tracker.totals, bytesFromClient: fromClient.bytes, bytesToClient: fromUpstream.bytes },
    })
  }

  client.on('error', () => client.destroy())
  upstream.on('error', () => upstream.destroy())
  client.once('close', clientClosed)
  upstream.once('close', upstreamClosed)
  fromUpstream.start(options.upstreamRest)
  fromClient.start(options.clientRest)
  if (client.destroyed) clientClosed()

  return {
    get busy() {
      return tracker.running > 0 || tracker.transaction !== 'idle'
    },
    ended,
    end: endSession,
  }
}
