import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CredentialEvent, createLeases, type Leases } from '../../src/credentials/leases.ts'
import type { Minter } from '../../src/credentials/minter.ts'
import { grantOf, mintedRoles, minterOf, principalOf, urlOf } from '../support/mint.ts'
import { eventually, type PostgresServer, query, setupShop, sharedPostgres } from '../support/postgres.ts'

let server: PostgresServer
let minter: Minter
let leases: Leases
const events: CredentialEvent[] = []

beforeAll(async () => {
  server = await sharedPostgres()
  minter = minterOf(server, await setupShop(server))
  leases = createLeases({ minterFor: () => minter, onEvent: (event) => events.push(event) })
})
afterAll(async () => {
  await minter?.close()
})

const gone = () => eventually(async () => (await mintedRoles(server)).length === 0)

test('invariant 16: one job, many connections, one login; none of it is left afterwards', async () => {
  const grant = grantOf({ maxConnections: 20 })
  const held = await Promise.all(Array.from({ length: 20 }, () => leases.acquire(principalOf('1'), grant)))
  expect(await mintedRoles(server)).toEqual([held[0]?.credential.login])
  const sessions = await Promise.all(
    held.map(({ credential }) => query(urlOf(server, credential), 'SELECT session_user AS login')),
  )
  expect(new Set(sessions.flat().map(({ login }) => login)).size).toBe(1)
  for (const lease of held) lease.release()
  await gone()
  await eventually(async () => events.length === 2)
  expect(events.map(({ event }) => event)).toEqual(['credential.issued', 'credential.revoked'])
})

test('jobs that come and go at once leave nothing', async () => {
  await Promise.all(
    Array.from({ length: 40 }, async (_, index) => {
      const lease = await leases.acquire(principalOf(String(index % 10)), grantOf())
      await query(urlOf(server, lease.credential), 'SELECT 1')
      lease.release()
    }),
  )
  await gone()
})

test('the end takes back what is in use, with its sessions', async () => {
  const lease = await leases.acquire(principalOf('2'), grantOf())
  const running = query(urlOf(server, lease.credential), 'SELECT pg_sleep(600)').catch((error) => error.code)
  await eventually(
    async () =>
      (await query(server.superuserUrl, `SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'`)).length === 1,
  )
  expect(await leases.revokeAll('shutdown')).toEqual([])
  expect(await running).toBe('57P01')
  expect(await mintedRoles(server)).toEqual([])
})
