/** CancelRequest: find the session by our own key, cancel upstream, close without an answer. */
import type { SessionIdentity } from '../audit/recorder.ts'
import type { CancelHandshake } from '../frontend/handshake.ts'
import type { ProxyContext } from './proxy-context.ts'

export async function handleCancel(
  request: CancelHandshake,
  identity: SessionIdentity,
  proxy: ProxyContext,
): Promise<void> {
  const found = proxy.cancelKeys.find(identity.client.address, request)
  if ('session' in found) await found.session.cancel()
  else {
    proxy.recorder.event(
      {
        event: 'protocol.violation',
        outcome: 'denied',
        fields: {
          pgusher: {
            violation: { reason: found.refused === 'unknown' ? 'cancel key unknown' : 'too many wrong cancel keys' },
          },
        },
      },
      identity,
    )
  }
  request.stream.destroySoon()
}
