/**
 * A stage for integration tests: real PostgreSQL 18 with the shop, an OpenID Connect issuer, and pgusher with TLS in front,
 * each job a real client. PostgreSQL, issuer and CA are started once for a test file, a pgusher for each stage.
 */
import { appendFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type pg from 'pg'
import { afterAll } from 'vitest'
import {
  type Claims,
  type Issuer,
  type IssuerShape,
  startIssuer,
  type TokenOptions,
} from '../../src/cli/demo/issuer.ts'
import { auditFileOf } from '../../src/workers/names.ts'
import { createCa, type TestCa } from './certificates.ts'
import { baseConfig, type ConfigInput, type RuleInput } from './pgusher-config.ts'
import { type RunningPgusher, startChild, startInProcess } from './pgusher-process.ts'
import { eventually, type PostgresServer, query, type Shop, setupShop, sharedPostgres, withClient } from './postgres.ts'

export * from './pgusher-config.ts'

export interface Upstream {
  server: PostgresServer
  shop: Shop
}

export interface StageOptions {
  /** In place of `RULES`. */
  rules?: readonly RuleInput[]
  /** Merged over the base configuration, section by section. */
  listen?: Partial<ConfigInput['listen']>
  audit?: ConfigInput['audit']
  databases?: ConfigInput['databases']
  issuers?: ConfigInput['issuers']
  /** Last word on the whole configuration. */
  config?: (config: ConfigInput) => ConfigInput
  /** `pgusher serve` as a child process, for signals and kill -9. */
  spawn?: boolean
  /** `serve --workers`, as a child process. */
  workers?: number
  /** Variables of the child process, over those of this one. */
  env?: Readonly<Record<string, string>>
  /** Another server than the file's PostgreSQL 18, with `setupShop` done. */
  upstream?: Upstream
}

/** What a job puts into DATABASE_URL. */
export interface Job {
  token: string
  /** `shop_migrator` without it. */
  user?: string
  /** `shop-prod` without it. */
  database?: string
}

/** An audit event; the fields that tests look at are typed, the rest is in the schema. */
export interface StageEvent {
  event: string
  time: string
  pgusher: Record<string, unknown> & { seq: number; outcome: string }
  [field: string]: unknown
}

export type EventFilter = (event: StageEvent) => boolean

export interface Stage {
  readonly server: PostgresServer
  readonly shop: Shop
  readonly issuer: Issuer
  readonly pgusher: RunningPgusher
  readonly port: number
  /** PEM of the CA that signed pgusher's certificate, and the file with it. */
  readonly ca: string
  readonly caFile: string
  readonly configFile: string
  readonly auditFile: string
  readonly logFile: string
  readonly directory: string
  /** A token of a job; GitHub's production job on main without arguments. */
  token(shape?: IssuerShape, claims?: Claims, options?: TokenOptions): Promise<string>
  /** `postgres://user:token@127.0.0.1:port/database?sslmode=verify-full&sslrootcert=…` */
  url(job: Job): string
  /** What `new pg.Client` takes. */
  client(job: Job): pg.ClientConfig
  /** One connection of a job for the time of `work`. */
  session<T>(job: Job, work: (client: pg.Client) => Promise<T>): Promise<T>
  /** Rows of one query of the superuser, past pgusher. */
  admin<Row extends pg.QueryResultRow = Record<string, unknown>>(sql: string, database?: string): Promise<Row[]>
  /** Events so far, in order; of that name where one is given. */
  events(filter?: string | EventFilter): Promise<StageEvent[]>
  /** The first such event, as soon as it is there. */
  waitForEvent(filter: string | EventFilter, timeout?: number): Promise<StageEvent>
  /** Names of the login roles that pgusher made and that are still there. */
  mintedRoles(): Promise<string[]>
  waitForNoRoles(timeout?: number): Promise<void>
  /** Writes the configuration anew, changed as the options say, and reloads it. */
  reload(options?: StageOptions): Promise<boolean>
  /** After `pgusher.stop()` or a kill: a new pgusher with the same configuration, on a new port. */
  restart(): Promise<void>
  /** Ends pgusher. @throws Error where a minted role or a backend of one is left. */
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

interface Foundation {
  issuer: Issuer
  ca: TestCa
  certificate: { cert: string; key: string }
}

let foundation: Promise<Foundation> | undefined
let shop: Promise<Shop> | undefined

async function startFoundation(): Promise<Foundation> {
  const [issuer, ca] = await Promise.all([startIssuer(), createCa()])
  return { issuer, ca, certificate: await ca.issue({ cn: 'pgusher', dns: ['localhost'], ips: ['127.0.0.1'] }) }
}

async function sharedUpstream(): Promise<Upstream> {
  const server = await sharedPostgres()
  shop ??= setupShop(server)
  return { server, shop: await shop }
}

afterAll(async () => {
  await (await foundation)?.issuer.close()
})

/** @throws Error with pgusher's own words where it does not start */
export async function startStage(options: StageOptions = {}): Promise<Stage> {
  foundation ??= startFoundation()
  const [{ issuer, ca, certificate }, upstream] = await Promise.all([foundation, options.upstream ?? sharedUpstream()])
  const directory = await mkdtemp(join(tmpdir(), 'pgusher-stage-'))
  const [configFile, auditFile, logFile, caFile, cert, key] = [
    'pgusher.yaml',
    'audit.jsonl',
    'pgusher.log',
    'ca.crt',
    'tls.crt',
    'tls.key',
  ].map((name) => join(directory, name)) as [string, string, string, string, string, string]
  const writeConfig = (wanted: StageOptions): Promise<void> => {
    const base = baseConfig(upstream.server, upstream.shop, issuer, { cert, key, audit: auditFile })
    return writeFile(configFile, JSON.stringify(withOptions(base, wanted), null, 2), { mode: 0o600 })
  }
  await Promise.all([
    writeFile(caFile, ca.cert),
    writeFile(cert, certificate.cert),
    writeFile(key, certificate.key, { mode: 0o600 }),
    appendFile(logFile, ''),
    appendFile(auditFile, ''),
    writeConfig(options),
  ])
  const start = (): Promise<RunningPgusher> =>
    options.spawn === true || options.workers !== undefined
      ? startChild(configFile, logFile, options)
      : startInProcess(configFile, logFile)
  const own = Object.keys(options.issuers ?? {})
  let pgusher = await withKeys(start, own)
  const portOf = (): number => (pgusher.address.kind === 'tcp' ? pgusher.address.port : 0)

  const auditFiles = [auditFile]
  for (let worker = 1; worker <= (options.workers ?? 0); worker++) auditFiles.push(auditFileOf(auditFile, worker))
  const allEvents = async (): Promise<StageEvent[]> => (await Promise.all(auditFiles.map(readEvents))).flat()

  const stage: Stage = {
    ...upstream,
    ...{ issuer, ca: ca.cert, caFile, configFile, auditFile, logFile, directory },
    get pgusher() {
      return pgusher
    },
    get port() {
      return portOf()
    },
    token: (shape = 'github', claims, tokenOptions) => issuer.token(shape, claims, tokenOptions),
    url: ({ token, user = 'shop_migrator', database = 'shop-prod' }) =>
      `postgres://${user}:${token}@127.0.0.1:${portOf()}/${database}?sslmode=verify-full&sslrootcert=${caFile}`,
    client: ({ token, user = 'shop_migrator', database = 'shop-prod' }) => ({
      ...{ host: '127.0.0.1', port: portOf(), user, database, password: token, ssl: { ca: ca.cert } },
    }),
    session: (job, work) => withClient(stage.client(job), work),
    admin: (sql, database) => query(adminUrl(upstream.server, database), sql),
    events: async (filter) => (await allEvents()).filter(asFilter(filter)),
    waitForEvent: (filter, timeout) => eventually(async () => (await allEvents()).find(asFilter(filter)), timeout),
    mintedRoles: () => mintedRoles(upstream.server),
    async waitForNoRoles(timeout) {
      await eventually(async () => (await mintedRoles(upstream.server)).length === 0, timeout)
    },
    async reload(wanted = {}) {
      await writeConfig(wanted)
      return pgusher.reload()
    },
    async restart() {
      pgusher = await withKeys(start, own)
    },
    async close() {
      const clean = await pgusher.stop()
      const left = await whatIsLeft(upstream.server)
      const log = clean && left === '' ? '' : await readFile(logFile, 'utf8')
      await rm(directory, { recursive: true, force: true })
      if (left !== '') throw new Error(`pgusher left ${left} in PostgreSQL; its log:\n${log}`)
      if (!clean && pgusher.child?.signalCode === null) throw new Error(`pgusher did not end cleanly; its log:\n${log}`)
    },
    [Symbol.asyncDispose]: () => stage.close(),
  }
  return stage
}

/**
 * On a busy machine the issuer of these tests can be too slow for the first fetch of its keys, and pgusher asks again after half a minute
 * only: it is started again then.
 * @param own issuers that the test made up, which may have no keys
 */
async function withKeys(start: () => Promise<RunningPgusher>, own: readonly string[]): Promise<RunningPgusher> {
  for (let attempt = 1; ; attempt++) {
    const pgusher = await start()
    if (attempt === 4 || (await keysCame(pgusher, own))) return pgusher
    await pgusher.stop()
  }
}

/** False where an issuer's keys did not come within the time that a fetch has. */
async function keysCame({ httpAddress }: RunningPgusher, own: readonly string[]): Promise<boolean> {
  if (httpAddress.kind !== 'tcp') return true
  const { host, port } = httpAddress
  const usable = async (): Promise<boolean> => {
    const text = await (await fetch(`http://${host}:${port}/metrics`)).text()
    const without = [...text.matchAll(/^pgusher_issuer_keys_usable\{issuer="([^"]*)"[^}]*\} 0$/gm)].map(
      ([, name]) => name ?? '',
    )
    return without.every((name) => own.includes(name))
  }
  return eventually(usable, 6_000).catch(() => false)
}

function withOptions(
  base: ConfigInput,
  { rules, listen, audit, databases, issuers, config }: StageOptions,
): ConfigInput {
  const merged: ConfigInput = {
    ...base,
    listen: { ...base.listen, ...listen },
    audit: { ...base.audit, ...audit },
    databases: { ...base.databases, ...databases },
    issuers: { ...base.issuers, ...issuers },
    rules: rules === undefined ? (base.rules ?? []) : [...rules],
  }
  return config === undefined ? merged : config(merged)
}

function adminUrl(server: PostgresServer, database = 'postgres'): string {
  return server.superuserUrl.replace(/\/postgres$/, `/${database}`)
}

const asFilter = (filter: string | EventFilter = () => true): EventFilter =>
  typeof filter === 'string' ? ({ event }) => event === filter : filter

/** Complete lines only: the last one may still be on its way. Between the two steps of a rotation there is no file. */
async function readEvents(file: string): Promise<StageEvent[]> {
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return ''
    throw error
  })
  const lines = text.split('\n').slice(0, -1)
  return lines.map((line) => JSON.parse(line) as StageEvent)
}

async function mintedRoles(server: PostgresServer): Promise<string[]> {
  const sql = `SELECT rolname::text AS name FROM pg_roles WHERE rolname LIKE 'pgu\\_%' ORDER BY 1`
  return (await query<{ name: string }>(server.superuserUrl, sql)).map(({ name }) => name)
}

async function whatIsLeft(server: PostgresServer): Promise<string> {
  const backends = await query<{ usename: string }>(
    server.superuserUrl,
    `SELECT coalesce(usename, usesysid::text) AS usename FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND (usename LIKE 'pgu\\_%' OR usename IS NULL)`,
  )
  return [
    ...(await mintedRoles(server)).map((name) => `role ${name}`),
    ...backends.map(({ usename }) => `a backend of ${usename}`),
  ].join(', ')
}
