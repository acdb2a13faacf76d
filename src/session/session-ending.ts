/**
 * How a session ends, whoever begins it. Each side is told as its protocol has it: the job by an ErrorResponse that stands between two
 * messages, PostgreSQL by a CancelRequest, CopyFail and Terminate, so that neither is left with half a message or a running statement.
 * Each has a limited time to close.
 */
import type { Socket } from 'node:net'
import { AccessError } from '../errors.ts'
import { errorFrame, lastWords } from '../frontend/respond.ts'
import type { Pump } from './pump.ts'
import type { StatementGate } from './statement-gate.ts'
import type { StatementTracker } from './statement-tracker.ts'

/** `pgusher.end_reason` of the audit schema. */
export type EndReason = 'client' | 'expired' | 'killed' | 'policy' | 'upstream' | 'shutdown' | 'protocol' | 'audit'

export interface SessionParts {
  client: Socket
  upstream: Socket
  fromClient: Pump
  fromUpstream: Pump
  tracker: StatementTracker
  /** Of a session whose statements are limited. */
  gate: StatementGate | undefined
  /** For the durations of what ends now. */
  readClock(): void
  /** Sends a CancelRequest upstream. Never rejects. */
  cancel(): Promise<void>
  /** Both sides are closed, or nothing here touches them any more. Called once. */
  onSettled(): void
}

/** Milliseconds that a session which pgusher ends has for the end of a message and the outcome of a cancelled statement. */
const END_GRACE = 800
/** Milliseconds that both sides have to close once one has; a backend that is stuck is then cut off. */
const CLOSE_GRACE = 2_000
/** A client that sent FIN but no Terminate may still read (half-close); after this its running statement is cancelled. */
const VANISHED_GRACE = 3_000
/** Milliseconds behind a closed connection at which what still runs there is cancelled. */
const LATE_CANCELS = [0, 100, 200, 400]

export const TERMINATE = Buffer.from('X\0\0\0\x04', 'latin1')
const COPY_FAIL = Buffer.from('f\0\0\0\x17the client is gone\0', 'latin1')

export class SessionEnding {
  /** The first stands; undefined while the session goes on. */
  reason: EndReason | undefined
  /** What the job was told, when pgusher ended the session. */
  error: AccessError | undefined
  /** The job sent Terminate. */
  terminated = false
  /** PostgreSQL told the job itself that this is the end. */
  fatalSeen = false

  readonly #parts: SessionParts
  readonly #timers = new Set<NodeJS.Timeout>()
  /** What a handler refused; its scanner stops at once. */
  #refused: { reason: EndReason; error: AccessError } | undefined
  #clientGone = false
  /** The upstream connection serves another session: from then on nothing here touches it. */
  #handedOver = false
  #settled = false

  constructor(parts: SessionParts) {
    this.#parts = parts
  }

  /** Watches both sides, of which either may be closed already. */
  watch(): void {
    const { client, upstream } = this.#parts
    client.on('error', () => client.destroy())
    upstream.on('error', this.#destroyUpstream)
    client.once('close', this.#clientClosed)
    upstream.once('close', this.#upstreamClosed)
  }

  /** What happened before there were listeners is not said again. */
  catchUp(): void {
    const { client, upstream } = this.#parts
    if (client.destroyed) this.#clientClosed()
    else if (client.readableEnded) this.clientEnded()
    if (upstream.closed && !this.#handedOver) this.#upstreamClosed()
  }

  /** Nothing has ended or is about to. */
  get goesOn(): boolean {
    return this.reason === undefined && this.#refused === undefined && !this.#clientGone && !this.fatalSeen
  }

  /** Carried out once what stands before the refused message is on its way: it counts as sent. */
  refuse(reason: EndReason, error: AccessError): void {
    this.#refused = { reason, error }
  }

  /** The scanner of the client's messages stopped. */
  clientStopped(violation: string | undefined): void {
    this.#carryOutRefusal()
    // Behind Terminate nothing is read, so nothing there is wrong.
    if (violation === undefined || this.terminated) return
    this.end('protocol', new AccessError('protocol_violation', `protocol violation: ${violation}`))
  }

  upstreamStopped(violation: string | undefined): void {
    this.#carryOutRefusal()
    if (violation === undefined) return
    const message = 'session ended: PostgreSQL sent something that is no message of its protocol'
    this.end('upstream', new AccessError('upstream_lost', message))
  }

  #carryOutRefusal(): void {
    if (this.#refused !== undefined) this.end(this.#refused.reason, this.#refused.error)
  }

  /** A fault of pgusher's own. What it left half done is not to be written to. */
  failed(): void {
    this.#begin('killed', new AccessError('internal_error', 'session ended: internal error in pgusher'))
    this.#destroyBoth()
  }

  /** The upstream connection was taken over at Terminate; only the job's side is left. */
  handedOver(): void {
    const { client, upstream, fromClient, fromUpstream } = this.#parts
    this.#handedOver = true
    this.#begin('client')
    fromUpstream.detach()
    upstream.off('error', this.#destroyUpstream).off('close', this.#upstreamClosed)
    fromClient.drain()
    client.end()
    this.#closeBoth()
  }

  /** FIN from the job. With Terminate before it, or nothing running, PostgreSQL is told at once and says the rest itself. */
  clientEnded(): void {
    const { upstream, tracker, gate } = this.#parts
    if (this.#handedOver) return
    // What it sent before is on its way to PostgreSQL once it is decided.
    if (gate?.waiting) {
      gate.whenFree(() => this.clientEnded())
      return
    }
    upstream.end()
    this.#begin('client')
    if (this.terminated) return
    if (tracker.copyIn || tracker.running === 0) this.#closeBoth()
    else this.#cancelForGoneClient()
  }

  /** FIN from PostgreSQL. */
  upstreamEnded(): void {
    const { client, upstream, fromClient } = this.#parts
    if (this.reason === undefined) this.#lost()
    // Ending twice makes an error with its stack, which nobody sees: 2 % of a connection.
    if (!upstream.writableEnded) upstream.end()
    fromClient.drain()
    client.end()
    this.#closeBoth()
  }

  #lost(): void {
    const { fromUpstream } = this.#parts
    if (this.terminated || this.fatalSeen) {
      this.#begin(this.terminated ? 'client' : 'upstream')
      return
    }
    const error = new AccessError('upstream_lost', 'session ended: PostgreSQL closed the connection')
    this.#begin('upstream', error)
    const frame = errorFrame(error)
    fromUpstream.atBoundary(() => fromUpstream.inject(frame))
  }

  /** pgusher ends the session; a second call does nothing. */
  end(reason: EndReason, error: AccessError): void {
    const { client, fromClient, fromUpstream } = this.#parts
    this.#cancelRunning()
    if (this.reason !== undefined) {
      // The job is gone or told already, and what it left running shall not outlive this.
      this.#after(END_GRACE, this.#destroyBoth)
      return
    }
    this.#begin(reason, error)
    fromClient.drain()
    let left = 0
    fromUpstream.finish(() => {
      fromUpstream.discard()
      fromClient.detach()
      void lastWords(client, errorFrame(error))
      // Not sooner: a walsender goes at Terminate and at FIN, and takes along what is left of the message under way.
      this.#finishUpstream()
      // TLS tells a turn later of what the kernel has taken.
      setImmediate(() => {
        left = client.writableLength
      })
    })
    // A client that takes what was sent to it, if slowly, is left to its last words, which have an end of their own.
    this.#after(END_GRACE, () => (client.writableLength < left ? this.#cutUpstream() : this.#destroyBoth()))
  }

  /** The first reason stands. */
  #begin(reason: EndReason, error?: AccessError): void {
    if (this.reason !== undefined) return
    this.reason = reason
    this.error = error
  }

  #after(milliseconds: number, then: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      then()
    }, milliseconds)
    this.#timers.add(timer)
  }

  #cancelRunning(): void {
    const { tracker, cancel, readClock } = this.#parts
    readClock()
    if (tracker.running > 0) void cancel()
  }

