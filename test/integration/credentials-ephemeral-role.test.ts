import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { DatabaseConfig } from '../../src/config/schema.ts'
import { createMinter } from '../../src/credentials/create.ts'
import type { Minter } from '../../src/credentials/minter.ts'
import { createCa } from '../support/certificates.ts'
import { databaseOf, grantOf, memberships, mintedRoles, minterOf, principalOf, urlOf } from '../support/mint.ts'
import {
  type PostgresServer,
  postgresVersions,
  query,
  type Shop,
  setupShop,
  startPostgres,
  urlFor,
  withClient,
} from '../support/postgres.ts'

const soon = () => Date.now() + 600_000

describe.each(postgresVersions())('ephemeral roles on PostgreSQL $version', ({ version, start }) => {
  let server: PostgresServer
  let shop: Shop
  let minter: Minter
  let before: unknown[]
  const passwords: string[] = []

  beforeAll(async () => {
    server = await start({ settings: { log_statement: 'all', log_min_duration_statement: '0' } })
    shop = await setupShop(server)
    before = await memberships(server)
    minter = minterOf(server, shop)
  })
  afterAll(async () => {
    await minter?.close()
    await server?.stop()
  })

  async function mint(run: string, grant = grantOf()) {
    const credential = await minter.mint(principalOf(run), grant, soon())
    if (credential.secret.type === 'scram') passwords.push(credential.secret.password)
    return credential
  }
  const superuser = (sql: string, database = 'shop') => query(urlFor(server.superuserUrl, { database }), sql)

  test('invariant 29: one transaction makes the role, its one membership, its end and its record', async () => {
    const expiresAt = Date.now() + 600_000
    const credential = await minter.mint(principalOf('100'), grantOf({ maxConnections: 5 }), expiresAt)
    expect(credential).toMatchObject({ kind: 'ephemeral-role', assumeRole: 'shop_migrator', validUntil: expiresAt })
    expect(credential.login).toMatch(/^pgu_[a-z2-7]{8}_[a-z2-7]{8}$/)
    const [role] = await superuser(
      `SELECT rolcanlogin, rolinherit, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolconnlimit,
         extract(epoch from rolvaliduntil)::float8 * 1000 AS until, shobj_description(oid, 'pg_authid')::json AS comment
       FROM pg_roles WHERE rolname = '${credential.login}'`,
    )
    expect(role).toEqual({
      rolcanlogin: true,
      rolinherit: false,
      rolsuper: false,
      rolcreaterole: false,
      rolcreatedb: false,
      rolreplication: false,
      rolbypassrls: false,
      rolconnlimit: 17,
      until: expiresAt,
      comment: {
        pgusher: 1,
        instance: 'test',
        boot: expect.stringMatching(/^[0-9a-f]{16}$/),
        role: 'shop_migrator',
        rule: 'migrate-production',
        expires: new Date(expiresAt).toISOString(),
        provider: 'github-actions',
        issuer: 'https://token.actions.githubusercontent.com',
        subject: 'repo:acme/shop:ref:refs/heads/main',
        run: '100',
        url: 'https://github.com/acme/shop/actions/runs/100',
      },
    })
    const options = version >= 16 ? ', inherit_option, set_option' : ''
    expect(
      await superuser(
        `SELECT roleid::regrole::text AS role, admin_option${options} FROM pg_auth_members WHERE member = '${credential.login}'::regrole`,
      ),
    ).toEqual([
      {
        role: 'shop_migrator',
        admin_option: false,
        ...(version >= 16 ? { inherit_option: false, set_option: true } : {}),
      },
    ])
    await minter.revoke(credential, 'job_ended')
  })

  test('invariant 30: the login acts as the group role, comes back to it, and is nothing without it', async () => {
    const credential = await mint('101')
    await withClient(urlOf(server, credential), async (client) => {
      const who = async () => (await client.query('SELECT session_user AS login, current_user AS role')).rows[0]
      const expected = { login: credential.login, role: 'shop_migrator' }
      expect(await who()).toEqual(expected)
      for (const reset of ['RESET ROLE', 'SET SESSION AUTHORIZATION DEFAULT', 'DISCARD ALL']) {
        await client.query('SET ROLE NONE')
        await client.query(reset)
        expect(await who()).toEqual(expected)
      }
      await client.query('CREATE TABLE public.made_by_job (id int)')
      await client.query('SET ROLE NONE')
      await expect(client.query('SELECT * FROM public.orders')).rejects.toMatchObject({ code: '42501' })
      await expect(client.query('SELECT * FROM public.made_by_job')).rejects.toMatchObject({ code: '42501' })
      await expect(client.query('CREATE TABLE public.mine (id int)')).rejects.toMatchObject({ code: '42501' })
      await expect(client.query('CREATE SCHEMA mine')).rejects.toMatchObject({ code: '42501' })
      await expect(client.query('SET ROLE shop_reader')).rejects.toMatchObject({ code: '42501' })
      await expect(client.query('CREATE ROLE other')).rejects.toMatchObject({ code: '42501' })
    })
    await minter.revoke(credential, 'job_ended')
    const [made] = await superuser(
      `SELECT relowner::regrole::text AS owner FROM pg_class WHERE relname = 'made_by_job'`,
    )
    expect(made).toEqual({ owner: 'shop_migrator' })
    await superuser('DROP TABLE public.made_by_job')
  })

  test('a taken-back login is gone, and taking it back twice is no error', async () => {
    const credential = await mint('102')
    await minter.revoke(credential, 'job_ended')
    await minter.revoke(credential, 'job_ended')
    await expect(query(urlOf(server, credential), 'SELECT 1')).rejects.toMatchObject({ code: '28P01' })
    expect(await mintedRoles(server)).toEqual([])
  })

  test.each([
    ['can log in', 'ALTER ROLE risky LOGIN', /can log in/],
    ['is superuser', 'ALTER ROLE risky SUPERUSER', /SUPERUSER/],
    ['makes roles', 'ALTER ROLE risky CREATEROLE', /CREATEROLE/],
    ['bypasses row security', 'ALTER ROLE risky BYPASSRLS', /BYPASSRLS/],
    ['replicates', 'ALTER ROLE risky REPLICATION', /REPLICATION/],
    ['runs programs', 'GRANT pg_execute_server_program TO risky', /pg_execute_server_program/],
    ['reads files', 'GRANT pg_read_server_files TO risky', /pg_read_server_files/],
    [
      'writes files by way of another role',
      'CREATE ROLE between; GRANT pg_write_server_files TO between; GRANT between TO risky',
      /pg_write_server_files/,
    ],
    [
      'reaches a superuser',
      'CREATE ROLE boss SUPERUSER; GRANT boss TO risky',
      /SUPERUSER through its membership in "boss"/,
    ],
  ])('invariant 30: a group role that %s is refused', async (_what, change, reason) => {
    await superuser(`CREATE ROLE risky; GRANT risky TO pgusher_admin WITH ADMIN OPTION; ${change}`)
    try {
      await expect(minter.mint(principalOf('103'), grantOf({ role: 'risky' }), soon())).rejects.toMatchObject({
        code: 'credential_failed',
        message: expect.stringMatching(reason),
      })
      expect(await mintedRoles(server)).toEqual([])
    } finally {
      await superuser('DROP ROLE risky; DROP ROLE IF EXISTS between, boss')
    }
  })

  test('a role that is missing or that the admin may not grant is refused by name', async () => {
    await expect(mint('104', grantOf({ role: 'nobody_here' }))).rejects.toMatchObject({
      code: 'credential_failed',
      message: expect.stringContaining('role "nobody_here" does not exist'),
    })
    await superuser('CREATE ROLE foreign_group')
    // Up to 15 CREATEROLE grants whatever is no superuser.
    if (version >= 16) {
      await expect(mint('104', grantOf({ role: 'foreign_group' }))).rejects.toMatchObject({
        code: 'credential_failed',
        message: expect.stringContaining('foreign_group'),
      })
    }
    await superuser('DROP ROLE foreign_group')
    expect(await mintedRoles(server)).toEqual([])
  })

  test('replication is granted only where the admin has it to give', async () => {
    await expect(mint('105', grantOf({ replication: true }))).rejects.toMatchObject({
      code: 'credential_failed',
      message: /REPLICATION|replication/,
    })
    await superuser(version >= 16 ? 'ALTER ROLE pgusher_admin REPLICATION' : 'ALTER ROLE pgusher_admin SUPERUSER')
    const credential = await mint('105', grantOf({ replication: true }))
    expect(await superuser(`SELECT rolreplication FROM pg_roles WHERE rolname = '${credential.login}'`)).toEqual([
      { rolreplication: true },
    ])
    await minter.revoke(credential, 'job_ended')
    await superuser('ALTER ROLE pgusher_admin NOREPLICATION NOSUPERUSER')
  })

  test('invariant 4: a schema with functions and operators of somebody else does not reach the admin', async () => {
    await superuser(`
      CREATE SCHEMA evil;
      CREATE FUNCTION evil.boom(oid, oid) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil operator as %', current_user; END $$;
      CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.boom);
      CREATE FUNCTION evil.starts_with(text, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil function as %', current_user; END $$;
      GRANT USAGE ON SCHEMA evil TO PUBLIC;
      ALTER DATABASE shop SET search_path = evil, pg_catalog;
      ALTER ROLE pgusher_admin SET search_path = evil, pg_catalog`)
    const other = minterOf(server, shop, { boot: 'evil' })
    try {
      await expect(
        query(urlFor(server.superuserUrl, { ...shop.admin, database: 'shop' }), `SELECT 1 WHERE 1::oid = 1::oid`),
      ).rejects.toThrow(/evil/)
      const credential = await other.mint(principalOf('106'), grantOf(), soon())
      await other.sweep()
      expect((await other.check(['shop_migrator'])).filter(({ level }) => level === 'error')).toEqual([])
      await other.revoke(credential, 'job_ended')
    } finally {
      await other.close()
      await superuser(
        'ALTER DATABASE shop RESET search_path; ALTER ROLE pgusher_admin RESET search_path; SET search_path = pg_catalog; DROP SCHEMA evil CASCADE',
      )
    }
  })

  test('invariant 4: settings that a job gives its database do not reach the admin', async () => {
    await superuser('ALTER DATABASE shop OWNER TO shop_migrator')
    const credential = await mint('109')
    await withClient(urlOf(server, credential), (job) =>
      job.query(`
        ALTER DATABASE shop SET default_transaction_read_only = on;
        ALTER DATABASE shop SET default_transaction_isolation = serializable;
        ALTER DATABASE shop SET idle_session_timeout = '1ms';
        ALTER DATABASE shop SET statement_timeout = '1ms';
        ALTER DATABASE shop SET exit_on_error = on;
        ALTER DATABASE shop SET role = shop_migrator;
        ALTER DATABASE shop SET local_preload_libraries = 'not there'`),
    )
    const other = minterOf(server, shop, { boot: 'set' })
    try {
      const next = await other.mint(principalOf('110'), grantOf(), soon())
      await other.revoke(next, 'job_ended')
      await other.revoke(credential, 'job_ended')
      expect(await mintedRoles(server)).toEqual([])
    } finally {
      await other.close()
      const repair = 'ALTER DATABASE shop RESET ALL; ALTER DATABASE shop OWNER TO postgres'
      for (const sql of repair.split(';')) await query(server.superuserUrl, sql)
    }
  })

  test('invariant 33: fifty jobs at once have fifty logins, made and taken back beside each other', async () => {
    const jobs = Array.from({ length: 50 }, (_, index) => `2${index}`)
    const second = minterOf(server, shop, { boot: 'two' })
    try {
      const credentials = await Promise.all(
        jobs.map((run, index) => (index % 2 === 0 ? minter : second).mint(principalOf(run), grantOf(), soon())),
      )
      expect(new Set(credentials.map(({ login }) => login)).size).toBe(50)
      expect(await mintedRoles(server)).toHaveLength(50)
      await Promise.all(
        credentials.map((credential, index) => (index % 2 === 0 ? minter : second).revoke(credential, 'job_ended')),
      )
    } finally {
      await second.close()
    }
    expect(await mintedRoles(server)).toEqual([])
  })

  test('a broken admin connection is made again', async () => {
    const first = await mint('107')
    await superuser(`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'pgusher_admin'`)
    // The first use may still meet the broken one; nobody is told that it worked when it did not.
    const second = await mint('108').catch(() => mint('108'))
    await minter.revoke(first, 'job_ended').catch(() => minter.revoke(first, 'job_ended'))
    await minter.revoke(second, 'job_ended')
    expect(await mintedRoles(server)).toEqual([])
  })

  test('invariant 38: no log of the server shows a password, and nothing of the admin stays behind', async () => {
    const log = await readFile(server.logFile, 'utf8')
    const literals = [...log.matchAll(/PASSWORD\s+E?'([^']*)/gi)].map(([, literal]) => literal ?? '')
    const ours = literals.filter(
      (literal) => literal !== shop.admin.password && !literal.startsWith('SCRAM-SHA-256$1:'),
    )
    expect(literals.some((literal) => literal.startsWith('SCRAM-SHA-256$1:'))).toBe(true)
    expect(ours).toEqual([])
    expect(passwords.length).toBeGreaterThan(3)
    for (const password of passwords) expect(log).not.toContain(password)
    expect(await memberships(server)).toEqual(before)
  })
})

