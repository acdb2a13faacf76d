/**
 * One direction of a session: chunks from `source` go through the scanner to `destination`. A destination that does not take more
 * stops the source, so that a slow reader costs the two sockets' buffers and nothing else.
 */
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { FrameScanner } from '../wire/frame-scanner.ts'
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
  /** Holds the source back for a reason other than a full destination, until `release`. */
  hold(): void
  release(): void
  /** As `release`, for a scanner that kept something to itself: it is called with no bytes. */
  again(): void
  /** Removes all listeners; the sockets stay. */
  detach(): void
}

export interface PumpHooks {
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

export function createPump(source: Socket, destination: Socket, scanner: FrameScanner, hooks: PumpHooks): Pump {
  let bytes = 0
  let mode: 'forward' | 'discard' | 'drain' = 'forward'
  let full = false
  let held = false
  let whenAtBoundary: (() => void) | undefined
  let kept = false
  /** TLS has encrypted what it was given by the time `write` returns; a plain socket's write may go on with it later. */
  const copies = destination instanceof TLSSocket
  const writeNow = directWriter(destination)
  const reader = createChunkReader(source, { onChunk: onData, kept: () => kept })

  function write(part: Buffer): void {
    if (mode !== 'forward' || !destination.writable) return
    bytes += part.length
    const taken = writeNow(part)
    if (taken === part.length) return
    const queued = destination.writableLength > 0
    if (!destination.write(taken === 0 ? part : part.subarray(taken))) full = true
    if (queued || (!copies && destination.writableLength > 0)) kept = true
  }

  /** A throw in a handler of events would end the process, and every session with it. */
  function onData(chunk: Buffer): void {
    kept = false
    if (mode === 'drain') return
    try {
      take(chunk)
    } catch (error) {
      mode = 'drain'
      hooks.onFailure(error)
    }
  }

  function take(chunk: Buffer): void {
    hooks.beforeChunk()
    if (!scanner.scan(chunk, write)) {
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
    if ((full && mode === 'forward') || held) source.pause()
  }

  function onDrain(): void {
    full = false
    if (!held) source.resume()
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
    hold() {
      held = true
    },
    release() {
      if (!held) return
      held = false
      if (!full) source.resume()
    },
    again() {
      // Nobody is there any more who wants an answer.
      if (source.destroyed) return
      held = false
      onData(NOTHING)
      if (!held && !full) source.resume()
    },
    detach() {
      reader.stop()
      source.off('end', hooks.onEnd)
      destination.off('drain', onDrain)
    },
  }
}
