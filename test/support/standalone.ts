/** The stage of the tests for programs that vitest does not run: PostgreSQL, issuer and pgusher, each a process or server of its own. */
import { appendFile, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type PostgresServer, startPostgres } from '../../src/cli/demo/embedded-postgres.ts'
import { type Issuer, startIssuer } from '../../src/cli/demo/issuer.ts'
import { createCa } from './certificates.ts'
import { type FaultProxy, startFaultProxy } from './fault-proxy.ts'
import { openSockets, type Watched, whatIsLeft } from './nothing-left.ts'
import { baseConfig, type ConfigInput } from './pgusher-config.ts'
import { type RunningPgusher, startChild } from './pgusher-process.ts'
import { eventually, query, setupShop, urlFor, withClient } from './shop.ts'

export interface StandaloneOptions {
  /** Settings of PostgreSQL. */
  settings?: Readonly<Record<string, string>>
  /** Last word on the configuration; called again by `reload`. */
  config?: (config: ConfigInput) => ConfigInput
}

export interface Standalone extends AsyncDisposable, Watched {
  readonly server: PostgresServer
  readonly issuer: Issuer
  readonly port: number
  /** PEM of the CA of pgusher's certificate. */
  readonly ca: string
  /** Between pgusher and PostgreSQL. */
  readonly path: FaultProxy
  readonly pgusher: RunningPgusher
  readonly configFile: string
  readonly logFile: string
  /** Sockets of pgusher when nobody is connected and each database was used once. */
  readonly idleSockets: number
  reload(): Promise<boolean>
  /** After `pgusher.child` was killed. */
  restart(): Promise<void>
  admin(sql: string, database?: string): Promise<Record<string, unknown>[]>
  /** What is left after `timeout` ms, in words; empty where nothing is. */
  left(timeout: number): Promise<string[]>
}

export async function startStandalone(options: StandaloneOptions = {}): Promise<Standalone> {
  await using stack = new AsyncDisposableStack()
  const directory = await mkdtemp(join(tmpdir(), 'pgusher-standalone-'))
  stack.defer(() => rm(directory, { recursive: true, force: true }))
  const server = await startPostgres({ settings: options.settings ?? {} })
  stack.defer(() => server.stop())
  const [shop, issuer, authority] = await Promise.all([setupShop(server), startIssuer(), createCa()])
  stack.defer(() => issuer.close())
  const path = stack.use(await startFaultProxy(server))
  const file = (name: string): string => join(directory, name)
  const files = { cert: file('tls.crt'), key: file('tls.key'), audit: file('audit.jsonl') }
  const certificate = await authority.issue({ cn: 'pgusher', dns: ['localhost'], ips: ['127.0.0.1'] })
  const writeConfig = (): Promise<void> => {
    const base = baseConfig({ ...server, port: path.port }, shop, issuer, files)
    return writeFile(file('pgusher.yaml'), JSON.stringify(options.config?.(base) ?? base, null, 2), { mode: 0o600 })
  }
  await writeFile(files.cert, certificate.cert)
  await writeFile(files.key, certificate.key, { mode: 0o600 })
  await appendFile(file('pgusher.log'), '')
  await writeConfig()
  const start = (): Promise<RunningPgusher> => startChild(file('pgusher.yaml'), file('pgusher.log'))
  let pgusher = await start()
  stack.defer(async () => void (await pgusher.stop()))
  let idleSockets = 0
  const kept = new AsyncDisposableStack()
  const standalone: Standalone = {
    ...{ server, issuer, path, ca: authority.cert, configFile: file('pgusher.yaml'), logFile: file('pgusher.log') },
    get idleSockets() {
      return idleSockets
    },
    get pgusher() {
      return pgusher
    },
    get port() {
      return pgusher.address.kind === 'tcp' ? pgusher.address.port : 0
    },
    get pid() {
      return pgusher.child?.pid ?? 0
    },
    get httpAddress() {
      return pgusher.httpAddress
    },
    // A rotated file's name ends in its time, and the one that is written has the shortest name.
    auditFiles: async () => {
      const names = (await readdir(directory)).filter((name) => name.startsWith('audit.jsonl')).sort()
      return [...names.slice(1), ...names.slice(0, 1)].map(file)
    },
    admin: (sql, database = 'postgres') => query(urlFor(server.superuserUrl, { database }), sql),
    async reload() {
      await writeConfig()
      return pgusher.reload()
    },
    async restart() {
      pgusher = await start()
    },
    left: (timeout) => leftAfter(standalone, timeout),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
  await openDatabases(standalone)
  idleSockets = await openSockets(standalone.pid)
  kept.use(stack.move())
  return standalone
}

/** What a first session opens and keeps: the admin's connections to each database. */
async function openDatabases({ issuer, port, ca, left }: Standalone): Promise<void> {
  const password = await issuer.token('github')
  for (const database of ['shop-prod', 'warehouse']) {
    const login = { host: '127.0.0.1', port, user: 'shop_migrator', database, password, ssl: { ca } }
    await withClient(login, (client) => client.query('select 1'))
  }
  await left(10_000)
}

async function leftAfter(standalone: Standalone, timeout: number): Promise<string[]> {
  const sockets = standalone.idleSockets === 0 ? Number.POSITIVE_INFINITY : standalone.idleSockets
  let left: string[] = []
  const over = async (): Promise<boolean> => {
    left = await whatIsLeft(standalone, sockets)
    return left.length === 0
  }
  await eventually(over, timeout).catch(() => {})
  return left
}
