/** Two sockets as one connection. Nothing is read of what passes. */
import type { Socket } from 'node:net'
import { lastWords } from '../../frontend/respond.ts'

/**
 * Each direction ends by itself, so that a client that has sent its last byte still gets the answer; a reader that is slow stops
 * the writer. `clientRest` and `serverRest` were read before and go first.
 * @returns when both are closed; never rejects
 */
export async function join(client: Socket, clientRest: Buffer, server: Socket, serverRest: Buffer): Promise<void> {
  const closed = [client, server].map((socket) => whenClosed(socket))
  client.once('close', () => server.destroySoon())
  // Not by destroying: with bytes of the client unread that is a reset, and the server's last ErrorResponse would be lost on the way.
  server.once('close', () => void lastWords(client.unpipe(server), Buffer.alloc(0)))
  if (client.destroyed) server.destroySoon()
  if (clientRest.length > 0) server.write(clientRest)
  if (serverRest.length > 0) client.write(serverRest)
  client.pipe(server)
  server.pipe(client)
  await Promise.all(closed)
}

function whenClosed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.closed) resolve()
    else socket.once('close', () => resolve())
  })
}
