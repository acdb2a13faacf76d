import { createServer, type Server } from 'node:net'
import { createSecureContext, type SecureVersion, TLSSocket, connect as tlsConnect } from 'node:tls'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { newTicketKeys, shareTickets, type TicketKeys } from '../../src/workers/tls-tickets.ts'
import { createCa } from '../support/certificates.ts'

let keys: TicketKeys = newTicketKeys()
let server: Server
let port = 0
let ca = ''
/** As many processes, each connection another one's. */
const CONTEXTS = 2
beforeAll(async () => {
  const authority = await createCa()
  ca = authority.cert
  const { cert, key } = await authority.issue({ cn: 'pgusher', dns: ['localhost'], ips: ['127.0.0.1'] })
  const contexts = Array.from({ length: CONTEXTS }, () => createSecureContext({ cert, key }))
  for (const context of contexts) shareTickets(context, () => keys)
  let accepted = 0
  server = createServer((socket) => {
    const secureContext = contexts[accepted++ % CONTEXTS]!
    const secured = new TLSSocket(socket, { isServer: true, secureContext })
    secured.on('error', () => {}).on('data', () => secured.end('bye'))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  port = (server.address() as { port: number }).port
})
afterAll(() => server.close())

function visit(version: SecureVersion, session?: Buffer): Promise<{ resumed: boolean; session: Buffer | undefined }> {
  return new Promise((resolve, reject) => {
    const options = { port, host: '127.0.0.1', servername: 'localhost', ca, maxVersion: version }
    const socket = tlsConnect({ ...options, ...(session && { session }) })
    let [resumed, made]: [boolean, Buffer | undefined] = [false, undefined]
    socket.on('session', (given: Buffer) => {
      made = given
    })
    socket.on('error', reject).on('secureConnect', () => {
      resumed = socket.isSessionReused()
      made ??= socket.getSession()
      socket.end('x')
    })
    socket.resume().once('close', () => resolve({ resumed, session: made }))
  })
}

const onEach = async (version: SecureVersion, session: Buffer | undefined): Promise<boolean[]> => {
  const results: boolean[] = []
  for (let i = 0; i < CONTEXTS; i++) results.push((await visit(version, session)).resumed)
  return results
}

test.each(['TLSv1.2', 'TLSv1.3'] as const)(
  '%s: a ticket is good everywhere, for its period and the one after it, and then costs a full handshake',
  async (version) => {
    const { session } = await visit(version)
    expect(session).toBeInstanceOf(Buffer)
    expect(await onEach(version, session)).toEqual([true, true])
    keys = newTicketKeys(keys)
    expect(await onEach(version, session)).toEqual([true, true])
    const { session: renewed } = await visit(version, session)
    keys = newTicketKeys(keys)
    // Also a key that nobody knows must end no process.
    expect(await onEach(version, session)).toEqual([false, false])
    expect(await onEach(version, renewed)).toEqual([true, true])
  },
)
