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
  /** In place of one of its own; whoever gives it stops it. Its members may change while pgusher runs: `path` is to be told. */
  server?: PostgresServer
  /** `serve --workers`. */
  workers?: number
  /** Last word on the configuration; called again by `reload`. */
  config?: (config: ConfigInput) => ConfigInput
}

export interface Standalone extends AsyncDisposable, Watched {
  readonly server: PostgresServer
  readonly issuer: Issuer
  readonly port: number
  /** PEM of the CA of pgusher's certificate. */
  readonly ca: string
  readonly caFile: string
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
  const server = options.server ?? (await startPostgres({ settings: options.settings ?? {} }))
  if (options.server === undefined) stack.defer(() => server.stop())
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
  await writeFile(file('ca.crt'), authority.cert)
  await appendFile(file('pgusher.log'), '')
  await writeConfig()
  const workers = options.workers === undefined ? {} : { workers: options.workers }
  const start = (): Promise<RunningPgusher> => startChild(file('pgusher.yaml'), file('pgusher.log'), workers)
  let pgusher = await start()
  stack.defer(async () => void (await pgusher.stop()))
  let idleSockets = 0
  const kept = new AsyncDisposableStack()
  const standalone: Standalone = {
    ...{
      server,
      issuer,
      path,
      ca: authority.cert,
      caFile: file('ca.crt'),
      configFile: file('pgusher.yaml'),
      logFile: file('pgusher.log'),
    },
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
    auditFiles: async () => auditFilesOf(await readdir(directory)).map(file),
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

/** Of the process and of its workers, each with its rotated ones first: their names end in their times, and the one that is written has the shortest. */
function auditFilesOf(names: readonly string[]): string[] {
  const streams = Map.groupBy(
    names.filter((name) => /^audit(?:-\d+)?\.jsonl/.test(name)).sort(),
    (name) => name.split('.')[0],
  )
  return [...streams.values()].flatMap(([current = '', ...rotated]) => [...rotated, current])
}

/** What a first session opens and keeps: the admin's connections to each database. */
async function openDatabases({ issuer, port, ca, left }: Standalone): Promise<void> {
  const password = await issuer.token('github')
  for (const database of ['shop-prod', 'warehouse']) {
    const login = { host: '127.0.0.1', port, user: 'shop_migrator', database, password, ssl: { ca } }
    const used = () =>
      withClient(login, (client) => client.query('select 1')).catch((error: { code?: string }) => {
        // On a busy machine the first fetch of the issuer's keys may come too late; the next one is half a minute later.
        if (error.code !== '57P03') throw error
        return undefined
      })
    await eventually(used, 45_000)
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
