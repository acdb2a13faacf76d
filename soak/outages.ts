/**
 * Outages of a PostgreSQL of our own, and its failover to a physical standby: what psql and node-postgres see through pgusher, with SQLSTATE
 * and time, and that nothing is left of any of them.
 */
import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { createServerApi } from '../src/client/server-api.ts'
import { debianVersions } from '../test/support/postgres-versions.ts'
import { eventually } from '../test/support/shop.ts'
import { type Standalone, startStandalone } from '../test/support/standalone.ts'
import { type Newcomers, type Seen, type Watcher, watchDriver, watchNewcomers, watchPsql } from './clients.ts'
import { type Cluster, startCluster } from './cluster.ts'

interface Ground {
  cluster: Cluster
  stage: Standalone
  token(run: string): Promise<string>
}

/** Begins the outage, and ends what does not end by itself. */
type Outage = (ground: Ground) => Promise<void>

/** Milliseconds that a server stays away. */
const AWAY = 1_500

/** The process of one session of somebody else. */
async function killBackend({ stage }: Ground): Promise<void> {
  const [other] = await stage.admin(`SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'
    AND usename LIKE 'pgu\\_%' AND state = 'idle' LIMIT 1`)
  process.kill(Number(other?.['pid']), 'SIGKILL')
}

const stopped =
  (signal: NodeJS.Signals): Outage =>
  async ({ cluster }) => {
    await cluster.signal(signal)
    await delay(AWAY)
    await cluster.start()
  }

const OUTAGES: Readonly<Record<string, Outage>> = {
  'another backend crashes': killBackend,
  'fast shutdown, started again': stopped('SIGINT'),
  'immediate shutdown, started again': stopped('SIGQUIT'),
  'killed (SIGKILL of its main process), started again': stopped('SIGKILL'),
  async 'smart shutdown, then fast'(ground) {
    await ground.cluster.signal('SIGTERM')
    await delay(AWAY)
    await stopped('SIGINT')(ground)
  },
  async 'failover to a standby'({ cluster, stage }) {
    await cluster.failOver()
    stage.path.retarget(cluster.server)
  },
}

const lastWords = async ({ logFile }: Standalone): Promise<string> => (await readFile(logFile, 'utf8')).slice(-3_000)
const seconds = (milliseconds: number): string => `${(milliseconds / 1_000).toFixed(2)} s`
const shownSeen = ({ code, text, after }: Seen): string => `${code} after ${seconds(after)}: ${text}`

function print(outage: string, sessions: readonly (readonly [string, Seen])[], newcomers: Newcomers): void {
  console.log(`  ${outage}`)
  for (const [who, seen] of sessions) console.log(`    ${who}: ${shownSeen(seen)}`)
  for (const seen of newcomers.refused) console.log(`    new: ${seen.code} in ${seconds(seen.after)}: ${seen.text}`)
  console.log(`    new: served ${seconds(newcomers.served)} after the outage began`)
}

async function observe(name: string, outage: Outage, ground: Ground): Promise<string[]> {
  const { stage, token } = ground
  const watchers: [string, Watcher | undefined][] = [
    ['node-postgres, idle', await watchDriver(stage, await token('1'), false)],
    ['node-postgres, in a statement', await watchDriver(stage, await token('2'), true)],
    ['psql, in a statement', await watchPsql(stage, await token('3'))],
  ]
  await eventually(async () => {
    const rows = await stage.admin(`SELECT 1 FROM pg_stat_activity WHERE query LIKE 'select pg_sleep(600)%'`)
    return rows.length === watchers.filter(([, watcher]) => watcher !== undefined).length - 1
  })
  const since = performance.now()
  const over = outage(ground)
  const all = watchers.flatMap(([who, watcher]) => (watcher === undefined ? [] : [{ who, ended: watcher.seen(since) }]))
  // Who comes before the server has noticed is served, and is a session as the others are.
  await Promise.race([Promise.all(all.map(({ ended }) => ended)), delay(500)])
  const newcomers = await watchNewcomers(stage, () => token('4'), since, 60_000).catch(async (error: Error) => {
    throw new Error(`${name}: ${error.message}; the last words of pgusher:\n${await lastWords(stage)}`)
  })
  await over
  const sessions = await Promise.all(all.map(async ({ who, ended }) => [who, await ended] as const))
  print(name, sessions, newcomers)
  return (await stage.left(60_000)).map((left) => `${name}: left: ${left}`)
}

/** Tickets and the roles of jobs that go on, on a server that took over. @param isolated it never saw them */
async function goesOn(ground: Ground, isolated: boolean): Promise<string[]> {
  const { cluster, stage, token } = ground
  const name = isolated ? 'failover to a standby that was behind' : 'failover, for a job that goes on'
  const server = { host: '127.0.0.1', port: stage.port }
  const api = createServerApi({ server, caFile: stage.caFile })
  await cluster.addStandby()
  if (isolated) cluster.isolateStandby()
  const going = await token('9')
  const ticket = await api.exchange(going, { database: 'shop-prod', user: 'shop_migrator' })
  const held = await watchDriver(stage, going, false)
  if (!isolated) await cluster.caughtUp()
  const since = performance.now()
  await cluster.failOver()
  stage.path.retarget(cluster.server)
  stage.path.resetAll()
  const lost = await held.seen(since)
  const job = await watchNewcomers(stage, async () => going, since, 30_000)
  print(name, [['node-postgres, idle', lost]], job)
  const withTicket = await watchNewcomers(stage, async () => ticket.text, performance.now(), 1_000).then(
    () => 'let in',
    ({ message }: Error) => message,
  )
  console.log(`    a ticket from before: ${withTicket}`)
  await api.giveBack(ticket.text).catch(() => {})
  const violations = (await stage.left(60_000)).map((left) => `${name}: left: ${left}`)
  if ((withTicket === 'let in') === isolated) violations.push(`${name}: a ticket from before was ${withTicket}`)
  return violations
}

async function onCluster(version: string, binDir: string | undefined): Promise<string[]> {
  await using cluster = await startCluster(binDir)
  await using stage = await startStandalone({
    server: cluster.server,
    config: (config) => ({
      ...config,
      tickets: { key: Buffer.alloc(32, 7).toString('base64') },
      rules: (config.rules ?? []).map((rule) => ({ ...rule, allow: { ...rule.allow!, ticket_life: '45m' } })),
    }),
  })
  const ground: Ground = { cluster, stage, token: (run) => stage.issuer.token('github', { run_id: `80${run}` }) }
  console.log(`PostgreSQL ${version}`)
  const violations: string[] = []
  for (const [name, outage] of Object.entries(OUTAGES)) {
    if (name.startsWith('failover')) await cluster.addStandby()
    violations.push(...(await observe(name, outage, ground)))
  }
  for (const isolated of [false, true]) violations.push(...(await goesOn(ground, isolated)))
  return violations.map((violation) => `PostgreSQL ${version}: ${violation}`)
}

/** @returns what did not hold */
export async function outages(): Promise<string[]> {
  const violations = await onCluster('18', undefined)
  for (const { version, binDir } of debianVersions()) violations.push(...(await onCluster(String(version), binDir)))
  return violations
}
