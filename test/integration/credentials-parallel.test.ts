/** Roles made and removed side by side by the admin's few connections, and what gets between: locks, logins under way, broken connections. */
import pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { MintedCredential, Minter } from '../../src/credentials/minter.ts'
import { startFaultProxy } from '../support/fault-proxy.ts'
import { grantOf, memberships, mintedRoles, minterOf, principalOf, urlOf } from '../support/mint.ts'
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

describe.each(postgresVersions())('beside each other on PostgreSQL $version', ({ start }) => {
  let server: PostgresServer
  let shop: Shop
  let minter: Minter
  let before: unknown[]

  beforeAll(async () => {
    server = await start()
    shop = await setupShop(server)
    before = await memberships(server)
    minter = minterOf(server, shop)
    await superuser('CREATE SCHEMA open; GRANT ALL ON SCHEMA open TO PUBLIC')
  })
  afterEach(async () => {
    expect(await mintedRoles(server)).toEqual([])
    expect(await memberships(server)).toEqual(before)
  })
  afterAll(async () => {
    await minter?.close()
    await server?.stop()
  })

  let runs = 0
  const superuser = <Row extends pg.QueryResultRow>(sql: string) =>
    query<Row>(urlFor(server.superuserUrl, { database: 'shop' }), sql)
  const mint = (by = minter): Promise<MintedCredential> =>
    by.mint(principalOf(String(++runs)), grantOf(), Date.now() + 600_000)
  const remove = (credential: MintedCredential, by = minter): Promise<void> => by.revoke(credential, 'job_ended')
  /** While somebody else holds what these statements lock. */
  const whileLocked = <T>(sql: string, work: () => Promise<T>): Promise<T> =>
    withClient(urlFor(server.superuserUrl, { database: 'shop' }), async (other) => {
      await other.query(`BEGIN; ${sql}`)
      try {
        return await work()
      } finally {
        await other.query('ROLLBACK')
      }
    })
  const waitsForLock = () =>
    eventually(async () => (await superuser(`SELECT FROM pg_locks WHERE NOT granted`)).length > 0)

  test('forty jobs at once take no more connections than the admin may have, and one that is refused further ones still works', async () => {
    const own = `SELECT count(*)::int AS open FROM pg_stat_activity WHERE usename = 'pgusher_admin'`
    const [resting] = await superuser<{ open: number }>(own)
    for (const limit of [-1, 2]) {
      // A backend whose client has closed counts until it has noticed.
      await eventually(async () => (await superuser<{ open: number }>(own))[0]!.open <= resting!.open)
      await superuser(`ALTER ROLE pgusher_admin CONNECTION LIMIT ${limit}`)
      const other = minterOf(server, shop, { boot: `limit ${limit}` })
      let most = 0
      let over = false
      const watch = async (): Promise<void> => {
        const sql = `SELECT count(*)::int AS open FROM pg_stat_activity WHERE usename = 'pgusher_admin' AND application_name LIKE 'pgusher %'`
        while (!over) most = Math.max(most, (await superuser<{ open: number }>(sql))[0]!.open)
      }
      const watching = watch()
      try {
        const jobs = Array.from({ length: 40 }, async () => remove(await mint(other), other))
        await Promise.all(jobs)
      } finally {
        over = true
        await watching
        await other.close()
        await superuser('ALTER ROLE pgusher_admin CONNECTION LIMIT -1')
      }
      expect(most).toBeLessThanOrEqual(4)
    }
  })

  /** Removals give up after a second or so, in which a machine that is busy may not have come to the mints: up to three tries. */
  async function onceInTime(attempt: () => Promise<boolean>): Promise<void> {
    for (let left = 3; left > 1; left--) if (await attempt()) return
    expect(await attempt()).toBe(true)
  }

  test('removals that somebody holds up delay no mint', async () => {
    await onceInTime(async () => {
      const credentials = await Promise.all(Array.from({ length: 3 }, () => mint()))
      const locks = credentials.map(({ login }) => `ALTER ROLE "${login}" CONNECTION LIMIT 1`).join('; ')
      let inTime = false
      await whileLocked(locks, async () => {
        const ended: string[] = []
        const removals = credentials.map((one) => remove(one).catch(() => ended.push('not removed')))
        await waitsForLock()
        const further = [await mint(), await mint(), await mint()]
        inTime = ended.length === 0
        await Promise.all(removals)
        expect(ended).toHaveLength(3)
        for (const one of further) await remove(one)
      })
      for (const one of credentials) await remove(one)
      return inTime
    })
  })

  test('nor does one that waits for an object and holds its group role meanwhile', async () => {
    await onceInTime(async () => {
      const owner = await mint()
      await withClient(urlOf(server, owner), (job) => job.query('SET ROLE NONE; CREATE TABLE open.mine (id int)'))
      let inTime = false
      await whileLocked('SELECT FROM open.mine', async () => {
        const ended: string[] = []
        const removal = remove(owner).catch(() => ended.push('not removed'))
        await waitsForLock()
        const further = [await mint(), await mint(), await mint()]
        inTime = ended.length === 0
        await removal
        for (const one of further) await remove(one)
      })
      await remove(owner)
      await superuser('DROP TABLE open.mine')
      return inTime
    })
  })

  /** @returns what becomes of a login that takes its time, and of its first query */
  function logIn(user: string, password: string, options: string): { answer: Promise<string>; end(): Promise<void> } {
    const connectionString = urlFor(server.superuserUrl, { user, password, database: 'shop' })
    const client = new pg.Client({ connectionString, options })
    client.on('error', () => {})
    const answer = client
      .connect()
      .then(() => client.query('SELECT count(*) FROM public.orders'))
      .then(
        () => 'in',
        (error: Error) => error.message,
      )
    return { answer, end: () => client.end().catch(() => {}) }
  }

  test('invariant 32: a session that is still logging in when its role is taken away does not outlive it, and one of somebody else does', async () => {
    await superuser(`CREATE ROLE bystander LOGIN PASSWORD 'x'; GRANT SELECT ON public.orders TO bystander`)
    const { login, secret, ...credential } = await mint()
    const password = secret.type === 'scram' ? secret.password : ''
    const own = logIn(login, password, '-c role=shop_migrator -c post_auth_delay=10')
    const other = logIn('bystander', 'x', '-c post_auth_delay=5')
    // They have read LOGIN, and are not in pg_stat_activity.
    const passed = `SELECT FROM pg_locks l WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass
      AND NOT EXISTS (SELECT FROM pg_stat_activity s WHERE s.pid = l.pid AND s.usesysid IS NOT NULL)`
    await eventually(async () => (await superuser(passed)).length === 2)
    await remove({ login, secret, ...credential })
    expect(await own.answer).toMatch(/terminat|connection error/)
    expect(await other.answer).toBe('in')
    await Promise.all([own.end(), other.end()])
    await superuser('DROP OWNED BY bystander; DROP ROLE bystander')
  })

  test('a mint whose backend is killed before it is done leaves nothing, and the next one works', async () => {
    await whileLocked('LOCK TABLE pg_auth_members IN SHARE MODE', async () => {
      let given = false
      const tried = (): Promise<string> => {
        given = false
        const refused = mint().then(
          () => 'minted',
          (error: Error) => error.message,
        )
        void refused.then(() => {
          given = true
        })
        return refused
      }
      let refused = tried()
      const waiting = `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation = 'pg_auth_members'::regclass`
      // It waits for a second, which may be over before somebody has looked.
      await eventually(async () => {
        if ((await superuser(waiting)).length > 0) return true
        if (given) refused = tried()
        return false
      })
      expect(await refused).toMatch(/cannot be reached by pgusher/)
      expect(await mintedRoles(server)).toEqual([])
    })
    await remove(await mint().catch(() => mint()))
  })

  test('a mint and a removal whose answer is lost are no error for good: the sweeper and the next try find what is there', async () => {
    await using proxy = await startFaultProxy(server)
    const far = minterOf({ host: '127.0.0.1', port: proxy.port }, shop, { boot: 'far' })
    try {
      const first = await mint(far)
      proxy.set('down', { stall: true })
      const lost = mint(far).catch((error: Error) => error.message)
      await eventually(async () => (await mintedRoles(server)).length === 2)
      proxy.resetAll()
      expect(await lost).toMatch(/cannot be reached by pgusher/)
      proxy.heal()
      const swept = await eventually(() => far.sweep().catch(() => undefined))
      expect(swept).toEqual({ removed: [expect.stringMatching(/^pgu_/)], failed: [] })
      expect(await mintedRoles(server)).toEqual([first.login])
      await remove(await mint(far), far)
      proxy.set('down', { stall: true })
      const removed = remove(first, far).catch((error: Error) => error.message)
      await eventually(
        async () =>
          (await superuser(`SELECT FROM pg_roles WHERE rolname = '${first.login}' AND rolcanlogin`)).length === 0,
      )
      proxy.resetAll()
      expect(await removed).toMatch(/ECONNRESET|terminated/)
      proxy.heal()
      await eventually(() =>
        remove(first, far).then(
          () => true,
          () => false,
        ),
      )
    } finally {
      proxy.heal()
      await far.close()
    }
  })
})
