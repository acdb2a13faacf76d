import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Minter } from '../../src/credentials/minter.ts'
import { bootTag } from '../../src/credentials/naming.ts'
import { grantOf, memberships, mintedRoles, minterOf, principalOf, urlOf } from '../support/mint.ts'
import type { MintAndDie } from '../support/mint-and-die.ts'
import {
  eventually,
  type PostgresServer,
  postgresVersions,
  query,
  type Shop,
  setupShop,
  urlFor,
  withClient,
} from '../support/postgres.ts'

const run = promisify(execFile)
const MINT_AND_DIE = fileURLToPath(new URL('../support/mint-and-die.ts', import.meta.url))

describe.each(postgresVersions())('the sweeper on PostgreSQL $version', ({ version, start }) => {
  let server: PostgresServer
  let shop: Shop
  let before: unknown[]
  /** The living process; its clock is moved by hand. */
  let minter: Minter
  let clock = 1_000_000

  beforeAll(async () => {
    server = await start()
    shop = await setupShop(server)
    before = await memberships(server)
    minter = minterOf(server, shop, { boot: 'living', now: () => clock })
  })
  afterEach(async () => {
    expect(await mintedRoles(server)).toEqual([])
    expect(await memberships(server)).toEqual(before)
  })
  afterAll(async () => {
    await minter?.close()
    await server?.stop()
  })

  const soon = () => Date.now() + 600_000
  const superuser = (sql: string) => query(urlFor(server.superuserUrl, { database: 'shop' }), sql)
  const asAdmin = (sql: string) => query(urlFor(server.superuserUrl, { ...shop.admin, database: 'shop' }), sql)
  const nothing = { removed: [], failed: [] }

  const madeBy = (boot: string, login: string) => {
    const made = { pgusher: 1, instance: 'test', boot: bootTag(boot), role: 'shop_migrator', rule: 'r' }
    const comment = JSON.stringify({ ...made, expires: '', issuer: '', subject: '' })
    return `CREATE ROLE ${login} LOGIN; COMMENT ON ROLE ${login} IS '${comment}'`
  }

  /** Sees what there is, and 25 s later takes away what then still has no maker. */
  async function sweepTwice() {
    const first = await minter.sweep()
    clock += 25_000
    const second = await minter.sweep()
    return { first, second }
  }
  const adminGone = () =>
    eventually(
      async () =>
        (
          await superuser(
            `SELECT FROM pg_stat_activity WHERE usename = 'pgusher_admin' AND application_name <> 'pgusher ${bootTag('living')}'`,
          )
        ).length === 0,
    )

  test.each(['begun', 'sent', 'committed', 'session'] as const)(
    'invariant 34: killed at "%s", a process leaves nothing',
    async (at) => {
      const argument: MintAndDie = { server, shop, boot: `killed ${at}`, at }
      const died = await run(process.execPath, [MINT_AND_DIE, JSON.stringify(argument)]).catch((error) => error)
      expect(died).toMatchObject({ signal: 'SIGKILL', stdout: expect.stringMatching(/^pgu_/), stderr: '' })
      await adminGone()
      // What was sent is done, whether anybody waits for the answer or not.
      const exists = at !== 'begun'
      const { first, second } = await sweepTwice()
      expect(first).toEqual(nothing)
      expect(second).toEqual({ removed: exists ? [died.stdout] : [], failed: [] })
      expect(await superuser(`SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'`)).toEqual([])
    },
  )

  test('the roles of a living process stay, however long it lives, and one that is gone longer than 20 s loses them', async () => {
    const other = minterOf(server, shop, { boot: 'other' })
    const credential = await other.mint(principalOf('1'), grantOf(), soon())
    for (let hour = 0; hour < 3; hour++) expect(await sweepTwice()).toEqual({ first: nothing, second: nothing })
    await other.close()
    await adminGone()
    expect(await minter.sweep()).toEqual(nothing)
    clock += 19_000
    expect(await minter.sweep()).toEqual(nothing)
    clock += 2_000
    expect(await minter.sweep()).toEqual({ removed: [credential.login], failed: [] })
  })

  test('a process that comes back within 20 s keeps its roles, and the count begins anew', async () => {
    const other = minterOf(server, shop, { boot: 'flapping' })
    const credential = await other.mint(principalOf('2'), grantOf(), soon())
    await superuser(
      `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'pgusher ${bootTag('flapping')}'`,
    )
    await minter.sweep()
    // It connects again by itself, without anybody asking it to mint.
    await eventually(
      async () =>
        (await superuser(`SELECT FROM pg_stat_activity WHERE application_name = 'pgusher ${bootTag('flapping')}'`))
          .length > 0,
    )
    clock += 25_000
    expect(await minter.sweep()).toEqual(nothing)
    await other.revoke(credential, 'job_ended')
    await other.close()
  })

  test('its own roles in use stay, also for another minter of the same process; what it lost track of goes at once', async () => {
    const second = minterOf(server, shop, { boot: 'living', now: () => clock })
    const credential = await minter.mint(principalOf('3'), grantOf(), soon())
    expect(await second.sweep()).toEqual(nothing)
    await second.close()
    await asAdmin(madeBy('living', 'pgu_aaaaaaaa_bbbbbbbb'))
    expect(await minter.sweep()).toEqual({ removed: ['pgu_aaaaaaaa_bbbbbbbb'], failed: [] })
    await minter.revoke(credential, 'job_ended')
  })

  test('an orphan past its end is removed on sight', async () => {
    const other = minterOf(server, shop, { boot: 'expired' })
    const { login } = await other.mint(principalOf('4'), grantOf(), Date.now() - 120_000)
    await other.close()
    await adminGone()
    expect(await minter.sweep()).toEqual({ removed: [login], failed: [] })
  })

  test('a role that pgusher did not make is left alone, whatever it is called', async () => {
    // As long as a made name, and with a comment that is none of ours.
    await asAdmin(
      `CREATE ROLE pgu_reports; CREATE ROLE pgu_payments_readonly LOGIN; CREATE ROLE pgu_cccccccc_dddddddd LOGIN;
       COMMENT ON ROLE pgu_cccccccc_dddddddd IS '{"pgusher":'`,
    )
    expect(await sweepTwice()).toEqual({ first: nothing, second: nothing })
    expect(await mintedRoles(server)).toEqual(['pgu_cccccccc_dddddddd', 'pgu_payments_readonly', 'pgu_reports'])
    await asAdmin('DROP ROLE pgu_reports, pgu_payments_readonly, pgu_cccccccc_dddddddd')
  })

  test('a job can neither keep an orphan alive nor hold the sweep up', async () => {
    const other = minterOf(server, shop, { boot: 'dead' })
    const { login } = await other.mint(principalOf('5'), grantOf(), soon())
    await other.close()
    await adminGone()
    const credential = await minter.mint(principalOf('6'), grantOf(), soon())
    await withClient(urlOf(server, credential), async (job) => {
      await job.query(`SET application_name = 'pgusher ${bootTag('dead')}'`)
      await job.query(`SELECT pg_advisory_lock(${0x70677573}, hashtext('pgu_'))`)
      expect((await sweepTwice()).second).toEqual({ removed: [login], failed: [] })
    })
    await minter.revoke(credential, 'job_ended')
  })

  test('while another replica sweeps, this one does not', async () => {
    const other = minterOf(server, shop, { boot: 'dead too' })
    const { login } = await other.mint(principalOf('7'), grantOf(), soon())
    await other.close()
    await adminGone()
    await withClient(urlFor(server.superuserUrl, { ...shop.admin, database: 'shop' }), async (replica) => {
      await replica.query(`SELECT pg_advisory_lock(${0x70677573}, hashtext('pgu_'))`)
      expect(await sweepTwice()).toEqual({ first: nothing, second: nothing })
    })
    await eventually(async () => (await minter.sweep()).removed.includes(login))
  })

  test('an orphan that the admin may not drop is reported, not hidden', async () => {
    await superuser(madeBy('nobody', 'pgu_eeeeeeee_ffffffff'))
    const { second } = await sweepTwice()
    // Up to 15 an admin with CREATEROLE drops whatever is no superuser.
    if (version >= 16) {
      const failure = { login: 'pgu_eeeeeeee_ffffffff', reason: expect.stringMatching(/permission denied/) }
      expect(second).toEqual({ removed: [], failed: [failure] })
      await superuser('DROP ROLE pgu_eeeeeeee_ffffffff')
    } else {
      expect(second).toEqual({ removed: ['pgu_eeeeeeee_ffffffff'], failed: [] })
    }
  })
})
