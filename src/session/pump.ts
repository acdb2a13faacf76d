/**
 * One direction of a session: chunks from `source` go through the scanner to `destination`. A destination that does not take more
 * stops the source, so that a slow reader costs the two sockets' buffers and nothing else.
 */
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { FrameScanner } from '../wire/frame-scanner.ts'
import type { BulkPacing, BulkSide } from './bulk-pacing.ts'
import { type ChunkBlock, holdChunk, releaseChunk } from './chunk-blocks.ts'
import { createChunkReader } from './chunk-reader.ts'
import { directWriter } from './direct-writer.ts'

export interface Pump {
  /** Bytes that were forwarded. */
  bytes(): number
  /** Begins to read; `first` is what was read before. */
  start(first: Buffer): void
  /** Puts bytes behind what was forwarded so far. */
  inject(bytes: Buffer): void
  /** Reads on without forwarding: the scanner still sees all that comes. */
  discard(): void
  /** Reads on without looking at it: the scanner has stopped. */
  drain(): void
  /** Calls `then` once the forwarded bytes end at the end of a message. At once, if they do. */
  atBoundary(then: () => void): void
  /** As `atBoundary`, before anything behind that message is forwarded, and without waiting for a destination that takes no more. */
  finish(then: () => void): void
  /** Holds the source back for a reason other than a full destination, until `release`. */
  hold(): void
  release(): void
  /** As `release`, for a scanner that kept something to itself: it is called with no bytes. */
  again(): void
  /** Removes all listeners; the sockets stay. */
  detach(): void
}

export interface PumpHooks {
  /** Of the session: both directions have the same. */
  pacing: BulkPacing
  beforeChunk(): void
  afterChunk(): void
  /** The scanner stopped. */
  onStop(): void
  /** The source sent FIN. */
  onEnd(): void
  /** Something threw. Nothing is read any more; what a throw leaves behind is not to be written to. */
  onFailure(error: unknown): void
}

const NOTHING = Buffer.alloc(0)
/** Of the message under way, beyond what a destination takes: with the two sockets' buffers this stays below what a session may cost. */
const FINISH_BYTES = 1024 * 1024
/** A callback costs a small write more than the memory that it would give back. */
const WORTH_RELEASING = 4 * 1024
/** What two ends of a connection keep: TCP's buffers grow as they are used, to 4 to 6 MiB on Linux, those of a Unix socket stay 208 KiB. */
const TCP_ROOM = 4 * 1024 * 1024
const UNIX_ROOM = 192 * 1024

export function createPump(source: Socket, destination: Socket, scanner: FrameScanner, hooks: PumpHooks): Pump {
  const { pacing } = hooks
  let bytes = 0
  let mode: 'forward' | 'discard' | 'drain' = 'forward'
  let full = false
  let held = false
  let paced = false
  let whenAtBoundary: (() => void) | undefined
  let whenFinished: (() => void) | undefined
  /** Bytes that are read although the destination is full. */
  let spare = 0
  /** TLS has encrypted what it was given by the time `write` returns, unless it is corked; a plain socket's write may go on with it later. */
  const copies = destination instanceof TLSSocket
  const writeNow = directWriter(destination)
  const reader = createChunkReader(source, onData)
  const side = bulkSide()
  /** What large writes hold, in their order. */
  const writing: (ChunkBlock | undefined)[] = []

  function write(part: Buffer): void {
    if (mode !== 'forward' || !destination.writable) return
    bytes += part.length
    const taken = writeNow(part)
    if (taken < part.length) writeByStream(taken === 0 ? part : part.subarray(taken))
  }

  function writeByStream(part: Buffer): void {
    const queued = destination.writableLength > 0
    const large = part.length >= WORTH_RELEASING
    if (!(large ? destination.write(part, onWritten) : destination.write(part))) full = true
    const block = waits(queued) ? holdChunk() : undefined
    if (large) writing.push(block)
  }

  /** What was written last is still to be read by somebody: by Node where it is queued, by the kernel where the socket is plain. */
  function waits(queued: boolean): boolean {
    return queued || (destination.writableLength > 0 && (!copies || destination.writableCorked > 0))
  }

  /** Written or failed: in both cases nobody needs it any more. */
  function onWritten(): void {
    const block = writing.shift()
    if (block !== undefined) releaseChunk(block)
  }

  function release(part: Buffer): void {
    if (part.length > 0) write(part)
    if (whenFinished === undefined || !scanner.atBoundary) return
    const then = whenFinished
    whenFinished = undefined
    spare = 0
    then()
  }

  /** A throw in a handler of events would end the process, and every session with it. */
  function onData(chunk: Buffer): void {
    if (mode === 'drain') return
    try {
      take(chunk)
    } catch (error) {
      mode = 'drain'
      hooks.onFailure(error)
    }
  }

  function take(chunk: Buffer): void {
    if (mode === 'forward') pacing.passed(side, chunk.length)
    hooks.beforeChunk()
    if (whenFinished !== undefined) spare -= chunk.length
    if (!scanner.scan(chunk, release, whenFinished !== undefined)) {
      mode = 'drain'
      hooks.onStop()
      return
    }
    if (whenAtBoundary !== undefined && scanner.atBoundary) {
      const then = whenAtBoundary
      whenAtBoundary = undefined
      then()
    }
    hooks.afterChunk()
    if (waitsForRoom() || held) source.pause()
  }

  function waitsForRoom(): boolean {
    return full && mode === 'forward' && spare <= 0
  }

  function goOn(): void {
    if (!waitsForRoom() && !held && !paced) source.resume()
  }

  function onDrain(): void {
    full = false
    goOn()
  }

  function bulkSide(): BulkSide {
    // A chunk of TLS is one record, 8 KiB long where libpq sends: they go on together.
    const corks = source instanceof TLSSocket
    return {
      room: source.remoteFamily === undefined ? UNIX_ROOM : TCP_ROOM,
      pause() {
        // Who discards or drains waits for nothing.
        if (mode !== 'forward') return
        paced = true
        source.pause()
      },
      resume() {
        paced = false
        goOn()
      },
      turnBegins() {
        if (corks) destination.cork()
      },
      turnEnds() {
        if (corks) destination.uncork()
      },
    }
  }

  return {
    bytes: () => bytes,
    start(first) {
      source.on('end', hooks.onEnd)
      destination.on('drain', onDrain)
      if (first.length > 0) onData(first)
      reader.start()
      if (full || held) source.pause()
      else source.resume()
    },
    inject: write,
    discard() {
      if (mode === 'forward') mode = 'discard'
      source.resume()
    },
    drain() {
      mode = 'drain'
      source.resume()
    },
    atBoundary(then) {
      if (scanner.atBoundary) then()
      else whenAtBoundary = then
    },
    finish(then) {
      if (scanner.atBoundary) return then()
      whenFinished = then
      spare = FINISH_BYTES
      source.resume()
    },
    hold() {
      held = true
    },
    release() {
      if (!held) return
      held = false
      goOn()
    },
    again() {
      // Nobody is there any more who wants an answer.
      if (source.destroyed) return
      held = false
      onData(NOTHING)
      if (!held) goOn()
    },
    detach() {
      pacing.stop()
      reader.stop()
      source.off('end', hooks.onEnd)
      destination.off('drain', onDrain)
    },
  }
}
