import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createMinter } from '../../src/credentials/create.ts'
import type { MintedCredential, Minter } from '../../src/credentials/minter.ts'
import { databaseOf, grantOf, principalOf } from '../support/mint.ts'
import { type PostgresServer, postgresVersions, query, type Shop, setupShop, urlFor } from '../support/postgres.ts'

describe.each(postgresVersions())('ephemeral roles on PostgreSQL $version', ({ version, start }) => {
  let server: PostgresServer
  let shop: Shop
  let minter: Minter

  beforeAll(async () => {
    server = await start({ settings: { log_statement: 'all' } })
    shop = await setupShop(server)
    minter = createMinter(
      { alias: 'shop-prod', config: databaseOf(server, shop), dbname: 'shop' },
      { name: 'test', boot: 'one' },
    )
  })
  afterAll(async () => {
    await minter?.close()
    await server?.stop()
  })

  function urlOf(credential: MintedCredential, database = 'shop'): string {
    const password = credential.secret.type === 'scram' ? credential.secret.password : ''
    const url = new URL(urlFor(server.superuserUrl, { user: credential.login, password, database }))
    if (credential.assumeRole !== undefined) url.searchParams.set('options', `-c role=${credential.assumeRole}`)
    return url.href
  }

  test('logs in, acts as the group role, and is gone afterwards', async () => {
    const credential = await minter.mint(principalOf('1'), grantOf(), Date.now() + 600_000)
    expect(credential.login).toMatch(/^pgu_[a-z2-7]{8}_[a-z2-7]{8}$/)
    expect(await query(urlOf(credential), 'SELECT session_user, current_user')).toEqual([
      { session_user: credential.login, current_user: 'shop_migrator' },
    ])
    await minter.revoke(credential, 'job_ended')
    await minter.revoke(credential, 'job_ended')
    expect(await query(server.superuserUrl, `SELECT rolname FROM pg_roles WHERE rolname LIKE 'pgu\\_%'`)).toEqual([])
    expect(version).toBeGreaterThanOrEqual(14)
  })
})
