/** What the live check says of lines of pg_hba.conf, beside what PostgreSQL itself does with them: a login that pgusher minted comes in or not. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { MintedCredential, Minter } from '../../src/credentials/minter.ts'
import { grantOf, minterOf, principalOf, urlOf } from '../support/mint.ts'
import { eventually, type PostgresServer, postgresVersions, query, setupShop, urlFor } from '../support/postgres.ts'

const ROLES = ['shop_reader', 'shop_migrator'] as const
type Role = (typeof ROLES)[number]

describe.each(postgresVersions())('lines of pg_hba.conf on PostgreSQL $version', ({ version, start }) => {
  let server: PostgresServer
  let minter: Minter
  let credentials: Record<Role, MintedCredential>
  const expressions = version >= 16

  beforeAll(async () => {
    server = await start()
    const shop = await setupShop(server)
    minter = minterOf(server, shop)
    await query(
      urlFor(server.superuserUrl, { database: 'shop' }),
      'GRANT EXECUTE ON FUNCTION pg_hba_file_rules() TO pgusher_admin; GRANT SELECT ON pg_hba_file_rules TO pgusher_admin',
    )
    // Only shop_reader is in any of these, and in ci_logins through a role that inherits nothing.
    await query(
      server.superuserUrl,
      `CREATE ROLE ci_logins; CREATE ROLE jobs NOINHERIT; CREATE ROLE "Sales Jobs"; CREATE ROLE shop; CREATE ROLE strangers;
       GRANT jobs, "Sales Jobs", shop TO shop_reader; GRANT ci_logins TO jobs; ALTER ROLE shop_reader NOINHERIT;
       ALTER DATABASE shop OWNER TO shop_reader`,
    )
    const mint = (role: Role) => minter.mint(principalOf('1'), grantOf({ role }), Date.now() + 3_600_000)
    credentials = { shop_reader: await mint('shop_reader'), shop_migrator: await mint('shop_migrator') }
  })
  afterAll(async () => {
    await minter?.close()
    await server?.stop()
  })

  /** These are in force when it is over. Who is named in none of them is refused; the superuser and the admin are in all of them. */
  async function lines(...added: string[]): Promise<void> {
    const loadTime = 'SELECT pg_conf_load_time()::text AS at'
    const [before] = await query(server.superuserUrl, loadTime)
    const ours = ['postgres', 'pgusher_admin'].map((user) => `host all ${user} 127.0.0.1/32 scram-sha-256`)
    await writeFile(join(server.dataDir, 'pg_hba.conf'), [...ours, ...added, ''].join('\n'))
    await query(server.superuserUrl, 'SELECT pg_reload_conf()')
    // Whoever connects after one has said the new time is accepted by a postmaster that has read the file.
    await eventually(async () => (await query(server.superuserUrl, loadTime))[0]?.['at'] !== before?.['at'])
  }

  const comesIn = (role: Role): Promise<string> =>
    query(urlOf(server, credentials[role]), 'SELECT 1').then(
      () => 'in',
      ({ message }: Error) => (message.includes('pg_hba.conf') ? 'refused by pg_hba.conf' : message),
    )
  const told = async (...roles: string[]) =>
    (await minter.check(roles))
      .filter(({ message }) => message.includes('pg_hba.conf'))
      .map(({ subject, message, hint }) => [subject, message, hint])

  const fine = { check: 'silent', login: 'in' }
  const useless = { check: 'warns', login: 'refused by pg_hba.conf' }
  /** Nobody is kept out by it. */
  const open = { check: 'warns', login: 'in' }
  const both = (one: typeof fine) => ({ shop_reader: one, shop_migrator: one })
  const readerAlone = { shop_reader: fine, shop_migrator: useless }
  const newer = expressions ? both(fine) : both(useless)

  test.each<[string, Record<Role, typeof fine>]>([
    // By membership: of the granted role itself, and of what that is a member of, inherited or not.
    ['all +shop_reader', readerAlone],
    ['all +shop_reader,+shop_migrator', both(fine)],
    ['all +jobs', readerAlone],
    ['all +ci_logins', readerAlone],
    ['all +"Sales Jobs"', readerAlone],
    ['all +sales_jobs,+strangers,+nobody_of_that_name,+', both(useless)],
    ['all shop_reader,ci_logins,pgu_', both(useless)],
    // Who owns the database is in this one only once it is connected to it.
    ['all +pg_database_owner', both(useless)],
    // By an expression.
    ['all /^pgu_', newer],
    ['all /^pgu,+strangers', newer],
    ['all "/^(shop|pgu)_[a-z2-7]{8}_[a-z2-7]{8}$"', newer],
    ['all /^PGU_', both(useless)],
    ['all /pgu_$', both(useless)],
    ['all /^pgu_reports', both(useless)],
    // Everybody.
    ['all all', both(open)],
    ['all /^p', expressions ? both(open) : both(useless)],
    // The database counts as well.
    ['warehouse +shop_reader,/^pgu_', both(useless)],
    ['warehouse,shop +shop_reader', readerAlone],
    ['samerole +shop_reader,+shop_migrator', readerAlone],
    ['sameuser,replication +shop_reader', both(useless)],
    ['/^sh +shop_reader', expressions ? readerAlone : both(useless)],
    ['/^Sh +shop_reader', both(useless)],
  ])('%s', async (databaseAndUsers, expected) => {
    await lines(`host ${databaseAndUsers} 127.0.0.1/32 scram-sha-256`)
    for (const role of ROLES)
      expect({ check: (await told(role)).length === 0 ? 'silent' : 'warns', login: await comesIn(role) }, role).toEqual(
        expected[role],
      )
  })

  test('a role whose members are named and never let in, by any line', async () => {
    const reject = 'host all +shop_reader all reject'
    await lines(reject)
    const message =
      'no line of pg_hba.conf lets the members of role "shop_reader" into database "shop" with scram-sha-256'
    expect(await told('shop_reader')).toEqual([['database shop-prod, role shop_reader', message, expect.any(String)]])
    expect(await comesIn('shop_reader')).toBe('refused by pg_hba.conf')
    // pgusher gives its proof by SCRAM alone.
    await lines('host all +shop_reader 127.0.0.1/32 password', reject)
    expect(await told('shop_reader')).toEqual([['database shop-prod, role shop_reader', message, expect.any(String)]])
    await lines('host all all 127.0.0.1/32 scram-sha-256', reject)
    expect(await told('shop_reader')).toEqual([])
    expect(await comesIn('shop_reader')).toBe('in')
  })

  test('what is missing is told once where no role is named, and else for each; the advice is the narrowest line that there is', async () => {
    const prefix = `admit roles that begin with "pgu_" only from pgusher's addresses, and reject them from all others`
    const member = `admit +shop_migrator only from pgusher's addresses, and reject it from all others: before PostgreSQL 16 minted logins are named by the role that they are members of`
    await lines('host all +shop_reader 127.0.0.1/32 scram-sha-256')
    const missing = expressions
      ? ['no line of pg_hba.conf names the roles "pgu_…" or the members of role "shop_migrator"', prefix]
      : ['no line of pg_hba.conf names the members of role "shop_migrator"', member]
    expect(await told(...ROLES)).toEqual([['database shop-prod, role shop_migrator', ...missing]])
    const none = ['database shop-prod', 'no line of pg_hba.conf names the roles "pgu_…"', prefix]
    if (expressions) expect(await told('shop_migrator')).toEqual([none])
    expect(await told()).toEqual(expressions ? [none] : [])
    await lines()
    expect((await told(...ROLES)).map(([subject]) => subject)).toEqual(
      expressions
        ? ['database shop-prod']
        : ['database shop-prod, role shop_migrator', 'database shop-prod, role shop_reader'],
    )
  })

  test('nobody is told to let in the members of a role that jobs are not given, or that there is not', async () => {
    // The superuser's own name stands for the superuser, whom the other half of the advice would lock out.
    for (const file of ['readable', 'not readable']) {
      if (file === 'not readable') {
        const shop = urlFor(server.superuserUrl, { database: 'shop' })
        await query(shop, 'REVOKE SELECT ON pg_hba_file_rules FROM pgusher_admin')
      }
      const findings = await minter.check(['postgres', 'pg_write_server_files', 'shop_migratr', 'shop_migrator'])
      const advice = findings.flatMap(({ hint }) => (hint?.includes('addresses') ? [hint] : []))
      expect(advice, file).toEqual([
        expect.stringMatching(expressions ? /^admit roles that begin/ : /^admit \+shop_migrator only/),
      ])
    }
  })
})
