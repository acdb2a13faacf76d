/** CancelRequest: find the session by our own key, cancel upstream, close without an answer. */
import type { SessionIdentity } from '../audit/recorder.ts'
import type { CancelHandshake } from '../frontend/handshake.ts'
import type { ProxyContext } from './proxy-context.ts'

export async function handleCancel(
  request: CancelHandshake,
  identity: SessionIdentity,
  proxy: ProxyContext,
): Promise<void> {
  const outcome = await proxy.cancel(identity.client.address, request)
  if (outcome !== 'cancelled') {
    const reason = outcome === 'unknown' ? 'cancel key unknown' : 'too many wrong cancel keys'
    proxy.recorder.event(
      { event: 'protocol.violation', outcome: 'denied', fields: { pgusher: { violation: { reason } } } },
      identity,
    )
  }
  request.stream.destroySoon()
}
