/** A PostgreSQL that can be crashed and started again, with a physical standby that can take its place. */
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type PostgresOptions, type PostgresServer, startPostgres } from '../src/cli/demo/embedded-postgres.ts'
import { type FaultProxy, startFaultProxy } from '../test/support/fault-proxy.ts'
import { eventually, query } from '../test/support/shop.ts'

export interface Cluster extends AsyncDisposable {
  /** The server that serves; its members change with a failover. */
  readonly server: PostgresServer
  /** To the server's main process. */
  signal(signal: NodeJS.Signals): Promise<void>
  /** On the same port, over the same data. */
  start(): Promise<void>
  /** A standby that has all that the primary had. @throws Error where it does not catch up */
  addStandby(): Promise<void>
  /** The standby has what the primary has now. */
  caughtUp(): Promise<void>
  /** From here on the standby sees nothing of what the primary does. */
  isolateStandby(): void
  /** The primary's machine is gone, and the standby is made the primary. */
  failOver(): Promise<void>
}

const SETTINGS = { max_connections: '50', log_error_verbosity: 'terse' }

export async function startCluster(binDir: string | undefined): Promise<Cluster> {
  const parent = await mkdtemp(join(tmpdir(), 'pgusher-cluster-'))
  // PostgreSQL does not run as root, and may have to enter it as somebody else.
  await chmod(parent, 0o711)
  const options = (name: string, settings = {}): PostgresOptions => ({
    dataDir: join(parent, name),
    settings: { ...SETTINGS, ...settings },
    ...(binDir === undefined ? {} : { binDir }),
  })
  const first = await startPostgres(options('first'))
  const server = { ...first }
  let running = first
  let standbys = 0
  let standby: PostgresServer | undefined
  let replication: FaultProxy | undefined
  const again = async (): Promise<void> => {
    running = await startPostgres({ ...options('first'), dataDir: running.dataDir, port: running.port })
  }
  const pidOf = async (dataDir: string): Promise<number> =>
    Number((await readFile(join(dataDir, 'postmaster.pid'), 'utf8')).split('\n')[0])

  async function caughtUp(): Promise<void> {
    // Of what was inserted, not of what was written: commits are asynchronous here.
    const follows = `SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND replay_lsn >= pg_current_wal_insert_lsn()`
    await eventually(async () => (await query(running.superuserUrl, follows)).length === 1, 30_000)
  }

  return {
    server,
    signal: async (signal) => void process.kill(await pidOf(running.dataDir), signal),
    async start() {
      await running.stop()
      await again()
      Object.assign(server, running)
    },
    async addStandby() {
      const [, password = ''] = /:([^:@]+)@/.exec(running.superuserUrl) ?? []
      replication = await startFaultProxy(running)
      // A copy of a server that was shut down is a base backup, and with this file it follows.
      await running.stop()
      await writeFile(join(running.dataDir, 'standby.signal'), '')
      const from = `host=127.0.0.1 port=${replication.port} user=postgres password=${password}`
      standby = await startPostgres({
        ...options(`standby-${++standbys}`, { primary_conninfo: from }),
        copyOf: running.dataDir,
      })
      await rm(join(running.dataDir, 'standby.signal'))
      await again()
      await caughtUp()
    },
    caughtUp,
    isolateStandby: () => replication?.set('both', { stall: true }),
    async failOver() {
      if (standby === undefined) throw new Error('there is no standby')
      process.kill(await pidOf(running.dataDir), 'SIGQUIT')
      await running.stop()
      await query(standby.superuserUrl, 'SELECT pg_promote()')
      running = standby
      standby = undefined
      Object.assign(server, running)
    },
    async [Symbol.asyncDispose]() {
      await replication?.[Symbol.asyncDispose]()
      await running.stop()
      await standby?.stop()
      await rm(parent, { recursive: true, force: true })
    },
  }
}
