import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { adminFindings } from '../../src/credentials/check-admin.ts'
import type { Finding, Minter } from '../../src/credentials/minter.ts'
import { minterOf } from '../support/mint.ts'
import { type PostgresServer, postgresVersions, query, type Shop, setupShop, urlFor } from '../support/postgres.ts'

describe.each(postgresVersions())('the live check on PostgreSQL $version', ({ version, start }) => {
  let server: PostgresServer
  let shop: Shop
  let minter: Minter

  beforeAll(async () => {
    server = await start()
    shop = await setupShop(server)
    minter = minterOf(server, shop)
  })
  afterAll(async () => {
    await minter?.close()
    await server?.stop()
  })

  const superuser = (sql: string) => query(server.superuserUrl, sql)
  const told = (findings: Finding[]) => findings.map(({ level, message }) => `${level}: ${message}`)

  test('a well prepared server has no errors; what cannot be known is a warning', async () => {
    const findings = await minter.check(['shop_migrator', 'shop_reader'])
    expect(told(findings)).toEqual([
      ...(version < 16
        ? [
            expect.stringMatching(
              new RegExp(`^warning: PostgreSQL ${version} lets any role with CREATEROLE.*as dangerous as a superuser$`),
            ),
          ]
        : []),
      `warning: pg_hba.conf could not be read (pg_hba_file_rules is the superuser's)`,
    ])
    const admitted =
      version < 16 ? 'admit +shop_migrator and +shop_reader only' : 'admit roles that begin with "pgu_" only'
    expect(findings.at(-1)?.hint).toContain(admitted)
  })

  test('everything that is wrong is told at once, with what to do', async () => {
    await superuser(`CREATE ROLE risky BYPASSRLS; GRANT risky TO pgusher_admin WITH ADMIN OPTION;
      CREATE ROLE not_mine; GRANT pg_read_all_data TO shop_reader; CREATE ROLE pgu_reports;
      CREATE ROLE pgu_aaaaaaaa_bbbbbbbb; ALTER ROLE pgusher_admin NOCREATEROLE NOINHERIT`)
    const findings = await minter.check(['risky', 'not_mine', 'missing', 'shop_reader'])
    expect(told(findings)).toEqual(
      expect.arrayContaining([
        'error: admin "pgusher_admin" cannot make roles',
        'error: role "risky" is not given to jobs: it has BYPASSRLS',
        'error: admin "pgusher_admin" may not grant role "not_mine"',
        'error: role "missing" does not exist',
        expect.stringMatching(/^warning: role "shop_reader": it is a member of pg_read_all_data/),
        'warning: role "pgu_reports" begins with "pgu_" and was not made by pgusher',
        'warning: role "pgu_aaaaaaaa_bbbbbbbb" begins with "pgu_" and was not made by pgusher',
        ...(version < 16 ? [expect.stringMatching(/^error: admin "pgusher_admin" is NOINHERIT/)] : []),
      ]),
    )
    const hint = findings.find(({ message }) => message.includes('"not_mine"'))?.hint
    const options = version >= 16 ? 'WITH ADMIN TRUE, INHERIT FALSE, SET FALSE' : 'WITH ADMIN OPTION'
    expect(hint).toBe(`GRANT "not_mine" TO "pgusher_admin" ${options}`)
    await superuser(
      `${hint}; ALTER ROLE pgusher_admin CREATEROLE INHERIT; DROP ROLE risky, pgu_reports, pgu_aaaaaaaa_bbbbbbbb; REVOKE pg_read_all_data FROM shop_reader`,
    )
    expect((await minter.check(['not_mine'])).filter(({ level }) => level === 'error')).toEqual([])
    await superuser('DROP ROLE not_mine')
  })

  test('no hint hands the admin a role that reaches the server; it says only why the role is not given', async () => {
    const findings = await minter.check(['pg_write_server_files', 'postgres'])
    const errors = findings.filter(({ level }) => level === 'error')
    expect(errors.map(({ message }) => message)).toEqual([
      expect.stringMatching(/^role "pg_write_server_files" is not given to jobs: .* the server's operating system$/),
      'role "postgres" is not given to jobs: it can log in by itself',
      expect.stringMatching(/^role "postgres" is not given to jobs: it has SUPERUSER/),
    ])
    expect(findings.filter(({ hint }) => hint?.includes('GRANT'))).toEqual([])
  })

  test('a role that does not exist: make it, or write the name of the nearest group role', async () => {
    await superuser('CREATE ROLE shop_readr_login LOGIN; CREATE ROLE pgu_reade NOLOGIN')
    const hintFor = async (role: string) =>
      (await minter.check([role])).find(({ message }) => message === `role "${role}" does not exist`)?.hint
    const make = (role: string) => `make it, CREATE ROLE "${role}" NOLOGIN, or name another role in the rules`
    expect(await hintFor('shop_readr')).toBe(
      'did you mean "shop_reader"? Else make it: CREATE ROLE "shop_readr" NOLOGIN',
    )
    // Neither logins nor what begins with the prefix are for rules, and nobody can make a role whose name begins with pg_.
    expect(await hintFor('shop_readr_logim')).toBe(make('shop_readr_logim'))
    expect(await hintFor('pgu_reader')).toBe(make('pgu_reader'))
    expect(await hintFor('pg_monitr')).toBe(
      `name another role in the rules; names that begin with "pg_" are PostgreSQL's own`,
    )
    await superuser('DROP ROLE shop_readr_login, pgu_reade')
  })

  test('invariant 31: up to PostgreSQL 15 CREATEROLE gives itself the server, and the check says so; from 16 on it cannot', async () => {
    const { user, password } = shop.admin
    const grantItself = query(
      urlFor(server.superuserUrl, { user, password }),
      'GRANT pg_execute_server_program TO pgusher_admin',
    )
    const outcome = await grantItself.then(
      () => 'granted',
      ({ code }: { code: string }) => code,
    )
    expect(outcome).toBe(version < 16 ? 'granted' : '42501')
    await superuser('REVOKE pg_execute_server_program FROM pgusher_admin')
    const warned = told(await minter.check([])).some((text) => text.includes('is as dangerous as a superuser'))
    expect(warned).toBe(version < 16)
  })

  test('invariant 43: lines of pg_hba.conf for the prefix, from PostgreSQL 16 on, or for members of each granted role are looked for where they may be read', async () => {
    const readable =
      'GRANT EXECUTE ON FUNCTION pg_hba_file_rules() TO pgusher_admin; GRANT SELECT ON pg_hba_file_rules TO pgusher_admin'
    await query(urlFor(server.superuserUrl, { database: 'shop' }), readable)
    await superuser(`CREATE ROLE jobs; GRANT jobs TO shop_reader; CREATE ROLE "Sales Reader";
      GRANT "Sales Reader" TO pgusher_admin ${version >= 16 ? 'WITH ADMIN TRUE, INHERIT FALSE, SET FALSE' : 'WITH ADMIN OPTION'}`)
    // The view reads the file as it is now, loaded or not.
    const file = join(server.dataDir, 'pg_hba.conf')
    const ours = await readFile(file, 'utf8')
    const findings = async (users: string[], roles = ['shop_migrator', 'shop_reader']) => {
      const lines = users.map((user) => `hostssl all ${user} 10.0.0.7/32 scram-sha-256\nhost all ${user} all reject\n`)
      await writeFile(file, lines.join('') + ours)
      return (await minter.check(roles)).filter(({ message }) => message.includes('pg_hba.conf'))
    }
    if (version >= 16) {
      const hint = `admit roles that begin with "pgu_" only from pgusher's addresses, and reject them from all others`
      const message = 'no line of pg_hba.conf names the roles "pgu_…"'
      expect(await findings([])).toEqual([{ level: 'warning', subject: 'database shop-prod', message, hint }])
      expect(await findings(['/^pgu_'])).toEqual([])
      return
    }
    const unnamed = (role: string, word = `+${role}`): Finding => ({
      level: 'warning',
      subject: `database shop-prod, role ${role}`,
      message: `no line of pg_hba.conf names the members of role "${role}"`,
      hint: `admit ${word} only from pgusher's addresses, and reject it from all others: before PostgreSQL 16 minted logins are named by the role that they are members of`,
    })
    // An expression is the name of one role here, and a role's name does not stand for its members.
    expect(await findings(['/^pgu_', 'shop_reader'])).toEqual([unnamed('shop_migrator'), unnamed('shop_reader')])
    expect(await findings(['+shop_migrator'])).toEqual([unnamed('shop_reader')])
    expect(await findings(['+shop_migrator', '+shop_reader'])).toEqual([])
    expect(await findings(['+jobs'])).toEqual([unnamed('shop_migrator')])
    expect(await findings([], ['Sales Reader'])).toEqual([unnamed('Sales Reader', '+"Sales Reader"')])
    expect(await findings(['+"Sales Reader"'], ['Sales Reader'])).toEqual([])
    expect(await findings([], [])).toEqual([])
  })

  test('a superuser as admin, and one that cannot log in', async () => {
    const password = new URL(server.superuserUrl).password
    const asSuperuser = minterOf(server, { ...shop, admin: { user: 'postgres', password } })
    expect(told(await asSuperuser.check(['shop_migrator']))).toContain('warning: admin "postgres" is a superuser')
    await asSuperuser.close()
    const wrong = minterOf(server, { ...shop, admin: { user: 'pgusher_admin', password: 'wrong' } })
    expect(told(await wrong.check(['shop_migrator']))).toEqual([
      expect.stringMatching(/^error: .*password authentication failed/),
    ])
    await wrong.close()
  })
})

test.each([14, 15, 16, 18])('invariant 31: what is said of an admin with CREATEROLE on PostgreSQL %i', (major) => {
  const facts = { version: major * 10_000, superuser: false, createrole: true, inherit: true }
  const [warning, ...more] = adminFindings(facts, 'database shop-prod', 'pgusher_admin')
  expect(more).toEqual([])
  if (major >= 16) expect(warning).toBeUndefined()
  else {
    expect(warning).toMatchObject({ level: 'warning', hint: expect.stringContaining('client-certificate') })
    expect(warning?.message).toContain('as dangerous as a superuser')
  }
})
