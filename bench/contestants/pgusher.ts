/** pgusher as `serve` runs it: a token for each job, a minted role, every statement with its full text in an audit file. */
import { mkdtemp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { DEMO_AUDIENCE, startIssuer } from '../../src/cli/demo/issuer.ts'
import { packageVersion } from '../../src/cli/version.ts'
import { freePort, startServer } from '../processes.ts'
import { ADMIN, DATABASE, GROUP, type Stage } from '../stage.ts'
import type { Contestant } from './contestant.ts'

/** Entry of `databases` that PostgreSQL is reached through over TLS; the other bears the database's own name. */
const SECURED = `${DATABASE}-tls`
const ROLES = `SELECT count(*)::int AS roles FROM pg_roles WHERE starts_with(rolname, 'pgu_')`
/** As in the Dockerfile and the systemd unit. */
const NODE_OPTIONS = ['--max-semi-space-size=16']
/** Above what any part holds at once: all load comes from one address, and a part's jobs may be one. */
const MANY = 2_000

/**
 * With connections to PostgreSQL that are used again by the same job, as set up for jobs of many short steps. They live as long as the job's
 * role lingers by default: roles of jobs that are over would be on the server for longer otherwise, in the figures of what comes next.
 */
export const pgusher = (stage: Stage): Promise<Contestant> => startPgusher(stage, { warm: { life: '2s' } })

/** As by default: each session has a connection of its own to PostgreSQL. */
export const pgusherCold = (stage: Stage): Promise<Contestant> => startPgusher(stage, {})

/** @param settings of each entry of `databases` */
async function startPgusher(stage: Stage, settings: { warm?: object }): Promise<Contestant> {
  const [port, httpPort, issuer] = await Promise.all([freePort(), freePort(), startIssuer()])
  const directory = await mkdtemp(join(stage.scratch, 'pgusher-'))
  const file = join(directory, 'pgusher.yaml')
  const base = configuration(stage, directory, port, httpPort, issuer.issuerUrl('github'))
  const databases = Object.entries(base.databases).map(([alias, entry]) => [alias, { ...entry, ...settings }])
  await writeFile(file, JSON.stringify({ ...base, databases: Object.fromEntries(databases) }))
  const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
  const { pid, stop } = await startServer(process.execPath, [...NODE_OPTIONS, main, 'serve', '--config', file], port)
  return {
    pids: [pid],
    version: `${packageVersion()} on Node ${process.versions.node}`,
    address: async (variant, job = 0) => ({
      ...{ port, user: GROUP, password: await issuer.token('github', jobClaims(job)) },
      database: variant === 'both' ? SECURED : DATABASE,
      tls: variant !== 'plain',
    }),
    async events() {
      const text = await (await fetch(`http://127.0.0.1:${httpPort}/metrics`)).text()
      return Number(/^pgusher_audit_events_total (\d+)$/m.exec(text)?.[1])
    },
    // From the catalog, since asking pgusher again and again would be work of its own.
    credentials: async () => (await stage.admin<{ roles: number }>(ROLES))[0]!.roles,
    async stop() {
      await stop()
      await issuer.close()
    },
  }
}

function jobClaims(job: number): Record<string, string> {
  return { run_id: String(18_700_000_000 + job), check_run_id: String(52_900_000_000 + job) }
}

/**
 * What an operator would write, but for the limits that one address and one job run into here, and plain TCP, which is there to be
 * compared and loads on loopback only.
 */
function configuration(stage: Stage, directory: string, port: number, httpPort: number, url: string) {
  const { server, ca, cert, key } = stage
  const entry = {
    ...{ host: server.host, port: server.port, dbname: DATABASE },
    credentials: { kind: 'ephemeral-role', admin: ADMIN },
  }
  return {
    version: 1,
    instance: 'bench',
    listen: {
      ...{ address: `127.0.0.1:${port}`, plaintext: 'allow', tls: { cert, key } },
      ...{ max_sessions: MANY, max_unauthenticated: MANY, max_unauthenticated_per_address: MANY },
    },
    http: { address: `127.0.0.1:${httpPort}` },
    audit: { text: 'full', file: { path: join(directory, 'audit.jsonl'), rotate: '128MiB', keep: 1 } },
    drain_timeout: '1s',
    issuers: {
      github: { preset: 'github-actions', url, audience: DEMO_AUDIENCE, require: { repository_owner_id: '9100001' } },
    },
    databases: {
      [DATABASE]: { ...entry, tls: { mode: 'disable' } },
      [SECURED]: { ...entry, tls: { mode: 'verify-full', ca } },
    },
    rules: [
      {
        name: 'bench',
        issuer: 'github',
        match: { repository_id: '784500001', ref: 'refs/heads/main' },
        allow: { database: [DATABASE, SECURED], role: GROUP, max_connections: MANY },
      },
    ],
  }
}
