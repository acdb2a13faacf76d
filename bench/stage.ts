/** What all contestants stand before: a PostgreSQL with pgbench's tables, and the files that they need. */
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { createCa } from '../src/cli/demo/certificates.ts'
import { type PostgresServer, startPostgres } from '../src/cli/demo/embedded-postgres.ts'
import { run } from './processes.ts'

/** Rows of pgbench_accounts are 100,000 times this; 75 MB, all in memory. */
const SCALE = 5

export const DATABASE = 'bench'
/** Logs in for those who have no identities: the same privileges as the group role. */
export const USER = { name: 'bench_user', password: 'bench-password' }
export const GROUP = 'bench_reader'
export const ADMIN = { user: 'pgusher_admin', password: 'bench-admin-password' }

export interface Stage {
  server: PostgresServer
  scratch: string
  cert: string
  key: string
  stop(): Promise<void>
}

/** Debian's PostgreSQL where there is one, whose version pgbouncer and pgbench fit; else the package's. */
function debianBinaries(): string | undefined {
  return ['17', '16', '15', '14']
    .map((version) => `/usr/lib/postgresql/${version}/bin`)
    .find((directory) => existsSync(join(directory, 'initdb')))
}

export async function startStage(): Promise<Stage> {
  const binDir = debianBinaries()
  const scratch = await mkdtemp(join(tmpdir(), 'pgusher-bench-'))
  const server = await startPostgres({
    ...(binDir === undefined ? {} : { binDir }),
    settings: { max_connections: '200', shared_buffers: '256MB', log_connections: 'off' },
  })
  // A user that a contestant becomes reads certificate and key here; they live as long as the bench.
  await chmod(scratch, 0o755)
  const issued = await (await createCa()).issue({ cn: 'localhost', ips: ['127.0.0.1'] })
  const [cert, key] = [join(scratch, 'tls.crt'), join(scratch, 'tls.key')]
  await writeFile(cert, issued.cert)
  await writeFile(key, issued.key, { mode: 0o644 })
  await prepare(server)
  return {
    server,
    scratch,
    cert,
    key,
    async stop() {
      await server.stop()
      await rm(scratch, { recursive: true, force: true })
    },
  }
}

async function prepare({ superuserUrl, host, port }: PostgresServer): Promise<void> {
  const client = new pg.Client(superuserUrl)
  await client.connect()
  const { rows } = await client.query<{ version: number }>(
    `SELECT current_setting('server_version_num')::int AS version`,
  )
  const options = (rows[0]?.version ?? 0) >= 160_000 ? 'WITH ADMIN TRUE, INHERIT FALSE, SET FALSE' : 'WITH ADMIN OPTION'
  await client.query(`CREATE DATABASE ${DATABASE}`)
  await client.query(`
    CREATE ROLE ${GROUP} NOLOGIN;
    CREATE ROLE ${USER.name} LOGIN PASSWORD '${USER.password}' IN ROLE ${GROUP};
    CREATE ROLE ${ADMIN.user} LOGIN CREATEROLE PASSWORD '${ADMIN.password}';
    GRANT ${GROUP} TO ${ADMIN.user} ${options}`)
  await client.end()
  const { password } = new URL(superuserUrl)
  const env = {
    PATH: process.env['PATH'],
    PGHOST: host,
    PGPORT: String(port),
    PGUSER: 'postgres',
    PGPASSWORD: password,
  }
  await run('pgbench', ['--initialize', '--quiet', '--scale', String(SCALE), DATABASE], { env, timeout: 60_000 })
  const owner = new pg.Client(superuserUrl.replace(/\/postgres$/, `/${DATABASE}`))
  await owner.connect()
  await owner.query(`GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${GROUP}`)
  await owner.end()
}
