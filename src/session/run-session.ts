/** From ReadyForQuery to the last event of a session. */
import type { Socket } from 'node:net'
import type { SessionAudit, SessionIdentity } from '../audit/recorder.ts'
import { AccessError } from '../errors.ts'
import type { Principal } from '../identity/principal.ts'
import type { AccessRequest, Grant } from '../policy/types.ts'
import type { UpstreamConnection } from '../upstream/connect.ts'
import { authenticationOk, backendKeyData, parameterStatus, readyForQuery } from '../wire/backend.ts'
import type { AdmissionRecord } from './identify.ts'
import type { SessionUpstream } from './open-upstream.ts'
import type { ProxyContext } from './proxy-context.ts'
import type { LiveSession } from './registry.ts'
import { type Relay, type RelayEnd, startRelay } from './relay.ts'
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

export async function runSession(parts: SessionParts): Promise<void> {
  const { proxy, identity, grant, client } = parts
  const { connection, reused, handBack, cancel } = parts.upstream
  using scope = new DisposableStack()
  const audit = proxy.recorder.session(identity, grant.textMode)
  const startedAt = performance.now()
  const expiresAt = new Date(Date.now() + grant.maxSession)
  let relay: Relay | undefined
  const session = liveSession(parts, audit, () => relay)
  const cancelKey = proxy.cancelKeys.issue(session, parts.minor)
  scope.defer(cancelKey.forget)
  audit.event({
    event: 'session.started',
    outcome: 'success',
    fields: {
      pgusher: {
        session: { expires_at: expiresAt.toISOString() },
        decision: { matched: parts.matched },
        admission: parts.admission,
        credential: { kind: parts.credentialKind },
        timing: parts.timing,
        upstream: reused === undefined ? undefined : { reused },
      },
    },
  })
  client.write(greeting(connection, cancelKey))
  for (const [step, seconds] of stepsOf(parts.timing)) proxy.metrics.connectStep(step, seconds)
  relay = startRelay({
    client,
    clientRest: parts.clientRest,
    upstream: connection.socket,
    upstreamRest: connection.rest,
    clientEncoding: connection.parameterStatus.get('client_encoding') ?? 'UTF8',
    standardStrings: connection.parameterStatus.get('standard_conforming_strings'),
    grant,
    audit,
    recorder: proxy.recorder,
    onStatement: (outcome) => {
      proxy.metrics.statements(outcome === 'would_deny' ? 'denied' : outcome)
      if (outcome === 'denied') proxy.metrics.denial('statement_not_allowed')
    },
    ...{ cancel, handBack },
    onFailure: (err) => proxy.log.error({ err, session: identity.sessionId }, 'a session failed in an unexpected way'),
  })
  scope.defer(proxy.registry.add(session))
  const expiry = setTimeout(() => relay.end('expired', expired(grant)), Math.min(grant.maxSession, MAX_TIMER))
  scope.defer(() => clearTimeout(expiry))
  const end = await relay.ended
  scope.dispose()
  if (end.reason === 'protocol' && end.error !== undefined) {
    const reason = end.error.message.replace(/^(protocol violation|session ended): /, '')
    audit.event({
      event: 'protocol.violation',
      outcome: 'denied',
      fields: { pgusher: { violation: { reason, state: 'session' } } },
    })
  }
  audit.event({
    event: 'session.ended',
    outcome: end.error === undefined ? 'success' : 'failure',
    fields: endedFields(end, startedAt),
  })
  countSession(proxy, end)
}

function liveSession(parts: SessionParts, audit: SessionAudit, relay: () => Relay | undefined): LiveSession {
  const { identity, principal, request, grant, admission } = parts
  return {
    ...{ id: identity.sessionId, principal, request, grant, admission },
    address: identity.client.address,
    startedAt: Date.now(),
    get statements() {
      return relay()?.statements ?? 0
    },
    get busy() {
      return relay()?.busy ?? false
    },
    get ended() {
      return relay()?.ended ?? Promise.resolve()
    },
    record: (event) => audit.event(event),
    end: (reason, error) => relay()?.end(reason, error),
    async cancel() {
      audit.event({ event: 'session.cancel_requested', outcome: 'success' })
      await parts.upstream.cancel()
    },
  }
}

/** Of one upstream connection, for each of its sessions. */
const statusFrames = new WeakMap<ReadonlyMap<string, string>, Buffer>()

function statusesOf({ parameterStatus: statuses }: UpstreamConnection): Buffer {
  const known = statusFrames.get(statuses)
  if (known !== undefined) return known
  const frames = Buffer.concat([...statuses].map(([name, value]) => parameterStatus(name, value)))
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
