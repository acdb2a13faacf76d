/** From ReadyForQuery to the last event of a session. */
import type { Socket } from 'node:net'
import type { AuditEvent, SessionAudit, SessionIdentity } from '../audit/recorder.ts'
import { AccessError } from '../errors.ts'
import type { Principal } from '../identity/principal.ts'
import type { AccessRequest, Grant } from '../policy/types.ts'
import type { UpstreamConnection } from '../upstream/connect.ts'
import { authenticationOk, backendKeyData, parameterStatus, readyForQuery } from '../wire/backend.ts'
import { ownBytes } from '../wire/own-bytes.ts'
import type { AdmissionRecord } from './identify.ts'
import type { SessionUpstream } from './open-upstream.ts'
import type { ProxyContext } from './proxy-context.ts'
import type { LiveSession } from './registry.ts'
import { type Relay, type RelayEnd, type RelayOptions, startRelay } from './relay.ts'
import type { EndReason } from './session-ending.ts'
import { stepsOf, type Timing } from './stopwatch.ts'

/** The longest delay that a timer of Node takes. */
const MAX_TIMER = 0x7fffffff

export interface SessionParts {
  proxy: ProxyContext
  identity: SessionIdentity
  principal: Principal
  request: AccessRequest
  grant: Grant
  /** Names of the rules that matched. */
  matched: readonly string[]
  admission: AdmissionRecord
  credentialKind: string
  timing: Timing
  client: Socket
  clientRest: Buffer
  /** Minor version of the protocol. */
  minor: number
  upstream: SessionUpstream
}

export interface RunningSession {
  /** Resolves when the session is over and its last event recorded. */
  ended: Promise<void>
}

/** Not an async function: what one has in hand lives until it returns, and a session waits for hours. */
export function startSession(parts: SessionParts): RunningSession {
  const { proxy, identity, grant, client } = parts
  const { connection, handBack, cancel } = parts.upstream
  const scope = new DisposableStack()
  try {
    const audit = proxy.recorder.session(identity, grant.textMode)
    const session = new Session(parts, audit)
    const cancelKey = proxy.cancelKeys.issue(session, parts.minor)
    scope.defer(cancelKey.forget)
    audit.event(startedEvent(parts))
    client.write(greeting(connection, cancelKey))
    for (const [step, seconds] of stepsOf(parts.timing)) proxy.metrics.connectStep(step, seconds)
    const relay = startRelay({
      client,
      clientRest: parts.clientRest,
      upstream: connection.socket,
      upstreamRest: connection.rest,
      clientEncoding: connection.parameterStatus.get('client_encoding') ?? 'UTF8',
      standardStrings: connection.parameterStatus.get('standard_conforming_strings'),
      grant,
      audit,
      recorder: proxy.recorder,
      ...reports(proxy, identity.sessionId),
      ...{ cancel, handBack },
    })
    session.relay = relay
    scope.defer(proxy.registry.add(session))
    const expiry = setTimeout(() => relay.end('expired', expired(grant)), Math.min(grant.maxSession, MAX_TIMER))
    scope.defer(() => clearTimeout(expiry))
    return { ended: relay.ended.then((end) => recordEnd(end, session, scope, proxy)) }
  } catch (error) {
    scope.dispose()
    throw error
  }
}

function startedEvent({ grant, matched, admission, credentialKind, timing, upstream }: SessionParts): AuditEvent {
  const { reused } = upstream
  return {
    event: 'session.started',
    outcome: 'success',
    fields: {
      pgusher: {
        session: { expires_at: new Date(Date.now() + grant.maxSession).toISOString() },
        decision: { matched },
        admission,
        credential: { kind: credentialKind },
        timing,
        upstream: reused === undefined ? undefined : { reused },
      },
    },
  }
}

/** What of the relay goes to metrics and log. */
function reports({ metrics, log }: ProxyContext, session: string): Pick<RelayOptions, 'onStatement' | 'onFailure'> {
  return {
    onStatement(outcome) {
      metrics.statements(outcome === 'would_deny' ? 'denied' : outcome)
      if (outcome === 'denied') metrics.denial('statement_not_allowed')
    },
    onFailure: (err) => log.error({ err, session }, 'a session failed in an unexpected way'),
  }
}

