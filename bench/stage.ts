/** What all contestants stand before: a PostgreSQL with pgbench's tables, and the files that they need. */
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { createCa } from '../src/cli/demo/certificates.ts'
import { type PostgresServer, startPostgres } from '../src/cli/demo/embedded-postgres.ts'
import { run } from './processes.ts'

/** Rows of pgbench_accounts are 100,000 times this; 150 MB, all in memory. At least the 8 clients of TPC-B, which would queue for a branch each. */
const SCALE = 10

export const DATABASE = 'bench'
/** Logs in for those who have no identities: the same privileges as the group role. */
export const USER = { name: 'bench_user', password: 'bench-password' }
export const GROUP = 'bench_job'
export const ADMIN = { user: 'pgusher_admin', password: 'bench-admin-password' }

export interface Stage {
  server: PostgresServer
  /** `server_version`, e.g. `15.18`. */
  version: string
  scratch: string
  /** PEM files; `ca` signed `cert`, which is for 127.0.0.1. PostgreSQL and proxies share the pair. */
  ca: string
  cert: string
  key: string
  /** As the superuser, past all proxies; in DATABASE. */
  admin<Row extends pg.QueryResultRow = Record<string, unknown>>(sql: string): Promise<Row[]>
  stop(): Promise<void>
}

/** Debian's PostgreSQL where there is one, whose version pgbouncer and pgbench fit; else the package's. */
export function debianBinaries(): { binDir?: string } {
  const binDir = ['18', '17', '16', '15', '14']
    .map((version) => `/usr/lib/postgresql/${version}/bin`)
    .find((directory) => existsSync(join(directory, 'initdb')))
  return binDir === undefined ? {} : { binDir }
}

export async function startStage(): Promise<Stage> {
  const scratch = await mkdtemp(join(tmpdir(), 'pgusher-bench-'))
  const authority = await createCa()
  const issued = await authority.issue({ cn: 'localhost', dns: ['localhost'], ips: ['127.0.0.1'] })
  const server = await startPostgres({
    ...debianBinaries(),
    tls: issued,
    // As many as a thousand sessions of one contestant need while the others keep theirs.
    settings: { max_connections: '1400', shared_buffers: '512MB', max_wal_size: '8GB', log_connections: 'off' },
  })
  // A user that a contestant becomes reads certificate and key here; they live as long as the bench.
  await chmod(scratch, 0o755)
  const [ca, cert, key] = ['ca.crt', 'tls.crt', 'tls.key'].map((name) => join(scratch, name)) as [
    string,
    string,
    string,
  ]
  await writeFile(ca, authority.cert)
  await writeFile(cert, issued.cert)
  await writeFile(key, issued.key, { mode: 0o644 })
  await prepare(server)
  const owner = new pg.Client(server.superuserUrl.replace(/\/postgres$/, `/${DATABASE}`))
  await owner.connect()
  // One after the other: several may ask while contestants are warmed up, and pg is giving up its queue.
  let last: Promise<unknown> = Promise.resolve()
  const admin: Stage['admin'] = async (sql) => {
    const answer = last.then(() => owner.query(sql))
    last = answer.catch(() => {})
    return (await answer).rows
  }
  await admin(`
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ${GROUP};
    GRANT CREATE ON DATABASE ${DATABASE} TO ${GROUP}`)
  const [row] = await admin<{ version: string }>(
    `SELECT split_part(current_setting('server_version'), ' ', 1) AS version`,
  )
  return {
    ...{ server, version: row?.version ?? '', scratch, ca, cert, key, admin },
    async stop() {
      await owner.end().catch(() => {})
      await server.stop()
      await rm(scratch, { recursive: true, force: true })
    },
  }
}

/** Roles as pgusher's documentation wants them; for any server, also one of a part's own. */
export async function createRoles(client: pg.Client): Promise<void> {
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
}

async function prepare({ superuserUrl, host, port }: PostgresServer): Promise<void> {
  const client = new pg.Client(superuserUrl)
  await client.connect()
  await createRoles(client)
  await client.end()
  const env = {
    PATH: process.env['PATH'],
    PGHOST: host,
    PGPORT: String(port),
    PGUSER: 'postgres',
    PGPASSWORD: new URL(superuserUrl).password,
  }
  await run('pgbench', ['--initialize', '--quiet', '--scale', String(SCALE), DATABASE], { env, timeout: 120_000 })
}
