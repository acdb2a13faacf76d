/** A thousand jobs' connections at the same moment, on real parts. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { passwordMessage } from '../../src/wire/frontend.ts'
import { type Job, RULES, type Stage, startStage } from '../support/pgusher.ts'
import { approach, shown, startupOf, terminate } from '../support/raw-client.ts'

const CONNECTIONS = 1_000
const JOBS = 20
const PER_JOB = 2

let stage: Stage
beforeAll(async () => {
  stage = await startStage({
    // In the clear, on loopback: the clients' TLS would cost this process more than all that is looked at.
    listen: {
      plaintext: 'allow',
      handshake_timeout: '60s',
      max_unauthenticated: 5_000,
      max_unauthenticated_per_address: 5_000,
    },
    rules: [{ ...RULES[0]!, allow: { database: 'shop-prod', role: 'shop_migrator', max_connections: PER_JOB } }],
  })
})
afterAll(() => stage.close())

/** How a connection ended: `Z I` for a session, the error's beginning otherwise. */
async function connect(job: Job): Promise<{ outcome: string; close(): void }> {
  const client = await approach(stage, 'none')
  client.send(startupOf(job), passwordMessage(job.token))
  for (;;) {
    const message = await client.next()
    if (message.type !== 'E' && message.type !== 'Z') continue
    const outcome = shown(message).slice(0, 7)
    const close = (): void => {
      client.send(terminate)
      client.finish()
      client[Symbol.dispose]()
    }
    return { outcome, close }
  }
}

test('invariant 40: a thousand connections at once are let in or told 53300 within 15 s, with one key fetch', async () => {
  const tokens = await Promise.all(
    Array.from({ length: JOBS }, (_, job) => stage.token('github', { run_id: String(18_700_100_000 + job) })),
  )
  const fetched = stage.issuer.requests.github.jwks
  const at = performance.now()
  const all = await Promise.all(
    Array.from({ length: CONNECTIONS }, (_, index) => connect({ token: tokens[index % JOBS] ?? '' })),
  )
  expect(performance.now() - at).toBeLessThan(15_000)
  const served = all.filter(({ outcome }) => outcome === 'Z I')
  expect(served).toHaveLength(JOBS * PER_JOB)
  expect(new Set(all.map(({ outcome }) => outcome))).toEqual(new Set(['Z I', 'E 53300']))
  expect(stage.issuer.requests.github.jwks - fetched).toBeLessThanOrEqual(1)
  for (const { close } of all) close()
  // Each is on record: who was served, and who was not.
  await stage.waitForEvent(({ event, pgusher }) => event === 'session.ended' && pgusher.seq > CONNECTIONS)
  const denied = await stage.events('session.denied')
  expect(denied).toHaveLength(CONNECTIONS - served.length)
  await stage.waitForNoRoles()
})