test('an upstream that is down, and an admin that is refused', async () => {
  const [newest] = postgresVersions()
  const server = await newest!.start()
  const shop = await setupShop(server)
  const wrong = minterOf(server, { ...shop, admin: { user: 'pgusher_admin', password: 'wrong' } })
  await expect(wrong.mint(principalOf('1'), grantOf(), soon())).rejects.toMatchObject({
    code: 'credential_failed',
    message: expect.stringMatching(/password authentication failed for user "pgusher_admin" \(28P01\)/),
  })
  await wrong.close()
  const minter = minterOf(server, shop)
  await server.stop()
  await expect(minter.mint(principalOf('1'), grantOf(), soon())).rejects.toMatchObject({
    code: 'upstream_unreachable',
    message: 'database "shop-prod" cannot be reached by pgusher',
  })
  await minter.close()
})

test('an upstream that accepts and says nothing is given up after connect_timeout', async () => {
  const silent = createServer(() => {})
  await new Promise<void>((listening) => silent.listen(0, '127.0.0.1', listening))
  const { port } = silent.address() as AddressInfo
  const admin = { user: 'pgusher_admin', password: 'x' }
  const config = { ...databaseOf({ host: '127.0.0.1', port }, { admin }), connect_timeout: 200 }
  const minter = createMinter({ alias: 'shop-prod', config, dbname: 'shop' }, { name: 'test', boot: 'silent' })
  await expect(minter.mint(principalOf('1'), grantOf(), soon())).rejects.toMatchObject({ code: 'upstream_unreachable' })
  await minter.close()
  silent.close()
})

