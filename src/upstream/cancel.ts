/** CancelRequest to an upstream, on a connection of its own. */
import type { Socket } from 'node:net'
import { attempt } from './attempt.ts'
import type { UpstreamTarget } from './failure.ts'
import { openTransport } from './transport.ts'

const CANCEL_REQUEST = 80_877_102

/** PostgreSQL's protocol documentation, CancelRequest: length, code, process id, key (4 bytes in 3.0, up to 256 in 3.2). */
function cancelRequest(processId: number, secret: Buffer): Buffer {
  const head = Buffer.alloc(12)
  head.writeInt32BE(head.length + secret.length, 0)
  head.writeInt32BE(CANCEL_REQUEST, 4)
  head.writeInt32BE(processId, 8)
  return Buffer.concat([head, secret])
}

/**
 * Resolves when the upstream has closed the connection, that is, has sent the signal. Whether anything was running there is
 * not told. Nothing is sent where the upstream gave no key.
 * @param timeoutMs over everything.
 * @throws AccessError `upstream_unreachable`.
 */
export async function cancelUpstream(
  target: UpstreamTarget,
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
