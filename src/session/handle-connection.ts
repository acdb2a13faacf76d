/**
 * The life of a connection, from accept to the last event. Read this first: each step is one call into a folder of its own, and
 * what a step acquires is given back when `scope` closes, last acquired first.
 */
import { randomUUID } from 'node:crypto'
import type { Socket } from 'node:net'
import type { SessionIdentity } from '../audit/recorder.ts'
import { type AccessError, asAccessError } from '../errors.ts'
import { requestToken } from '../frontend/authenticate.ts'
import { handshake } from '../frontend/handshake.ts'
import { ConnectionClosedError } from '../frontend/message-reader.ts'
import { sendError } from '../frontend/respond.ts'
import { sanitiseStartup } from '../frontend/sanitise-startup.ts'
import { evaluate } from '../policy/evaluate.ts'
import { ignoreSocketError } from '../upstream/connect.ts'
import { isLoginRefused } from '../upstream/failure.ts'
import { beforeDeadline } from './deadline.ts'
import { newDenialId, type Stage } from './denial.ts'
import { handleCancel } from './handle-cancel.ts'
import { admit, identify } from './identify.ts'
import { openUpstream } from './open-upstream.ts'
import type { ProxyContext } from './proxy-context.ts'
import { afterDeadline, recordDenial, recordLostConnection, refuseNewSessions } from './refusal.ts'
import { type RunningSession, startSession } from './run-session.ts'
import { upstreamStartup } from './startup-parameters.ts'
import { noLongerAllowed } from './still-allowed.ts'
import { createStopwatch, type Stopwatch } from './stopwatch.ts'

/** How far a connection has come, for whoever has to say why it came no further. */
interface Attempt {
  stage: Stage
  identity: SessionIdentity
  watch: Stopwatch
  /** What the job reads: the socket, or TLS on it. */
  stream: Socket
  /** Tells the job that it is refused, by the way of its mechanism once it has chosen one. Never rejects. */
  refuse(error: AccessError, denialId: string): Promise<void>
  /** Milliseconds of the deadline, once it has passed. */
  late: number | undefined
}

/** Never rejects: whatever happens is told to the job, the audit and the log, once each. */
export async function handleConnection(socket: Socket, proxy: ProxyContext): Promise<void> {
  await using scope = new AsyncDisposableStack()
  const attempt = startAttempt(socket)
  try {
    const session = await openSession(socket, attempt, proxy, scope)
    await session?.ended
  } catch (thrown) {
    const { identity, stage, late, watch } = attempt
    if (thrown instanceof ConnectionClosedError) return recordLostConnection(proxy, identity, stage, thrown, late)
    const error = late === undefined ? asAccessError(thrown) : afterDeadline(stage, late, thrown)
    const denialId = newDenialId()
    recordDenial(proxy, identity, error, stage, denialId, watch.timing())
    await attempt.refuse(error, denialId)
  } finally {
    attempt.stream.destroySoon()
    socket.destroySoon()
  }
}

function startAttempt(socket: Socket): Attempt {
  const { remoteAddress: address = 'unix', remotePort: port } = socket
  const attempt: Attempt = {
    stage: 'accept',
    identity: { sessionId: randomUUID(), client: { address, port } },
    watch: createStopwatch(),
    stream: socket,
    refuse: (error, denialId) => sendError(attempt.stream, error, denialId),
    late: undefined,
  }
  return attempt
}

/**
 * Everything up to ReadyForQuery. A function of its own, since what one keeps lives as long as it waits: a session that waited here
 * held its token, the decision's reasons and the handshake's readers, 7 KB, to its end.
 * @returns undefined where the connection was for something else, and is over
 */
