/** Two ends of a connection in this process. */
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

let paths = 0

/** What one writes, the other is there to read. Errors are nobody's: a test that is over destroys its sockets. */
export async function pair(kind: 'tcp' | 'unix' = 'tcp'): Promise<[connected: Socket, accepted: Socket]> {
  const server = createServer({ allowHalfOpen: true })
  if (kind === 'unix') server.listen(join(tmpdir(), `pgusher-pair-${process.pid}-${paths++}.sock`))
  else server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const connection = once(server, 'connection') as Promise<[Socket]>
  const connected = typeof address === 'string' ? connect(address) : connect(address?.port ?? 0, '127.0.0.1')
  const [[accepted]] = await Promise.all([connection, once(connected, 'connect')])
  server.close()
  for (const end of [connected, accepted]) end.on('error', () => {})
  return [connected, accepted]
}
