import { expect, test } from 'vitest'
import { grantOf, minterOf, principalOf } from '../support/mint.ts'
import { startStage } from '../support/pgusher.ts'
import { eventually, setupShop, sharedPostgres, urlFor, withClient } from '../support/postgres.ts'

test('what a process before this one left, and what stands in the way of removing it, is on record', async () => {
  const server = await sharedPostgres()
  const shop = await setupShop(server)
  const dead = minterOf(server, shop, { boot: 'dead' })
  const past = Date.now() - 120_000
  const [easy, stuck] = [
    await dead.mint(principalOf('1'), grantOf(), past),
    await dead.mint(principalOf('2'), grantOf(), past),
  ]
  await dead.close()
  await withClient(urlFor(server.superuserUrl, { database: 'shop' }), async (superuser) => {
    // Before BEGIN: in a transaction pg_stat_activity stays as it was first seen.
    await eventually(async () => {
      const { rowCount } = await superuser.query(`SELECT FROM pg_stat_activity WHERE usename = 'pgusher_admin'`)
      return rowCount === 0
    })
    await superuser.query(`BEGIN; ALTER ROLE "${stuck.login}" CONNECTION LIMIT 3`)
    await using stage = await startStage({ upstream: { server, shop } })
    const credential = ({ pgusher }: { pgusher: Record<string, unknown> }) => pgusher['credential']
    const revoked = await stage.waitForEvent('credential.revoked')
    expect(credential(revoked)).toMatchObject({ kind: 'ephemeral-role', login: easy.login, reason: 'orphan' })
    expect(revoked.pgusher['db']).toEqual({ alias: 'shop-prod', login: easy.login })
    const failed = await stage.waitForEvent('credential.revoke_failed')
    expect(credential(failed)).toMatchObject({ login: stuck.login })
    await superuser.query('ROLLBACK')
    const next = minterOf(server, shop, { boot: 'next' })
    await eventually(async () => (await next.sweep()).failed.length === 0)
    await next.close()
  })
})
