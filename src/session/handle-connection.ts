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
import { isLoginRefused } from '../upstream/failure.ts'
import { beforeDeadline } from './deadline.ts'
import { newDenialId, type Stage } from './denial.ts'
import { handleCancel } from './handle-cancel.ts'
import { admit, identify } from './identify.ts'
import { openUpstream } from './open-upstream.ts'
import type { ProxyContext } from './proxy-context.ts'
import { afterDeadline, recordDenial, recordLostConnection, refuseNewSessions } from './refusal.ts'
import { runSession } from './run-session.ts'
import { upstreamStartup } from './startup-parameters.ts'
import { noLongerAllowed } from './still-allowed.ts'
import { createStopwatch } from './stopwatch.ts'

/** Never rejects: whatever happens is told to the job, the audit and the log, once each. */
export async function handleConnection(socket: Socket, proxy: ProxyContext): Promise<void> {
  await using scope = new AsyncDisposableStack()
  const { config, policy, verifier, targets, secureContext, challenge } = proxy.current()
  const address = socket.remoteAddress ?? 'unix'
  const identity: SessionIdentity = { sessionId: randomUUID(), client: { address, port: socket.remotePort } }
  const watch = createStopwatch()
  const deadline = new AbortController()
  let stage: Stage = 'accept'
  let stream: Socket = socket
  let refuse = (error: AccessError, denialId: string): Promise<void> => sendError(stream, error, denialId)

  try {
    // One deadline covers everything up to ReadyForQuery. A client that keeps silent until then gets no answer.
    socket.setNoDelay(true).on('error', () => {})
    const timer = setTimeout(() => {
      deadline.abort()
      if (stage === 'handshake' || stage === 'authenticate') socket.destroy()
    }, config.listen.handshake_timeout)
    scope.defer(() => clearTimeout(timer))
    const leaveQueue = await proxy.admission.enter(address)
    scope.defer(leaveQueue)

    // TLS, and what the job asks for.
    stage = 'handshake'
    const hello = await handshake(socket, {
      secureContext: () => secureContext,
      plaintext: config.listen.plaintext,
      onSecure: (secured) => {
        stream = secured
      },
    })
    if (hello.kind === 'cancel') return await handleCancel(hello, identity, proxy)
    if (hello.kind === 'http') {
      clearTimeout(timer)
      return await proxy.http(hello.stream, { ...identity, tlsProtocol: hello.tlsProtocol })
    }
    watch.tlsSeconds = hello.tlsSeconds
    const { parameters, minor } = hello.startup
    const request = { user: parameters.get('user')!, database: parameters.get('database')! }
    if (hello.tlsProtocol !== undefined) identity.tlsProtocol = hello.tlsProtocol
    identity.db = { alias: request.database, role: request.user }
    refuseNewSessions(proxy)
    const { oauthbearer } = sanitiseStartup(parameters, { replicationAllowed: true })

    // Who is it?
    stage = 'authenticate'
    const presented = await requestToken(hello, { oauthbearer, challenge })
    refuse = (error, denialId) => presented.refuse(error, denialId)
    watch.split('authenticate')
    stage = 'verify'
    const identified = identify(presented.token, request.database, { proxy, verifier, identity })
    const { principal, ticket } = await beforeDeadline(identified, deadline.signal, () => {})
    identity.principal = principal
    leaveQueue()
    watch.split('verify')

    // May it?
    stage = 'decide'
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
    stage = 'mint'
    const lease = await beforeDeadline(proxy.leases.acquire(principal, grant), deadline.signal, (late) =>
      late.release(),
    )
    scope.defer(() => lease.release())
    const { credential } = lease
    watch.split('mint')

    // The upstream connection, as the minted login.
    stage = 'upstream'
    const target = targets.get(grant.database)!
    const upstream = await openUpstream({
      warm: proxy.warm,
      ...{ target, credential, grant, asked, signal: deadline.signal },
      startup: upstreamStartup(asked, principal, grant, credential.assumeRole, identity.sessionId),
      cancelTimeout: config.listen.handshake_timeout,
      onCancelFailure: (err) =>
        proxy.log.warn({ err, session: identity.sessionId }, 'a CancelRequest could not be passed on'),
    }).catch((error: unknown) => {
      if (isLoginRefused(error)) lease.discard()
      throw error
    })
    scope.defer(() => upstream.close())
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
    clearTimeout(timer)

    // Both ends stand: relay until one of them, the clock or the policy ends it.
    const clientRest = hello.reader.detach()
    const timing = watch.timing()
    const credentialKind = credential.kind
    await runSession({
      proxy,
      identity,
      principal,
      request,
      grant,
      matched,
      admission,
      credentialKind,
      timing,
      client: stream,
      clientRest,
      minor,
      upstream,
    })
  } catch (thrown) {
    const late = deadline.signal.aborted ? config.listen.handshake_timeout : undefined
    if (thrown instanceof ConnectionClosedError) return recordLostConnection(proxy, identity, stage, thrown, late)
    const error = late === undefined ? asAccessError(thrown) : afterDeadline(stage, late, thrown)
    const denialId = newDenialId()
    recordDenial(proxy, identity, error, stage, denialId, watch.timing())
    await refuse(error, denialId)
  } finally {
    stream.destroySoon()
    socket.destroySoon()
  }
}
