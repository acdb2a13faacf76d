/** The proxies, each with its usual configuration for one job: one connection to PostgreSQL for one of the client's. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { DEMO_AUDIENCE, startIssuer } from '../src/cli/demo/issuer.ts'
import { unprivilegedUser } from '../src/cli/demo/postgres-binaries.ts'
import type { Target } from './pgbench.ts'
import { freePort, startServer, versionOf } from './processes.ts'
import { ADMIN, DATABASE, GROUP, type Stage, USER } from './stage.ts'

export interface Contestant {
  /** Whose CPU time counts; undefined for no proxy at all. */
  pid: number | undefined
  version: string
  /** Takes TLS from clients. */
  tls: boolean
  /** What a client connects with, made anew for each run: a token is short-lived. */
  target(): Promise<Omit<Target, 'tls'>>
  /** Audit events recorded so far; undefined where there are none. */
  events?(): Promise<number>
  stop(): Promise<void>
}

export const NAMES = ['direct', 'pgbouncer', 'haproxy', 'pgusher'] as const
export type Name = (typeof NAMES)[number]

/** @returns why it takes no part, for one that is not installed */
export const start: Readonly<Record<Name, (stage: Stage) => Promise<Contestant | string>>> = {
  direct,
  pgbouncer,
  haproxy,
  pgusher,
}

const asUser = (port: number) => async () => ({ port, user: USER.name, password: USER.password, database: DATABASE })

async function direct({ server }: Stage): Promise<Contestant> {
  const version = 'no proxy'
  return { pid: undefined, version, tls: false, target: asUser(server.port), stop: async () => {} }
}

async function pgbouncer({ server, scratch, cert, key }: Stage): Promise<Contestant | string> {
  const version = await versionOf('pgbouncer', '--version')
  if (version === undefined) return 'pgbouncer is not installed (apt-get install pgbouncer)'
  const port = await freePort()
  const file = join(scratch, 'pgbouncer.ini')
  await writeFile(
    file,
    `[databases]
${DATABASE} = host=127.0.0.1 port=${server.port} dbname=${DATABASE} user=${USER.name} password=${USER.password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = session
max_client_conn = 200
default_pool_size = 100
server_reset_query = DISCARD ALL
client_tls_sslmode = allow
client_tls_cert_file = ${cert}
client_tls_key_file = ${key}
server_tls_sslmode = disable
log_connections = 0
log_disconnections = 0
`,
  )
  // It refuses to run as root.
  const running = await startServer('pgbouncer', [file], port, (await unprivilegedUser()) ?? {})
  return { ...running, version, tls: true, target: asUser(port) }
}

async function haproxy({ server, scratch }: Stage): Promise<Contestant | string> {
  const version = await versionOf('haproxy', '-v')
  if (version === undefined) return 'haproxy is not installed (apt-get install haproxy)'
  const port = await freePort()
  const file = join(scratch, 'haproxy.cfg')
  await writeFile(
    file,
    `global
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 10m
  timeout server 10m
listen bench
  bind 127.0.0.1:${port}
  server postgres 127.0.0.1:${server.port}
`,
  )
  const running = await startServer('haproxy', ['-db', '-f', file], port)
  // It does not speak PostgreSQL's way into TLS.
  return { ...running, version, tls: false, target: asUser(port) }
}

async function pgusher(stage: Stage): Promise<Contestant> {
  const [port, httpPort, issuer] = await Promise.all([freePort(), freePort(), startIssuer()])
  const file = join(stage.scratch, 'pgusher.yaml')
  await writeFile(file, JSON.stringify(configuration(stage, port, httpPort, issuer.issuerUrl('github'))))
  const main = fileURLToPath(new URL('../src/cli/main.ts', import.meta.url))
  const running = await startServer(process.execPath, [main, 'serve', '--config', file], port)
  return {
    pid: running.pid,
    version: `pgusher on Node ${process.versions.node}`,
    tls: true,
    target: async () => ({ port, user: GROUP, password: await issuer.token('github'), database: DATABASE }),
    async events() {
      const text = await (await fetch(`http://127.0.0.1:${httpPort}/metrics`)).text()
      return Number(/^pgusher_audit_events_total (\d+)$/m.exec(text)?.[1])
    },
    async stop() {
      await running.stop()
      await issuer.close()
    },
  }
}

/** Full text of every statement to a file, as by default. Plain TCP is for comparison; it loads on loopback only. */
function configuration({ server, scratch, cert, key }: Stage, port: number, httpPort: number, url: string): object {
  return {
    version: 1,
    instance: 'bench',
    listen: { address: `127.0.0.1:${port}`, plaintext: 'allow', tls: { cert, key } },
    http: { address: `127.0.0.1:${httpPort}` },
    audit: { file: { path: join(scratch, 'audit.jsonl'), rotate: '128MiB', keep: 1 } },
    drain_timeout: '1s',
    issuers: {
      github: { preset: 'github-actions', url, audience: DEMO_AUDIENCE, require: { repository_owner_id: '9100001' } },
    },
    databases: {
      [DATABASE]: {
        host: server.host,
        port: server.port,
        tls: { mode: 'disable' },
        credentials: { kind: 'ephemeral-role', admin: ADMIN },
      },
    },
    rules: [
      {
        name: 'bench',
        issuer: 'github',
        match: { repository_id: '784500001', ref: 'refs/heads/main' },
        allow: { database: DATABASE, role: GROUP, max_connections: 200 },
      },
    ],
  }
}
