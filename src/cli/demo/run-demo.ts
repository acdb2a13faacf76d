/** Starts what the demo needs, tells the story, stays up; whatever ends it, everything is taken down in the opposite order. */
import { once } from 'node:events'
import { appendFileSync, rmSync } from 'node:fs'
import { mkdir, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { formatDiagnostics } from '../../config/diagnostics.ts'
import { startProxy } from '../../proxy.ts'
import { createLog } from '../../telemetry/log.ts'
import { createCa } from './certificates.ts'
import { databaseUrl, type JobConnection, writeEnvironment } from './connection.ts'
import { startPostgres } from './embedded-postgres.ts'
import { type Issuer, startIssuer } from './issuer.ts'
import { policyFile } from './policy-file.ts'
import type { Screen } from './screen.ts'
import { asSuperuser, createShop, guestShop, mintedRoles, ownShop, removeShop, type Shop } from './shop.ts'
import { tellStory } from './story.ts'
import { parseUpstream, type Upstream } from './upstream-url.ts'

export interface DemoOptions {
  once: boolean
  envFile?: string
  /** URL of a superuser. */
  upstream?: string
  port?: number
  dataDir?: string
}

const HOST = 'localhost'
const USUAL_PORT = 6432
/** GitLab's tokens live as long as their job may run, an hour as a rule: long enough to be pasted. */
const PASTED_LIFE = 3600

interface Place {
  directory: string
  policy: string
  audit: string
  log: string
  ca: string
}

/**
 * Resolves when the story is told and, unless `once`, `stop` is aborted. `stop` is heeded between any two steps.
 * @throws Error with a text for the terminal; what was started is gone by then
 */
export async function runDemo(options: DemoOptions, screen: Screen, stop: AbortSignal): Promise<void> {
  await using stack = new AsyncDisposableStack()
  // Before anything is started: throws where the development dependencies are not there.
  import.meta.resolve('oidc-provider')
  screen.line()
  screen.line(`${screen.paint('bold', 'pgusher demo')}: a CI job's token is its database password`)
  screen.line()
  const place = await preparePlace(options, stack)
  stop.throwIfAborted()
  const { upstream, shop } = await prepareUpstream(options, screen, stack, stop)
  const issuer = await startIssuer()
  stack.defer(() => issuer.close())
  screen.ready('CI systems', `GitHub Actions, GitLab, Buildkite, Jenkins: OpenID Connect at ${issuer.url}`)
  stop.throwIfAborted()
  const port = await choosePort(options.port)
  await writeFiles(place, { upstream, shop, issuer, port })
  await startPgusher(place, upstream, shop, stack)
  screen.ready('pgusher', `${HOST}:${port}, TLS by a throw-away CA; the policy is ${place.policy}`)
  const connection = (user: string, password: string): JobConnection => ({
    ...{ host: HOST, port, user, password, database: 'shop-prod', caFile: place.ca },
  })
  const url = (user: string, token: string): string => databaseUrl(connection(user, token))
  await untilAborted(stop, () => tellStory({ screen, upstream, shop, issuer, auditFile: place.audit, url }))
  if (options.once && options.envFile === undefined) return
  const token = await issuer.token('gitlab', {
    pipeline_source: 'web',
    job_id: '8600000500',
    pipeline_id: '1600000500',
  })
  const job = connection(shop.migrator, token)
  if (options.envFile !== undefined) await offerEnvironment(resolve(options.envFile), job, place.audit, stack)
  if (options.once) return
  invite(screen, job, place, options.envFile)
  await aborted(stop)
  screen.line()
}

/** Resolves when `stop` is aborted. */
async function aborted(stop: AbortSignal): Promise<void> {
  // Node ends when nothing is left to wait for, and a listener alone is nothing.
  const waiting = setInterval(() => {}, 60_000)
  if (!stop.aborted) await once(stop, 'abort')
  clearInterval(waiting)
}

/** Does `work`, or rejects with the reason for which `stop` was aborted; what `work` still waits for ends when pgusher does. */
async function untilAborted(stop: AbortSignal, work: () => Promise<void>): Promise<void> {
  stop.throwIfAborted()
  const over = new AbortController()
  const interrupted = once(stop, 'abort', { signal: over.signal }).then(() => stop.throwIfAborted())
  try {
    await Promise.race([work(), interrupted])
  } finally {
    interrupted.catch(() => {})
    over.abort()
  }
}

async function preparePlace({ dataDir }: DemoOptions, stack: AsyncDisposableStack): Promise<Place> {
  const directory =
    dataDir === undefined ? await mkdtemp(join(await realpath(tmpdir()), 'pgusher-demo-')) : resolve(dataDir)
  if (dataDir === undefined) {
    const remove = (): void => rmSync(directory, { recursive: true, force: true })
    // Also where the process is ended in a hurry, by a second signal.
    process.on('exit', remove)
    stack.defer(() => {
      process.off('exit', remove)
      remove()
    })
  } else await mkdir(directory, { recursive: true, mode: 0o700 })
  const [policy, audit, log, ca] = ['pgusher.yaml', 'audit.jsonl', 'pgusher.log', 'ca.crt'].map((name) =>
    join(directory, name),
  ) as [string, string, string, string]
  // The story is told from this run's events.
  await rm(audit, { force: true })
  return { directory, policy, audit, log, ca }
}

async function prepareUpstream(
  options: DemoOptions,
  screen: Screen,
  stack: AsyncDisposableStack,
  stop: AbortSignal,
): Promise<{ upstream: Upstream; shop: Shop }> {
  const guest = options.upstream !== undefined
  const shop = guest ? guestShop() : ownShop()
  let upstream: Upstream
  if (options.upstream !== undefined) {
    upstream = await parseUpstream(options.upstream)
    stack.defer(() => removeShop(upstream, shop))
  } else {
    const server = await startPostgres()
    stack.defer(() => server.stop())
    stop.throwIfAborted()
    upstream = await parseUpstream(server.superuserUrl)
  }
  await createShop(upstream, shop)
  const version = await asSuperuser(upstream, undefined, async (client) => {
    const { rows } = await client.query<{ server_version: string }>('SHOW server_version')
    return rows[0]?.server_version.split(' ')[0]
  })
  const where = `${upstream.host}:${upstream.port}, database ${shop.database}`
  screen.ready(`PostgreSQL`, `${version} at ${where}, group roles ${shop.migrator} and ${shop.reader}`)
  stop.throwIfAborted()
  return { upstream, shop }
}

/** The usual one where it is free. @throws Error where the one that was asked for is taken */
async function choosePort(wanted: number | undefined): Promise<number> {
  for (const port of wanted === undefined ? [USUAL_PORT, 0] : [wanted]) {
    const server = createServer()
    const bound = await new Promise<number | undefined>((done) => {
      server.once('error', () => done(undefined))
      server.listen(port, '127.0.0.1', () => {
        const address = server.address()
        done(address === null || typeof address === 'string' ? undefined : address.port)
      })
    })
    await new Promise((closed) => server.close(closed))
    if (bound !== undefined) return bound
  }
  throw new Error(`port ${wanted ?? USUAL_PORT} cannot be listened on; choose another one with --port`)
}

async function writeFiles(
  place: Place,
  parts: { upstream: Upstream; shop: Shop; issuer: Issuer; port: number },
): Promise<void> {
  const ca = await createCa('pgusher demo CA')
  const { cert, key } = await ca.issue({ cn: HOST, dns: [HOST], ips: ['127.0.0.1'] })
  const secret = { mode: 0o600 }
  await Promise.all([
    writeFile(place.ca, ca.cert),
    writeFile(join(place.directory, 'tls.crt'), cert),
    writeFile(join(place.directory, 'tls.key'), key, secret),
    writeFile(place.policy, policyFile(parts), secret),
  ])
}

async function startPgusher(place: Place, upstream: Upstream, shop: Shop, stack: AsyncDisposableStack): Promise<void> {
  const log = createLog({ level: 'info', destination: { write: (line: string) => appendFileSync(place.log, line) } })
  const result = await startProxy({ configFile: place.policy, env: {}, log, classifyWithin: 10_000 })
  if (!result.ok) throw new Error(formatDiagnostics(result.diagnostics))
  stack.defer(async () => {
    const clean = await result.proxy.shutdown()
    const left = await asSuperuser(upstream, undefined, (client) => mintedRoles(client, shop.prefix))
    if (!clean || left.length > 0) throw new Error(`pgusher left roles behind: ${left.join(', ')}`)
  })
}

async function offerEnvironment(
  file: string,
  job: JobConnection,
  auditLog: string,
  stack: AsyncDisposableStack,
): Promise<void> {
  await writeEnvironment(file, job, auditLog)
  stack.defer(() => rm(file, { force: true }))
}

function invite(screen: Screen, job: JobConnection, place: Place, envFile: string | undefined): void {
  const { paint, line } = screen
  const until = new Date(Date.now() + PASTED_LIFE * 1000).toTimeString().slice(0, 5)
  line()
  line(paint(['bold', 'cyan'], 'Your turn'))
  line(`   This token of a GitLab job is good until ${until} (one hour) and may act as ${job.user}:`)
  line()
  line(`export DATABASE_URL='${databaseUrl(job)}'`)
  line(paint('bold', 'psql "$DATABASE_URL"'))
  line()
  line(`   and the audit log, as it grows: ${paint('bold', `tail -f ${place.audit} | jq .`)}`)
  if (envFile !== undefined) line(`   The same as variables of a shell: ${paint('bold', `. ${envFile}`)}`)
  line(`   Ctrl-C ends everything and leaves nothing.`)
}
