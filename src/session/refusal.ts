/** What a connection that does not become a session leaves behind: an event, a metric and a log line. */
import type { SessionIdentity } from '../audit/recorder.ts'
import { AccessError, asAccessError, type DenialCode } from '../errors.ts'
import type { ConnectionClosedError } from '../frontend/message-reader.ts'
import { denialEvent, type Stage } from './denial.ts'
import type { ProxyContext } from './proxy-context.ts'
import type { Timing } from './stopwatch.ts'

/** @throws AccessError while no new session may start. */
export function refuseNewSessions(proxy: ProxyContext): void {
  if (proxy.draining()) {
    throw new AccessError('draining', 'pgusher is shutting down', {
      hint: 'Connect again: another replica or its successor answers.',
    })
  }
  if (!proxy.recorder.accepting) {
    throw new AccessError('audit_unavailable', 'no session can start: the audit log cannot be written', {
      hint: 'The operator finds the reason in the log of pgusher and at /readyz.',
    })
  }
}

const maxEvent = (proxy: ProxyContext): number => proxy.current().config.audit.max_event

/** @param timing how long each step took that was done by then: a slow network and a missing permission are told apart by it */
export function recordDenial(
  proxy: ProxyContext,
  identity: SessionIdentity,
  error: AccessError,
  stage: Stage,
  denialId: string,
  timing?: Timing,
): void {
  proxy.metrics.denial(error.code)
  proxy.metrics.sessionEnded('denied', error.code)
  proxy.recorder.event(denialEvent(error, stage, denialId, maxEvent(proxy), timing), identity)
  const details = {
    session: identity.sessionId,
    client: identity.client.address,
    stage,
    code: error.code,
    denial: denialId,
  }
  const text = `refused: ${error.message}`
  if (error.code === 'internal_error') proxy.log.error({ ...details, err: error.cause }, text)
  else if (error.cause !== undefined) proxy.log.warn({ ...details, err: error.cause }, text)
  else proxy.log.info(details, text)
}

/**
 * A client that went away before it was a session. One that never sent a byte is a port check and leaves a metric only; libpq
 * goes away when it is asked for a password that it does not have.
 * @param deadline milliseconds, where it was we who hung up because it kept silent
 */
export function recordLostConnection(
  proxy: ProxyContext,
  identity: SessionIdentity,
  stage: Stage,
  lost: ConnectionClosedError,
  deadline: number | undefined,
): void {
  if (stage === 'handshake' && !lost.partial) {
    proxy.metrics.sessionEnded('failure', 'no_startup')
    return
  }
  const late = deadline === undefined ? undefined : silentUntil(deadline)
  const error =
    stage === 'authenticate' && !lost.partial
      ? new AccessError('token_missing', late ?? 'the client went away when it was asked for its token')
      : new AccessError('protocol_violation', late ?? lost.message)
  proxy.metrics.denial(error.code)
  proxy.metrics.sessionEnded('denied', error.code)
  proxy.recorder.event(denialEvent(error, stage, undefined, maxEvent(proxy)), identity)
}

function silentUntil(deadline: number): string {
  return `the client did not go on with its login within ${deadline / 1000} s (handshake_timeout)`
}

const LATE: Readonly<Partial<Record<Stage, DenialCode>>> = {
  verify: 'issuer_keys_unavailable',
  mint: 'credential_failed',
  upstream: 'upstream_unreachable',
}

/** What a failure means once the deadline of the login has passed. @param timeout milliseconds */
export function afterDeadline(stage: Stage, timeout: number, thrown: unknown): AccessError {
  const error = asAccessError(thrown)
  // The TLS handshake failed because we hung up, and not the other way round.
  if (stage === 'handshake') return new AccessError('protocol_violation', silentUntil(timeout), { cause: error })
  const code = LATE[stage]
  if (code === undefined) return error
  return new AccessError(code, `the login took longer than ${timeout / 1000} s: it got as far as "${stage}"`, {
    hint: 'Connect again; the operator finds the time of each step in the log and in pgusher_connect_seconds.',
    cause: error,
  })
}
