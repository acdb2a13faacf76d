/** Handshakes that stop at every point where one can, two hundred of each: a job that does nothing wrong does not notice. */
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { sslRequest } from '../../src/wire/frontend.ts'
import { readMetrics } from '../support/nothing-left.ts'
import { eventually } from '../support/postgres.ts'
import { dial, query, type RawClient, rawSession, secure, startupOf, terminate } from '../support/raw-client.ts'
import { startWatchedStage, type WatchedStage } from '../support/watched-stage.ts'

const COUNT = 200
/** Logins of which the median counts. */
const LOGINS = 5
/** Milliseconds: where others use the machine, a login of 20 ms takes now and then some hundred more, and one that waits takes 60 s. */
const FLOOR = 250
/** A machine that is busy at the wrong moment gets another try. */
const ROUNDS = 3

let watched: WatchedStage
/** Keeps the job's role, so that no login is measured that has to mint one. */
let held: RawClient
beforeAll(async () => {
  watched = await startWatchedStage({
    listen: { handshake_timeout: '60s', max_unauthenticated_per_address: 2 * COUNT },
  })
  held = await rawSession(watched.stage, { token: await watched.stage.token() })
})
afterAll(() => watched[Symbol.asyncDispose]())

async function asked(): Promise<Socket> {
  const socket = await dial(watched.stage)
  socket.write(sslRequest())
  await once(socket, 'readable')
  expect(socket.read(1)).toEqual(Buffer.from('S'))
  return socket
}

/** The header of a record of 512 bytes and of the ClientHello in it, with nothing behind them. */
const CLIENT_HELLO = Buffer.from([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])

const STALLS: Readonly<Record<string, () => Promise<Socket>>> = {
  'before the first byte': () => dial(watched.stage),
  'after 4 bytes': async () => sent(await dial(watched.stage), sslRequest().subarray(0, 4)),
  'after 7 bytes': async () => sent(await dial(watched.stage), sslRequest().subarray(0, 7)),
  'after the answer to SSLRequest': asked,
  'in the ClientHello': async () => sent(await asked(), CLIENT_HELLO),
  'in the ClientHello of direct TLS': async () => sent(await dial(watched.stage), CLIENT_HELLO),
  async 'in the password'() {
    const secured = await secure(watched.stage, await asked())
    secured.write(startupOf({ token: '' }))
    await once(secured, 'readable')
    // The header of a password of a kilobyte, and its beginning.
    return sent(secured, Buffer.from('p\0\0\x04\0eyJ', 'latin1'))
  },
}

function sent<S extends Socket>(socket: S, bytes: Buffer): S {
  socket.write(bytes)
  return socket
}

const stalledNow = async (): Promise<number> =>
  (await readMetrics(watched.stage.pgusher.httpAddress)).get('pgusher_unauthenticated_connections') ?? 0

/** Milliseconds that a login with its first answer takes. */
async function median(token: string): Promise<number> {
  const times: number[] = []
  while (times.length < LOGINS) {
    const at = performance.now()
    const client = await rawSession(watched.stage, { token })
    expect(await client.ask(query('select 1'))).toContain('D 1')
    times.push(performance.now() - at)
    client.send(terminate)
    await client.rest()
  }
  return times.toSorted((a, b) => a - b)[Math.floor(LOGINS / 2)]!
}

async function stalled(count: number): Promise<void> {
  await eventually(async () => (await stalledNow()) === count, 20_000)
}

/** Milliseconds of a login without them and with them. */
async function compared(name: string, token: string): Promise<{ usual: number; crowded: number }> {
  const usual = await median(token)
  const sockets = await Promise.all(Array.from({ length: COUNT }, STALLS[name]!))
  await stalled(COUNT)
  const crowded = await median(token)
  // They were there to the end.
  expect(await stalledNow()).toBe(COUNT)
  for (const socket of sockets) socket.destroy()
  await stalled(0)
  return { usual, crowded }
}

test.each(Object.keys(STALLS))(
  'invariant 8: two hundred handshakes that stop %s: a login takes less than twice its usual time',
  async (name) => {
    const token = await watched.stage.token()
    for (let round = 1; ; round++) {
      const { usual, crowded } = await compared(name, token)
      if (crowded < Math.max(FLOOR, 2 * usual)) break
      if (round === ROUNDS) expect(crowded).toBeLessThan(2 * usual)
    }
  },
)

test('nothing is left of them, and each that had said something has its event', async () => {
  held.send(terminate)
  await held.rest()
  await watched.nothingLeft()
})
