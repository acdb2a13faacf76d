/** The last words to a client that is refused. */
import type { Socket } from 'node:net'
import type { AccessError } from '../errors.ts'
import { errorResponse } from '../wire/backend.ts'

/** Milliseconds that a refused client has to read its error and close. */
const LINGER = 2_000
/** Bytes that a refused client may still send: a password, a pipelined query. More is somebody who does not listen. */
const LINGER_BYTES = 1024 * 1024

/** The frame that stands for a refusal. MESSAGE alone carries reason and denial id, since several drivers show nothing else. */
export function errorFrame(error: AccessError, denialId?: string, severity: 'FATAL' | 'ERROR' = 'FATAL'): Buffer {
  const { sqlstate, message, detail, hint } = error
  const suffix = denialId === undefined ? '' : ` [${denialId}]`
  return errorResponse({ severity, sqlstate, message: `${message}${suffix}`, detail, hint })
}

/**
 * Sends an ErrorResponse; after a FATAL one also ends the stream and reads on for a moment, because closing a socket that
 * holds unread bytes sends RST, and a client that gets RST never sees the error that came before it.
 * @param denialId `D-XXXXXX`, which the audit event has too
 * @returns when the stream is closed (FATAL) or the frame is handed to the kernel (ERROR); never rejects. A stream that is
 *   destroyed already is left alone.
 */
export function sendError(
  stream: Socket,
  error: AccessError,
  denialId?: string,
  severity: 'FATAL' | 'ERROR' = 'FATAL',
): Promise<void> {
  const frame = errorFrame(error, denialId, severity)
  if (severity === 'FATAL') return lastWords(stream, frame)
  if (stream.destroyed || !stream.writable) return Promise.resolve()
  return new Promise((resolve) => stream.write(frame, () => resolve()))
}

/** Writes `frame`, sends FIN and drops what arrives until the client closes as well, or time or bytes run out. Never rejects. */
export function lastWords(stream: Socket, frame: Buffer): Promise<void> {
  if (stream.destroyed) return Promise.resolve()
  const { promise, resolve } = Promise.withResolvers<void>()
  let dropped = 0
  const drop = () => {
    for (let chunk: Buffer | null = stream.read(); chunk !== null; chunk = stream.read()) dropped += chunk.length
    if (dropped > LINGER_BYTES) stream.destroy()
  }
  const timer = setTimeout(() => stream.destroy(), LINGER)
  stream.on('error', () => {})
  stream.on('readable', drop)
  stream.once('end', () => stream.destroySoon())
  stream.once('close', () => {
    clearTimeout(timer)
    resolve()
  })
  if (stream.writable) stream.end(frame)
  if (stream.readableEnded) stream.destroySoon()
  else drop()
  return promise
}
