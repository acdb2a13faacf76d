/** Two ends of a TCP connection in this process. */
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'

/** What one writes, the other is there to read. Errors are nobody's: a test that is over destroys its sockets. */
export async function pair(): Promise<[connected: Socket, accepted: Socket]> {
  const server = createServer({ allowHalfOpen: true })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as { port: number }
  const connection = once(server, 'connection') as Promise<[Socket]>
  const connected = connect(port, '127.0.0.1')
  const [[accepted]] = await Promise.all([connection, once(connected, 'connect')])
  server.close()
  for (const end of [connected, accepted]) end.on('error', () => {})
  return [connected, accepted]
}
