/** Logins at a real PostgreSQL with TLS, as the minted credentials of a job. */
import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { serialize } from 'pg-protocol'
import { DataRowMessage } from 'pg-protocol/dist/messages.js'
import { Parser } from 'pg-protocol/dist/parser.js'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { DatabaseConfig } from '../../src/config/schema.ts'
import type { MintedCredential } from '../../src/credentials/minter.ts'
import { deriveScramKeys, formatVerifier } from '../../src/sasl/scram.ts'
import { cancelUpstream } from '../../src/upstream/cancel.ts'
import { connectUpstream, type UpstreamConnection } from '../../src/upstream/connect.ts'
import { createCa, type TestCa } from '../support/certificates.ts'
import { eventually, type PostgresServer, postgresVersions, query, setupShop, withClient } from '../support/postgres.ts'
import { causes } from './refusal.ts'
import { databaseConfig, scramCredential } from './scripted-upstream.ts'

/** Rows of a simple Query on the bare socket; ends with ReadyForQuery. */
function simpleQuery({ socket }: UpstreamConnection, sql: string): Promise<string[][]> {
  return new Promise((resolve, reject) => {
    const rows: string[][] = []
    const parser = new Parser()
    const onData = (chunk: Buffer): void => {
      parser.parse(chunk, (message) => {
        if (message instanceof DataRowMessage) rows.push(message.fields)
        if (message.name === 'error') reject(message)
        if (message.name !== 'readyForQuery') return
        socket.off('data', onData).pause()
        resolve(rows)
      })
    }
    socket.on('data', onData).on('close', () => reject(new Error('closed')))
    socket.resume().write(serialize.query(sql))
  })
}

