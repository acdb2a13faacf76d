/** pgbouncer in session pooling: one connection to PostgreSQL for one of the client's, as a job needs it. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { unprivilegedUser } from '../../src/cli/demo/postgres-binaries.ts'
import { freePort, type Running, startServer, versionOf } from '../processes.ts'
import { DATABASE, type Stage, USER } from '../stage.ts'
import type { Contestant } from './contestant.ts'

export async function pgbouncer(stage: Stage): Promise<Contestant | string> {
  const version = await versionOf('pgbouncer', '--version')
  if (version === undefined) return 'pgbouncer is not installed (apt-get install pgbouncer)'
  // Whether it speaks TLS toward PostgreSQL is one setting of the whole process, so there are two of them.
  const [inTheClear, secured] = await Promise.all([startOne(stage, 'disable'), startOne(stage, 'verify-full')])
  return {
    pids: [inTheClear.pid, secured.pid],
    version,
    address: async (variant) => ({
      port: variant === 'both' ? secured.port : inTheClear.port,
      ...{ user: USER.name, password: USER.password, database: DATABASE, tls: variant !== 'plain' },
    }),
    async stop() {
      await Promise.all([inTheClear.stop(), secured.stop()])
    },
  }
}

async function startOne(stage: Stage, serverTls: 'disable' | 'verify-full'): Promise<Running & { port: number }> {
  const { server, scratch, ca, cert, key } = stage
  const port = await freePort()
  const [file, users] = [join(scratch, `pgbouncer-${port}.ini`), join(scratch, `pgbouncer-${port}.txt`)]
  const [known] = await stage.admin<{ verifier: string }>(
    `SELECT rolpassword AS verifier FROM pg_authid WHERE rolname = '${USER.name}'`,
  )
  // The verifier and not the password, of which it would derive the keys anew for each client (4,096 rounds of HMAC).
  await writeFile(users, `"${USER.name}" "${known?.verifier}"\n`)
  await writeFile(
    file,
    `[databases]
${DATABASE} = host=127.0.0.1 port=${server.port} dbname=${DATABASE} user=${USER.name} password=${USER.password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = ${users}
pool_mode = session
max_client_conn = 1300
default_pool_size = 1300
server_reset_query = DISCARD ALL
client_tls_sslmode = allow
client_tls_cert_file = ${cert}
client_tls_key_file = ${key}
server_tls_sslmode = ${serverTls}
server_tls_ca_file = ${ca}
listen_backlog = 1024
log_connections = 0
log_disconnections = 0
`,
  )
  // It refuses to run as root.
  const running = await startServer('pgbouncer', [file], port, (await unprivilegedUser()) ?? {})
  return { ...running, port }
}
