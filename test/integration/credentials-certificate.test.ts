import { X509Certificate } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { DatabaseConfig } from '../../src/config/schema.ts'
import { createMinter } from '../../src/credentials/create.ts'
import type { MintedCredential, Minter } from '../../src/credentials/minter.ts'
import { createCa, type TestCa } from '../support/certificates.ts'
import { grantOf, principalOf } from '../support/mint.ts'
import { type PostgresServer, postgresVersions, withClient } from '../support/postgres.ts'

/** Also what X.500 names, in one notation or another, give a meaning to. */
const NAMES = ['deployer', 'Quotes "and" ü', 'x "postgres"', 'a,CN=postgres', '#0c00', '\\41']

describe.each(postgresVersions())('client certificates on PostgreSQL $version', ({ start }) => {
  let directory: string
  let serverCa: TestCa
  let clientCa: TestCa
  let server: PostgresServer
  let minter: Minter

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'pgusher-test-'))
    serverCa = await createCa('servers')
    clientCa = await createCa('jobs')
    const tls = await serverCa.issue({ cn: 'localhost', dns: ['localhost'], ips: ['127.0.0.1'] })
    server = await start({
      tls: { ...tls, ca: clientCa.cert },
      hba: ['hostssl all +by_certificate all cert', 'hostnossl all all all reject'],
    })
    for (const [name, text] of Object.entries({
      'server-ca.crt': serverCa.cert,
      'ca.crt': clientCa.cert,
      'ca.key': clientCa.key,
    })) {
      await writeFile(join(directory, name), text)
    }
    await superuser(`CREATE ROLE by_certificate; 
      CREATE ROLE boss LOGIN SUPERUSER IN ROLE by_certificate; CREATE ROLE reader LOGIN IN ROLE by_certificate, pg_read_server_files; CREATE ROLE locked IN ROLE by_certificate`)
    for (const name of NAMES)
      await superuser(`CREATE ROLE "${name.replaceAll('"', '""')}" LOGIN IN ROLE by_certificate`)
    minter = createMinter(target(), { name: 'test', boot: 'one' })
  })
  afterAll(async () => {
    await minter?.close()
    await server?.stop()
    await rm(directory, { recursive: true })
  })

  const ssl = () => ({ ca: serverCa.cert })
  const superuser = (sql: string) =>
    withClient({ connectionString: server.superuserUrl, ssl: ssl() }, async (client) => (await client.query(sql)).rows)
  const target = (change: Partial<DatabaseConfig> = {}) => ({
    alias: 'shop-prod',
    dbname: 'postgres',
    config: {
      host: server.host,
      port: server.port,
      tls: { mode: 'verify-full', ca: join(directory, 'server-ca.crt') },
      connect_timeout: 5_000,
      audit: {},
      credentials: {
        kind: 'client-certificate',
        ca: { cert: join(directory, 'ca.crt'), key: join(directory, 'ca.key') },
        life: 300_000,
        linger: 0,
      },
      ...change,
    } satisfies DatabaseConfig,
  })
  const mint = (role: string, expiresAt = Date.now() + 3_600_000) =>
    minter.mint(principalOf('1'), grantOf({ role }), expiresAt)
  const pemOf = ({ secret }: MintedCredential) =>
    secret.type === 'certificate' ? { cert: secret.cert, key: secret.key } : undefined

  test.each(NAMES)('logs in as the role itself: %s', async (role) => {
    const credential = await mint(role)
    expect(credential).toMatchObject({ kind: 'client-certificate', login: role, assumeRole: undefined })
    const login = {
      host: server.host,
      port: server.port,
      database: 'postgres',
      user: role,
      ssl: { ...ssl(), ...pemOf(credential) },
    }
    const rows = await withClient(
      login,
      async (client) => (await client.query('SELECT session_user, current_user')).rows,
    )
    expect(rows).toEqual([{ session_user: role, current_user: role }])
    // One role's certificate is no other role's.
    await expect(withClient({ ...login, user: 'boss' }, async () => {})).rejects.toMatchObject({ code: '28000' })
    await minter.revoke(credential, 'job_ended')
    expect(await minter.sweep()).toEqual({ removed: [], failed: [] })
  })

  test('is for TLS clients only, lives for minutes, and never longer than asked for', async () => {
    const before = Date.now()
    const certificate = new X509Certificate(pemOf(await mint('deployer'))?.cert ?? '')
    expect(certificate.ca).toBe(false)
    // The field means extendedKeyUsage, by its OID: clientAuth.
    expect(certificate.keyUsage).toEqual(['1.3.6.1.5.5.7.3.2'])
    expect(certificate.subject).toBe('CN=deployer')
    expect(certificate.verify(new X509Certificate(clientCa.cert).publicKey)).toBe(true)
    expect(certificate.validFromDate.getTime()).toBeLessThanOrEqual(before - 59_000)
    expect(certificate.validToDate.getTime()).toBeLessThanOrEqual(Date.now() + 300_000)
    const short = await mint('deployer', before + 60_000)
    expect(short.validUntil).toBe(before + 60_000)
    expect(new X509Certificate(pemOf(short)?.cert ?? '').serialNumber).not.toBe(certificate.serialNumber)
  })

  test.each([
    ['boss', /SUPERUSER/],
    ['reader', /pg_read_server_files/],
    ['locked', /28000/],
    ['missing', /PostgreSQL asks for a password of "missing"/],
  ])('refuses role %s', async (role, reason) => {
    await expect(mint(role)).rejects.toMatchObject({
      code: 'credential_failed',
      message: expect.stringMatching(reason),
    })
    expect(await minter.check([role])).toEqual([expect.objectContaining({ level: 'error' })])
  })

  test('the check passes for a harmless role, and says what is wrong with a CA', async () => {
    expect(await minter.check(['deployer'])).toEqual([])
    const { config } = target()
    const wrongKey = {
      ...config.credentials,
      ca: { cert: join(directory, 'server-ca.crt'), key: join(directory, 'ca.key') },
    }
    const other = createMinter(target({ credentials: wrongKey }), { name: 'test', boot: 'one' })
    await expect(
      other.mint(principalOf('1'), grantOf({ role: 'deployer' }), Date.now() + 60_000),
    ).rejects.toMatchObject({
      code: 'credential_failed',
      message: 'the CA of database "shop-prod" cannot sign',
    })
    const [finding] = await other.check(['deployer'])
    expect(finding?.message).toContain('do not belong together')
  })

  test('an upstream whose certificate is not the configured one gets no login', async () => {
    const other = createMinter(target({ tls: { mode: 'verify-full', ca: join(directory, 'ca.crt') } }), {
      name: 'test',
      boot: 'one',
    })
    await expect(
      other.mint(principalOf('1'), grantOf({ role: 'deployer' }), Date.now() + 60_000),
    ).rejects.toMatchObject({ code: 'upstream_unreachable' })
    const renamed = createMinter(
      target({ tls: { mode: 'verify-full', ca: join(directory, 'server-ca.crt'), server_name: 'pg1.internal' } }),
      { name: 'test', boot: 'one' },
    )
    await expect(
      renamed.mint(principalOf('1'), grantOf({ role: 'deployer' }), Date.now() + 60_000),
    ).rejects.toMatchObject({ code: 'upstream_unreachable' })
  })
})