describe.each(postgresVersions())('PostgreSQL $version', ({ start }) => {
  let server: PostgresServer
  let ca: TestCa
  let directory: string
  const created = scramCredential('pgu_job', 'a password of the job')

  const configFor = (change: Partial<DatabaseConfig> = {}): DatabaseConfig =>
    databaseConfig(server.port, { tls: { mode: 'verify-full', ca: join(directory, 'ca.crt') }, ...change })

  const open = new Set<UpstreamConnection>()

  const connect = async (
    change: Partial<DatabaseConfig> = {},
    credential: MintedCredential = created,
    parameters: Record<string, string> = { role: 'shop_migrator', application_name: 'run 1' },
    dbname = 'shop',
  ): Promise<UpstreamConnection> => {
    const target = { alias: 'shop-prod', config: configFor(change), dbname }
    const upstream = await connectUpstream(target, credential, new Map(Object.entries(parameters)))
    open.add(upstream)
    return upstream
  }

  /** So that one failing test does not make the next one wait for its backends. */
  afterEach(() => {
    for (const { socket } of open) socket.destroy()
    open.clear()
  })

  /** A refusal leaves no backend behind. */
  const refusal = async (...args: Parameters<typeof connect>): Promise<Error> => {
    const thrown = await connect(...args).then(
      () => Promise.reject(new Error('it was let in')),
      (thrown: Error) => thrown,
    )
    await eventually(async () => (await backends()) === 0)
    return thrown
  }

  const backends = async (): Promise<number> => {
    const [row] = await query<{ n: number }>(
      server.superuserUrl,
      "SELECT count(*)::int AS n FROM pg_stat_activity WHERE usename ~ '^(pgu_|shop_)'",
    )
    return row?.n ?? -1
  }

  const usesTls = async ({ backendKey }: UpstreamConnection): Promise<boolean | undefined> => {
    const sql = 'SELECT ssl FROM pg_stat_ssl WHERE pid = $1'
    const [row] = await query<{ ssl: boolean }>(server.superuserUrl, sql, [backendKey.processId])
    return row?.ssl
  }

  const certificateFor = async (cn: string, by: TestCa): Promise<MintedCredential> => ({
    kind: 'client-certificate',
    login: cn,
    assumeRole: undefined,
    secret: { type: 'certificate', ...(await by.issue({ cn, client: true })) },
    validUntil: Date.now() + 60_000,
  })

  beforeAll(async () => {
    ca = await createCa()
    directory = await mkdtemp(join(tmpdir(), 'pgusher-upstream-'))
    await writeFile(join(directory, 'ca.crt'), ca.cert)
    const tls = await ca.issue({ cn: 'pg1.internal', dns: ['pg1.internal'], ips: ['127.0.0.1'] })
    const hba = ['trust', 'md5', 'password', 'reject'].map((method) => `host all pgu_${method} all ${method}`)
    server = await start({ tls: { ...tls, ca: ca.cert }, hba: [...hba, 'hostssl all pgu_cert all cert'] })
    await setupShop(server)
    const { salt, iterations, password } = created.secret
    const verifier = formatVerifier({ ...deriveScramKeys(password, salt, iterations), salt, iterations })
    await withClient(server.superuserUrl, async (client) => {
      await client.query(`
        CREATE ROLE pgu_job LOGIN PASSWORD '${verifier}' IN ROLE shop_migrator;
        CREATE ROLE pgu_single LOGIN CONNECTION LIMIT 1 PASSWORD '${verifier}';
        CREATE ROLE pgu_nologin NOLOGIN PASSWORD '${verifier}';
        CREATE ROLE pgu_expired LOGIN PASSWORD '${verifier}' VALID UNTIL '2001-01-01';
        CREATE ROLE pgu_cert LOGIN;
        CREATE ROLE pgu_trust LOGIN PASSWORD '${verifier}';
        CREATE ROLE pgu_password LOGIN PASSWORD '${verifier}';
        CREATE ROLE pgu_reject LOGIN PASSWORD '${verifier}';
        CREATE ROLE pgu_md5 LOGIN PASSWORD 'md5${createHash('md5').update('xpgu_md5').digest('hex')}'`)
    })
  })

  afterAll(async () => {
    await server?.stop()
    await rm(directory, { recursive: true, force: true })
  })

  test('the login over TLS, as the minted role acting as the group role', async () => {
    const upstream = await connect()
    expect(upstream.address).toEqual({ host: '127.0.0.1', port: server.port })
    expect(upstream.parameterStatus.get('application_name')).toBe('run 1')
    expect(upstream.parameterStatus.get('server_encoding')).toBe('UTF8')
    expect(upstream.backendKey.secret).toHaveLength(4)
    expect(upstream).toMatchObject({ transactionStatus: 'I', notices: [], rest: Buffer.alloc(0) })
    const [row] = await simpleQuery(upstream, 'SELECT session_user, current_user, pg_backend_pid()')
    expect(row).toEqual(['pgu_job', 'shop_migrator', String(upstream.backendKey.processId)])
    expect(await usesTls(upstream)).toBe(true)
    upstream.socket.destroy()
    await eventually(async () => (await backends()) === 0)
  })

  test('a certificate for a name, asked for under that name', async () => {
    const tls = { mode: 'verify-full', ca: join(directory, 'ca.crt'), server_name: 'pg1.internal' } as const
    const upstream = await connect({ tls })
    upstream.socket.destroy()
    const elsewhere = await refusal({ tls: { ...tls, server_name: 'pg2.internal' } })
    expect(elsewhere).toMatchObject({ code: 'upstream_unreachable', sqlstate: '08006' })
    expect(elsewhere.message).toBe(
      `cannot connect to "shop-prod": the certificate of 127.0.0.1:${server.port} is not for "pg2.internal"`,
    )
  })

  test('a name with several addresses, of which one answers', async () => {
    const tls = { mode: 'verify-ca', ca: join(directory, 'ca.crt') } as const
    const upstream = await connect({ host: 'localhost', tls })
    upstream.socket.destroy()
    expect((await refusal({ host: 'localhost', tls: { ...tls, mode: 'verify-full' } })).message).toContain(
      'is not for "localhost"',
    )
  })

  test('a certificate of another CA is refused, unless nobody asked', async () => {
    const other = join(directory, 'other.crt')
    await writeFile(other, (await createCa('somebody else')).cert)
    for (const mode of ['verify-full', 'verify-ca', 'require'] as const) {
      const thrown = await refusal({ tls: { mode, ca: other } })
      expect(thrown).toMatchObject({ code: 'upstream_unreachable' })
      expect(thrown.message).toContain('not the configured one (expected: one signed by the CA of `tls.ca`')
    }
    expect((await refusal({ tls: { mode: 'verify-full' } })).message).toContain("a CA of the system's")
    const missing = await refusal({ tls: { mode: 'verify-full', ca: join(directory, 'none') } })
    expect(missing.message).toContain('the CA file or client certificate for it cannot be read')
    const upstream = await connect({ tls: { mode: 'require' } })
    upstream.socket.destroy()
  })

  test('without TLS, and on a Unix socket', async () => {
    for (const change of [{ tls: { mode: 'disable' } }, { host: server.socketDir }] as const) {
      const upstream = await connect(change)
      expect(await usesTls(upstream)).toBe(false)
      upstream.socket.destroy()
    }
  })

  test('a client certificate', async () => {
    const upstream = await connect({}, await certificateFor('pgu_cert', ca), {})
    const [row] = await simpleQuery(upstream, 'SELECT session_user')
    expect(row).toEqual(['pgu_cert'])
    upstream.socket.destroy()
  })

  test('a client certificate that PostgreSQL does not take', async () => {
    const strange = await refusal({}, await certificateFor('pgu_cert', await createCa('strange')), {})
    expect(strange).toMatchObject({ code: 'upstream_auth', sqlstate: '08006' })
    const otherName = { ...(await certificateFor('somebody', ca)), login: 'pgu_cert' }
    expect(await refusal({}, otherName, {})).toMatchObject({ code: 'upstream_auth' })
    const noTls = await refusal({ host: server.socketDir }, await certificateFor('pgu_cert', ca), {})
    expect(causes(noTls)).toContain('client certificates need TLS')
    const forPassword = { ...(await certificateFor('pgu_cert', ca)), login: 'pgu_job' }
    expect(causes(await refusal({}, forPassword, {}))).toContain('pg_hba.conf must say cert')
  })

  test('another password, role or expiry: the client learns the entry, the log learns the reason', async () => {
    const before = (await readFile(server.logFile, 'utf8')).length
    for (const credential of [
      scramCredential('pgu_job', 'another password'),
      scramCredential('pgu_nobody', 'a password of the job'),
      scramCredential('pgu_expired', 'a password of the job'),
      scramCredential('pgu_nologin', 'a password of the job'),
      scramCredential('pgu_job', 'a password of the job', Buffer.from('another salt')),
      scramCredential('pgu_reject', 'a password of the job'),
    ]) {
      const thrown = await refusal({}, credential)
      expect(thrown).toMatchObject({ code: 'upstream_auth', sqlstate: '08006' })
      expect(thrown.message).toContain('"shop-prod"')
      expect(thrown.message).not.toContain('pgu_')
      expect(thrown.cause).toBeInstanceOf(Error)
    }
    expect((await readFile(server.logFile, 'utf8')).slice(before)).not.toContain('a password of the job')
    // PostgreSQL makes up parameters for a login that it does not know.
    const dropped = await refusal({}, scramCredential('pgu_nobody', 'a password of the job'))
    expect(causes(dropped)).toMatch(/is not the one that was minted: the login was dropped or has another password/)
  })

  test('pg_hba lines that are no SCRAM are refused', async () => {
    for (const [method, reason] of [
      ['trust', 'lets the login in without a proof'],
      ['md5', 'pg_hba.conf must say scram-sha-256'],
      ['password', 'method password (cleartext)'],
    ]) {
      const thrown = await refusal({}, scramCredential(`pgu_${method}`, 'a password of the job'), {})
      expect(thrown).toMatchObject({ code: 'upstream_auth' })
      expect(causes(thrown)).toContain(reason)
    }
  })

  test('what PostgreSQL says after the login is passed on', async () => {
    expect(await refusal({}, created, { role: 'shop_reader' })).toMatchObject({
      code: 'upstream_auth',
      sqlstate: '42501',
      message: '"shop-prod" refused the session: permission denied to set role "shop_reader"',
    })
    expect(await refusal({}, created, { role: 'no_such_role' })).toMatchObject({
      code: 'upstream_auth',
      sqlstate: '22023',
    })
    expect(await refusal({}, created, {}, 'no_such_db')).toMatchObject({
      code: 'upstream_unreachable',
      sqlstate: '3D000',
      message: '"shop-prod" refused the session: database "no_such_db" does not exist',
    })
    const single = scramCredential('pgu_single', 'a password of the job')
    const first = await connect({}, single, {})
    expect(await connect({}, single, {}).catch((thrown: unknown) => thrown)).toMatchObject({ sqlstate: '53300' })
    first.socket.destroy()
    await eventually(async () => (await backends()) === 0)
  })

  test('a cancel by the key of the connection', async () => {
    for (const change of [{}, { tls: { mode: 'disable' } }, { host: server.socketDir }] as const) {
      const upstream = await connect(change)
      const sleeping = simpleQuery(upstream, 'SELECT pg_sleep(60)').catch((error: unknown) => error)
      const { processId } = upstream.backendKey
      await eventually(
        async () =>
          (
            await query(
              server.superuserUrl,
              "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'",
              [processId],
            )
          ).length > 0,
      )
      const target = { alias: 'shop-prod', config: configFor(change) }
      await cancelUpstream(target, { processId, secret: Buffer.from('0000') }, 5_000)
      await cancelUpstream(target, upstream.backendKey, 5_000)
      expect(await sleeping).toMatchObject({ code: '57014' })
      upstream.socket.destroy()
    }
  })
})
