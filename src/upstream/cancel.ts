/** CancelRequest to an upstream, on a connection of its own. */
import type { Socket } from 'node:net'
import { cancelRequest } from '../wire/frontend.ts'
import { attempt } from './attempt.ts'
import type { Peer } from './failure.ts'
import { openTransport } from './transport.ts'

/**
 * Resolves when the upstream has closed the connection, that is, has sent the signal. Whether anything was running there is
 * not told. Nothing is sent where the upstream gave no key.
 * @param timeoutMs over everything.
 * @throws AccessError `upstream_unreachable`.
 */
export async function cancelUpstream(
  target: Peer,
  backendKey: { processId: number; secret: Buffer },
  timeoutMs: number,
): Promise<void> {
  if (backendKey.secret.length === 0) return
  await attempt(target, timeoutMs, undefined, async (state) => {
    const socket = await openTransport(state, target.config)
    state.stage = 'cancelling'
    socket.write(cancelRequest(backendKey.processId, backendKey.secret))
    // A reset after the request was read is a close as well, so errors count through `close` only.
    socket.resume()
    await closed(socket)
  })
}

/** An abort destroys the socket, so this always ends. */
function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.closed) resolve()
    else socket.once('close', () => resolve())
  })
}
