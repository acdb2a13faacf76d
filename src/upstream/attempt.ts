/** One attempt to reach an upstream: a deadline over everything, one place that destroys what was opened when it fails. */
import type { Socket } from 'node:net'
import { AccessError } from '../errors.ts'
import { addressText, explainFailure, type Peer, type Stage, unreachable } from './failure.ts'

/** Stays on a socket so that an error nobody waits for ends no process; the `close` event follows each error anyway. */
export function ignoreSocketError(): void {}

export interface Attempt {
  /** Aborted at the deadline or by the caller. */
  signal: AbortSignal
  stage: Stage
  /** From now on the socket is destroyed when the attempt fails or is aborted, whatever waits on it. */
  track(socket: Socket): void
}

/** What the caller's signal said, or that it gave up. */
export function abandoned(target: Peer, reason: unknown): AccessError {
  if (reason instanceof AccessError) return reason
  return unreachable(target, 'the attempt was given up', reason)
}

/**
 * Runs with a deadline in milliseconds; the timer and the listener on the caller's signal are gone afterwards.
 * @throws AccessError only; every tracked socket is destroyed then.
 */
export async function attempt<T>(
  target: Peer,
  timeout: number,
  signal: AbortSignal | undefined,
  run: (attempt: Attempt) => Promise<T>,
): Promise<T> {
  const sockets: Socket[] = []
  const controller = new AbortController()
  // A promise of its own: whatever `run` waits for need not notice that its socket is gone.
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const abort = (error: AccessError): void => {
    controller.abort(error)
    for (const socket of sockets) socket.destroy(error)
    reject(error)
  }
  const state: Attempt = {
    signal: controller.signal,
    stage: 'connecting',
    track(socket) {
      socket.on('error', ignoreSocketError)
      sockets.push(socket)
      if (controller.signal.aborted) socket.destroy(controller.signal.reason)
    },
  }
  const onAbort = (): void => abort(abandoned(target, signal?.reason))
  const timer = setTimeout(() => {
    const text = `no answer from ${addressText(target.config)} within ${timeout / 1000} s, while ${state.stage}`
    abort(unreachable(target, text, undefined))
  }, timeout)
  signal?.addEventListener('abort', onAbort)
  try {
    if (signal?.aborted) throw abandoned(target, signal.reason)
    const result = await Promise.race([aborted, run(state)])
    controller.signal.throwIfAborted()
    return result
  } catch (thrown) {
    for (const socket of sockets) socket.destroy()
    throw controller.signal.aborted ? controller.signal.reason : explainFailure(target, state.stage, thrown)
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
  }
}
