import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { MintedCredential, Minter } from '../../src/credentials/minter.ts'
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

describe.each(postgresVersions())('taking a login back on PostgreSQL $version', ({ version, start }) => {
  let server: PostgresServer
  let shop: Shop
  let minter: Minter
  let before: unknown[]

  beforeAll(async () => {
    server = await start()
    shop = await setupShop(server)
    before = await memberships(server)
    minter = minterOf(server, shop)
    // As every database up to 14 had it: a schema in which anybody may create something.
    for (const database of shop.databases) {
      await superuser('CREATE SCHEMA open; GRANT ALL ON SCHEMA open TO PUBLIC', database)
    }
  })
  afterEach(async () => {
    expect(await mintedRoles(server)).toEqual([])
    expect(await memberships(server)).toEqual(before)
  })
  afterAll(async () => {
    await minter?.close()
    await server?.stop()
  })

  const superuser = (sql: string, database = 'shop') => query(urlFor(server.superuserUrl, { database }), sql)
  const mint = (run: string, role = 'shop_migrator') =>
    minter.mint(principalOf(run), grantOf({ role }), Date.now() + 600_000)
  const asJob = (credential: MintedCredential, sql: string, database = 'shop') =>
    withClient(urlOf(server, credential, database), (client) => client.query(sql))

  test('what it owns in two databases goes to the group role, and nothing is lost', async () => {
    const credential = await mint('1')
    for (const database of shop.databases) {
      await asJob(
        credential,
        `SET ROLE NONE;
         CREATE TABLE open.mine AS SELECT 7 AS lucky;
         CREATE VIEW open.seen AS SELECT * FROM open.mine;
         CREATE FUNCTION open.who() RETURNS name LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user';
         CREATE TYPE open.mood AS ENUM ('well');
         SELECT lo_create(4711)`,
        database,
      )
    }
    await minter.revoke(credential, 'job_ended')
    for (const database of shop.databases) {
      expect(await superuser('SELECT lucky FROM open.seen', database)).toEqual([{ lucky: 7 }])
      // A SECURITY DEFINER function runs as the role that the job could assume, never as the admin.
      expect(await superuser('SELECT open.who()', database)).toEqual([{ who: 'shop_migrator' }])
      expect(
        await superuser(
          `SELECT relowner::regrole::text AS owner FROM pg_class WHERE relnamespace = 'open'::regnamespace
           UNION SELECT lomowner::regrole::text FROM pg_largeobject_metadata UNION SELECT typowner::regrole::text FROM pg_type WHERE typname = 'mood'`,
          database,
        ),
      ).toEqual([{ owner: 'shop_migrator' }])
      await superuser(
        'DROP VIEW open.seen; DROP TABLE open.mine; DROP FUNCTION open.who(); DROP TYPE open.mood; SELECT lo_unlink(4711)',
        database,
      )
    }
  })

  test('privileges, policies and default privileges for it go, those of others stay', async () => {
    const credential = await mint('2')
    for (const database of shop.databases) {
      await asJob(
        credential,
        `GRANT SELECT, INSERT ON public.orders TO "${credential.login}";
         GRANT UPDATE (item) ON public.orders TO "${credential.login}";
         ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO "${credential.login}";
         CREATE POLICY own ON public.orders TO "${credential.login}", shop_reader USING (true);
         SET ROLE NONE;
         ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO shop_reader;
         ALTER ROLE CURRENT_USER SET work_mem = '8MB'`,
        database,
      )
    }
    await minter.revoke(credential, 'job_ended')
    for (const database of shop.databases) {
      const [acl] = await superuser(
        `SELECT relacl::text AS acl FROM pg_class WHERE oid = 'public.orders'::regclass`,
        database,
      )
      // MAINTAIN came with 17.
      const owner = version >= 17 ? 'arwdDxtm' : 'arwdDxt'
      expect(acl).toEqual({ acl: `{shop_migrator=${owner}/shop_migrator,shop_reader=r/shop_migrator}` })
      expect(await superuser(`SELECT polroles::regrole[]::text AS roles FROM pg_policy`, database)).toEqual([
        { roles: '{shop_reader}' },
      ])
      await superuser('DROP POLICY own ON public.orders', database)
    }
  })

  test('another job that gives it something does not keep it alive', async () => {
    const credential = await mint('10')
    const other = await mint('11', 'shop_reader')
    await asJob(
      other,
      `SET ROLE NONE; CREATE TABLE open.bait (id int); GRANT SELECT ON open.bait TO "${credential.login}"`,
    )
    await superuser('CREATE TABLE open.shared (id int); ALTER TABLE open.shared OWNER TO shop_reader')
    await asJob(other, `GRANT SELECT ON open.shared TO "${credential.login}"`)
    await minter.revoke(other, 'job_ended')
    await minter.revoke(credential, 'job_ended')
    await superuser('DROP TABLE open.bait, open.shared')
  })

  test.each(['GRANT shop_owner TO pgusher_admin', 'ALTER ROLE pgusher_admin SUPERUSER'])(
    'what was passed on with a grant option goes, also after %s',
    async (change) => {
      await superuser(`
        CREATE ROLE shop_owner NOLOGIN;
        CREATE TABLE open.lent (id int, note text); ALTER TABLE open.lent OWNER TO shop_owner;
        SET ROLE shop_owner; GRANT SELECT ON open.lent TO shop_migrator, shop_reader WITH GRANT OPTION; RESET ROLE; ${change}`)
      try {
        const [own, other] = [await mint('13'), await mint('14', 'shop_reader')]
        for (const giver of [own, other]) {
          await asJob(giver, `GRANT SELECT ON open.lent TO "${own.login}", "${other.login}"`)
          await asJob(giver, `GRANT SELECT (note) ON open.lent TO "${own.login}"`)
        }
        await minter.revoke(own, 'job_ended')
        await minter.revoke(other, 'job_ended')
      } finally {
        await superuser('ALTER ROLE pgusher_admin NOSUPERUSER; DROP TABLE open.lent; DROP ROLE shop_owner')
      }
    },
  )

  test('open sessions are ended first, whatever they hold', async () => {
    const credential = await mint('3')
    await withClient(urlOf(server, credential), async (idle) => {
      await withClient(urlOf(server, credential, 'warehouse'), async (busy) => {
        await idle.query(
          'BEGIN; CREATE TABLE public.half_done (id int); SET LOCAL ROLE NONE; ALTER ROLE CURRENT_USER SET work_mem = 2048',
        )
        const sleeping = busy.query('SELECT pg_sleep(600)').catch((error) => error)
        await eventually(
          async () =>
            (
              await superuser(
                `SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' AND pid <> pg_backend_pid()`,
              )
            ).length > 0,
        )
        await minter.revoke(credential, 'job_ended')
        expect(await sleeping).toMatchObject({ code: '57P01' })
        await expect(idle.query('SELECT 1')).rejects.toThrow()
      })
    })
    expect(await superuser(`SELECT to_regclass('public.half_done') AS table`)).toEqual([{ table: null }])
  })

  test('its prepared transactions are rolled back, in each database', async () => {
    const credential = await mint('4')
    await asJob(credential, `SET ROLE NONE; BEGIN; CREATE TABLE open.never (id int); PREPARE TRANSACTION 'it''s mine'`)
    await asJob(
      credential,
      `SET ROLE NONE; BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'stolen'; PREPARE TRANSACTION 'two'`,
      'warehouse',
    )
    await minter.revoke(credential, 'job_ended')
    expect(await superuser('SELECT gid FROM pg_prepared_xacts')).toEqual([])
    expect(await superuser(`SELECT to_regclass('open.never') AS table`)).toEqual([{ table: null }])
  })

  test('a prepared transaction of the group role stays for the next job', async () => {
    const credential = await mint('5')
    await asJob(credential, `BEGIN; CREATE TABLE public.later (id int); PREPARE TRANSACTION 'later'`)
    await minter.revoke(credential, 'job_ended')
    const next = await mint('6')
    await asJob(next, `COMMIT PREPARED 'later'`)
    await asJob(next, 'DROP TABLE public.later')
    await minter.revoke(next, 'job_ended')
  })

  test('what stands in the way is named, the login stays locked, and a later try succeeds', async () => {
    const credential = await mint('7')
    await asJob(
      credential,
      `BEGIN; GRANT SELECT ON public.orders TO "${credential.login}"; PREPARE TRANSACTION 'in the way'`,
    )
    await expect(minter.revoke(credential, 'job_ended')).rejects.toThrow(
      /prepared transaction 'in the way' of role shop_migrator in database shop; COMMIT PREPARED or ROLLBACK PREPARED ends it/,
    )
    expect(await superuser(`SELECT rolcanlogin FROM pg_roles WHERE rolname = '${credential.login}'`)).toEqual([
      { rolcanlogin: false },
    ])
    await expect(asJob(credential, 'SELECT 1')).rejects.toMatchObject({ code: '28000' })
    await superuser(`ROLLBACK PREPARED 'in the way'`)
    expect(await minter.sweep()).toEqual({ removed: [credential.login], failed: [] })
  })

  test('invariant 32: a job cannot keep its LOGIN by preparing a change of its password as the group role', async () => {
    for (const database of shop.databases) {
      const credential = await mint(`15${database}`)
      await asJob(
        credential,
        `SET ROLE NONE; BEGIN; ALTER ROLE CURRENT_USER PASSWORD 'kept';
         SET ROLE shop_migrator; CREATE TABLE public.never (id int); PREPARE TRANSACTION 'kept'`,
        database,
      )
      await minter.revoke(credential, 'job_ended')
      expect(await superuser('SELECT gid FROM pg_prepared_xacts')).toEqual([])
    }
  })

  test('invariant 32: what it owns goes to nobody when the job may not assume the group role any more', async () => {
    const credential = await mint('8')
    await asJob(credential, 'SET ROLE NONE; CREATE TABLE open.orphaned (id int)')
    // As from 16 on every grant has its grantor, the grantor takes it back.
    await query(
      urlFor(server.superuserUrl, { ...shop.admin, database: 'shop' }),
      `REVOKE shop_migrator FROM "${credential.login}"`,
    )
    await expect(minter.revoke(credential, 'job_ended')).rejects.toThrow(
      'it owns objects in shop and may not assume the group role that they would go to',
    )
    await superuser('DROP TABLE open.orphaned')
    await minter.revoke(credential, 'job_ended')
  })

  test('invariant 32: a membership that the job passed to its login keeps nothing alive and gets nothing', async () => {
    // One that the admin may not hand out.
    await superuser('CREATE ROLE shop_guests; GRANT shop_guests TO shop_migrator WITH ADMIN OPTION')
    try {
      const credential = await mint('12')
      await asJob(
        credential,
        `GRANT shop_guests TO "${credential.login}"; GRANT SELECT ON public.orders TO "${credential.login}";
         SET ROLE NONE; CREATE TABLE open.left_over (id int)`,
      )
      await minter.revoke(credential, 'job_ended')
      expect(
        await superuser(`SELECT relowner::regrole::text AS owner FROM pg_class WHERE relname = 'left_over'`),
      ).toEqual([{ owner: 'shop_migrator' }])
      await superuser('DROP TABLE open.left_over')
    } finally {
      await superuser('DROP ROLE shop_guests')
    }
  })

  test('a reader leaves a large object behind, and it goes to the readers', async () => {
    const credential = await mint('9', 'shop_reader')
    await expect(asJob(credential, `INSERT INTO public.orders VALUES (9, 'gin')`)).rejects.toMatchObject({
      code: '42501',
    })
    await asJob(credential, 'SET ROLE NONE; SELECT lo_create(99)', 'warehouse')
    await minter.revoke(credential, 'job_ended')
    expect(
      await superuser('SELECT lomowner::regrole::text AS owner FROM pg_largeobject_metadata', 'warehouse'),
    ).toEqual([{ owner: 'shop_reader' }])
    await superuser('SELECT lo_unlink(99)', 'warehouse')
  })

  test('twenty logins with privileges on one table are taken back at once', async () => {
    const second = minterOf(server, shop, { boot: 'two' })
    try {
      const both = [minter, second]
      const credentials = await Promise.all(
        Array.from({ length: 20 }, (_, index) =>
          both[index % 2]!.mint(principalOf(`3${index}`), grantOf(), Date.now() + 600_000),
        ),
      )
      await superuser(credentials.map(({ login }) => `GRANT SELECT ON public.orders TO "${login}"`).join(';'))
      await Promise.all(credentials.map((credential, index) => both[index % 2]!.revoke(credential, 'job_ended')))
    } finally {
      await second.close()
    }
  })
})