async function openSession(
  socket: Socket,
  attempt: Attempt,
  proxy: ProxyContext,
  scope: AsyncDisposableStack,
): Promise<RunningSession | undefined> {
  const { config, policy, verifier, targets, secureContext, challenge } = proxy.current()
  const { identity, watch } = attempt
  const { address } = identity.client
  socket.setNoDelay(true).on('error', ignoreSocketError)
  const deadline = startDeadline(socket, attempt, config.listen.handshake_timeout)
  scope.defer(deadline.clear)
  const leaveQueue = await proxy.admission.enter(address)
  scope.defer(leaveQueue)

  // TLS, and what the job asks for.
  attempt.stage = 'handshake'
  const hello = await handshake(socket, {
    secureContext: () => secureContext,
    plaintext: config.listen.plaintext,
    onSecure: (secured) => {
      attempt.stream = secured
    },
  })
  if (hello.kind === 'cancel') {
    await handleCancel(hello, identity, proxy)
    return undefined
  }
  if (hello.kind === 'http') {
    deadline.clear()
    await proxy.http(hello.stream, { ...identity, tlsProtocol: hello.tlsProtocol })
    return undefined
  }
  watch.tlsSeconds = hello.tlsSeconds
  const { parameters, minor } = hello.startup
  const request = { user: parameters.get('user')!, database: parameters.get('database')! }
  if (hello.tlsProtocol !== undefined) identity.tlsProtocol = hello.tlsProtocol
  identity.db = { alias: request.database, role: request.user }
  refuseNewSessions(proxy)
  const { oauthbearer } = sanitiseStartup(parameters, { replicationAllowed: true })

  // Who is it?
  attempt.stage = 'authenticate'
  const presented = await requestToken(hello, { oauthbearer, challenge })
  attempt.refuse = presented.refuse
  watch.split('authenticate')
  attempt.stage = 'verify'
  const identified = identify(presented.token, request.database, { proxy, verifier, identity })
  const { principal, ticket } = await beforeDeadline(identified, deadline.signal, () => {})
  identity.principal = principal
  leaveQueue()
  watch.split('verify')

  // May it?
  attempt.stage = 'decide'
  const decision = evaluate(policy, principal, request, Date.now())
  if (!decision.allowed) throw decision.error
  const { grant, matched } = decision
  identity.rule = { name: grant.rule, ruleset: grant.ruleset, version: grant.policyVersion }
  const admission = await admit(
    { principal, ticket, grant, address, issuer: config.issuers[principal.issuerName]! },
    proxy,
  )
  const asked = sanitiseStartup(parameters, { replicationAllowed: grant.replication })
  scope.defer(proxy.admission.startSession())

  // With which credential? Parallel connections of one job share it.
  attempt.stage = 'mint'
  const lease = await beforeDeadline(proxy.leases.acquire(principal, grant), deadline.signal, (late) => late.release())
  scope.defer(lease.release)
  const { credential } = lease
  watch.split('mint')

  // The upstream connection, as the minted login.
  attempt.stage = 'upstream'
  const target = targets.get(grant.database)!
  const upstream = await openUpstream({
    warm: proxy.warm,
    ...{ target, credential, grant, asked, signal: deadline.signal },
    startup: upstreamStartup(asked, principal, grant, credential.assumeRole, identity.sessionId),
    cancelTimeout: config.listen.handshake_timeout,
    onCancelFailure: cancelFailure(proxy, identity.sessionId),
  }).catch((error: unknown) => {
    if (isLoginRefused(error)) lease.discard()
    throw error
  })
  scope.defer(upstream.close)
  lease.serve?.(upstream.connection.backendKey)
  const { host, port } = upstream.connection.address
  identity.db = {
    alias: grant.database,
    role: grant.role,
    login: credential.login,
    namespace: target.dbname,
    ...{ serverAddress: host, serverPort: port },
  }
  watch.split('upstream')
  refuseNewSessions(proxy)
  // A kill or a reload in the meantime did not find this session yet.
  proxy.bars.refuse(principal)
  const { policy: now } = proxy.current()
  const changed = now === policy ? undefined : noLongerAllowed(now, { principal, request, grant }, Date.now())
  if (changed !== undefined) throw changed
  deadline.clear()

  // Both ends stand: relay until one of them, the clock or the policy ends it.
  const clientRest = hello.reader.detach()
  const timing = watch.timing()
  const credentialKind = credential.kind
  return startSession({
    proxy,
    identity,
    principal,
    request,
    grant,
    matched,
    admission,
    credentialKind,
    timing,
    client: attempt.stream,
    clientRest,
    minor,
    upstream,
  })
}

/** One deadline covers everything up to ReadyForQuery. A client that keeps silent until then gets no answer. */
function startDeadline(socket: Socket, attempt: Attempt, milliseconds: number): { signal: AbortSignal; clear(): void } {
  const controller = new AbortController()
  const timer = setTimeout(() => {
    attempt.late = milliseconds
    controller.abort()
    if (attempt.stage === 'handshake' || attempt.stage === 'authenticate') socket.destroy()
  }, milliseconds)
  return { signal: controller.signal, clear: () => clearTimeout(timer) }
}

function cancelFailure({ log }: ProxyContext, session: string): (err: unknown) => void {
  return (err) => log.warn({ err, session }, 'a CancelRequest could not be passed on')
}