  /** Nothing tells a client that has closed from one that listens but that what is sent to it is taken. */
  #cancelForGoneClient(): void {
    const { fromUpstream } = this.#parts
    const taken = fromUpstream.bytes()
    this.#after(VANISHED_GRACE, () => {
      if (fromUpstream.bytes() > taken) this.#cancelForGoneClient()
      else this.#cancelForGood()
    })
  }

  #cancelForGood(): void {
    this.#cancelRunning()
    this.#parts.fromUpstream.discard()
    this.#after(CLOSE_GRACE - END_GRACE, this.#destroyBoth)
  }

  /** Reset, or closed in the middle: nobody is there to read. */
  readonly #clientClosed = (): void => {
    const { upstream, fromUpstream, tracker, cancel } = this.#parts
    if (this.#clientGone) return
    this.#clientGone = true
    this.#begin('client')
    if (upstream.destroyed || this.#handedOver) {
      this.#settle()
      return
    }
    if (tracker.running > 0 && !this.terminated) void cancel()
    fromUpstream.discard()
    this.#finishUpstream()
    if (!this.terminated || tracker.running === 0) this.#after(CLOSE_GRACE, this.#cutUpstream)
  }

  readonly #upstreamClosed = (): void => {
    if (this.reason === undefined) this.upstreamEnded()
    if (this.#clientGone || this.#parts.client.destroyed) this.#settle()
  }

  #finishUpstream(): void {
    const { upstream, fromClient, tracker } = this.#parts
    if (this.#handedOver || !upstream.writable) return
    fromClient.atBoundary(() => {
      if (tracker.copyIn) upstream.write(COPY_FAIL)
      if (!this.terminated) upstream.write(TERMINATE)
    })
    upstream.end()
  }

  readonly #destroyUpstream = (): void => {
    this.#parts.upstream.destroy()
  }

  readonly #destroyBoth = (): void => {
    this.#parts.client.destroy()
    this.#cutUpstream()
  }

  /**
   * A backend notices that its connection is gone only when it writes, and then at the second time: what the job pipelined lies in
   * its buffer and would go on, statement by statement, without anybody's record.
   */
  readonly #cutUpstream = (): void => {
    const { upstream, tracker, cancel } = this.#parts
    if (this.#handedOver) return
    const late = tracker.running > 0 && !upstream.destroyed
    upstream.destroy()
    if (late) for (const delay of LATE_CANCELS) setTimeout(() => void cancel(), delay).unref()
  }

  /** A client that still takes what was sent to it is given the time for it. */
  #closeBoth(left = this.#parts.client.writableLength): void {
    const { client } = this.#parts
    this.#after(CLOSE_GRACE, () => {
      this.#cutUpstream()
      const now = client.writableLength
      if (now > 0 && now < left) this.#closeBoth(now)
      else client.destroy()
    })
  }

  #settle(): void {
    if (this.#settled) return
    this.#settled = true
    for (const timer of this.#timers) clearTimeout(timer)
    this.#parts.onSettled()
  }
}