function recordEnd(end: RelayEnd, session: Session, scope: DisposableStack, proxy: ProxyContext): void {
  scope.dispose()
  if (end.reason === 'protocol' && end.error !== undefined) {
    const reason = end.error.message.replace(/^(protocol violation|session ended): /, '')
    session.record({
      event: 'protocol.violation',
      outcome: 'denied',
      fields: { pgusher: { violation: { reason, state: 'session' } } },
    })
  }
  session.record({
    event: 'session.ended',
    outcome: end.error === undefined ? 'success' : 'failure',
    fields: endedFields(end, session.began),
  })
  countSession(proxy, end)
}

/** A class: of literals with getters each is a dictionary of its own, 1.4 KB of it. */
class Session implements LiveSession {
  readonly id: string
  readonly principal: Principal
  readonly request: AccessRequest
  readonly grant: Grant
  readonly admission: AdmissionRecord
  readonly address: string
  readonly startedAt = Date.now()
  /** `performance.now()` */
  readonly began = performance.now()
  relay: Relay | undefined
  readonly #audit: SessionAudit
  readonly #cancel: () => Promise<void>

  constructor({ identity, principal, request, grant, admission, upstream }: SessionParts, audit: SessionAudit) {
    this.id = identity.sessionId
    this.principal = principal
    this.request = request
    this.grant = grant
    this.admission = admission
    this.address = identity.client.address
    this.#audit = audit
    this.#cancel = upstream.cancel
  }

  get statements(): number {
    return this.relay?.statements() ?? 0
  }

  get busy(): boolean {
    return this.relay?.busy() ?? false
  }

  get ended(): Promise<unknown> {
    return this.relay?.ended ?? Promise.resolve()
  }

  record(event: AuditEvent): void {
    this.#audit.event(event)
  }

  end(reason: EndReason, error: AccessError): void {
    this.relay?.end(reason, error)
  }

  async cancel(): Promise<void> {
    this.record({ event: 'session.cancel_requested', outcome: 'success' })
    await this.#cancel()
  }
}

/** Of one upstream connection, for each of its sessions. */
const statusFrames = new WeakMap<ReadonlyMap<string, string>, Buffer>()

function statusesOf({ parameterStatus: statuses }: UpstreamConnection): Buffer {
  const known = statusFrames.get(statuses)
  if (known !== undefined) return known
  const frames = ownBytes(Buffer.concat([...statuses].map(([name, value]) => parameterStatus(name, value))))
  statusFrames.set(statuses, frames)
  return frames
}

function greeting(upstream: UpstreamConnection, cancelKey: { processId: number; key: Buffer }): Buffer {
  return Buffer.concat([
    authenticationOk(),
    statusesOf(upstream),
    backendKeyData(cancelKey.processId, cancelKey.key),
    ...upstream.notices,
    readyForQuery('I'),
  ])
}

function expired(grant: Grant): AccessError {
  const minutes = grant.maxSession / 60_000
  const length = minutes >= 1 ? `${Math.round(minutes * 10) / 10} min` : `${grant.maxSession / 1000} s`
  return new AccessError('session_expired', `session ended: rule "${grant.rule}" allows ${length} (max_session)`, {
    hint: 'Connect again with a fresh token, or ask the operator for a longer max_session.',
  })
}

function endedFields(end: RelayEnd, startedAt: number): Record<string, unknown> {
  const { statements, errors, rows, ddl, bytesFromClient, bytesToClient } = end.totals
  return {
    pgusher: {
      duration_s: Math.round((performance.now() - startedAt) * 1000) / 1e6,
      end_reason: end.reason,
      end_message: end.error?.message,
      totals: { statements, errors, rows, ddl, request_bytes: bytesFromClient, response_bytes: bytesToClient },
    },
    db: end.error === undefined ? undefined : { response: { status_code: end.error.sqlstate } },
  }
}

function countSession(proxy: ProxyContext, end: RelayEnd): void {
  proxy.metrics.sessionEnded(end.error === undefined ? 'success' : 'failure', end.reason)
  proxy.metrics.bytes('in', end.totals.bytesFromClient)
  proxy.metrics.bytes('out', end.totals.bytesToClient)
}