test('TLS to PostgreSQL is verified, and the login is bound to its channel', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'pgusher-test-'))
  const ca = await createCa()
  const server = await startPostgres({
    tls: await ca.issue({ cn: 'localhost', dns: ['localhost'], ips: ['127.0.0.1'] }),
    hba: ['hostnossl all all all reject'],
  })
  try {
    const ssl = encodeURIComponent(join(directory, 'ca.crt'))
    await writeFile(join(directory, 'ca.crt'), ca.cert)
    const shop = await setupShop({
      ...server,
      superuserUrl: `${server.superuserUrl}?sslmode=verify-full&sslrootcert=${ssl}`,
    })
    const config = databaseOf(server, shop)
    const minterFor = (tls: Partial<DatabaseConfig['tls']>) => {
      const verified = { mode: 'verify-full' as const, ca: join(directory, 'ca.crt') }
      return createMinter(
        { alias: 'shop-prod', config: { ...config, tls: { ...verified, ...tls } }, dbname: 'shop' },
        { name: 'test', boot: 'tls' },
      )
    }
    for (const tls of [{}, { server_name: 'localhost' }, { mode: 'verify-ca' as const, server_name: 'elsewhere' }]) {
      const minter = minterFor(tls)
      const credential = await minter.mint(principalOf('1'), grantOf(), soon())
      await minter.revoke(credential, 'job_ended')
      await minter.close()
    }
    for (const tls of [{ server_name: 'elsewhere' }, { mode: 'disable' as const }]) {
      const minter = minterFor(tls)
      await expect(minter.mint(principalOf('1'), grantOf(), soon())).rejects.toMatchObject({
        code: expect.stringMatching(/upstream_unreachable|credential_failed/),
      })
      await minter.close()
    }
  } finally {
    await server.stop()
    await rm(directory, { recursive: true })
  }
})
