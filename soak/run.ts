/** `npm run soak`: a mixed load for minutes, and faults that are too heavy for a test; nothing may leak, nothing may be missing. See README.md. */
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { leftNow, missingEvents, missingInLog, readAudit, readMetrics } from '../test/support/nothing-left.ts'
import type { DatabaseInput } from '../test/support/pgusher-config.ts'
import { type Standalone, startStandalone } from '../test/support/standalone.ts'
import { compareWithLog, growthOf, NOT_RECORDED, type Sample, shownMiB, takeSample } from './account.ts'
import { startChores } from './chores.ts'
import { HEAVY, killed } from './heavy.ts'
import { outages } from './outages.ts'
import { startWorkload } from './workload.ts'

const USAGE = `npm run soak -- [options]
  --minutes N   of mixed load; 10 without it, 0 for the heavy faults alone
  --clients N   jobs at a time; 8 without it
  --seed N      of what the jobs do
  --workers N   serve --workers N, one of which is killed now and then; what is in its memory then is lost with it
  --no-heavy    the mixed load alone
  --outages     outages and failovers of PostgreSQL alone`

/** Violations of one kind. */
const MAX_SHOWN = 10
const SAMPLE_EVERY = 5_000
/** Milliseconds that the last role and the last socket have to go. */
const SETTLE = 40_000
/**
 * Of JavaScript's memory between the second and the last quarter. The caches of statement texts are full after some 100,000 of them and
 * take about this much; with a million texts it was the same.
 */
const MAX_GROWTH = 96 * 1024 * 1024
/** The same of what the system sees, which what is freed and not given back, and what a crashed parser leaves for a moment, are part of. */
const MAX_RESIDENT_GROWTH = 256 * 1024 * 1024

function settingsOf(argv: readonly string[]) {
  const { values } = parseArgs({
    args: [...argv],
    allowNegative: true,
    options: {
      minutes: { type: 'string', default: '10' },
      clients: { type: 'string', default: '8' },
      seed: { type: 'string', default: String(Date.now() % 1_000_000) },
      heavy: { type: 'boolean', default: true },
      outages: { type: 'boolean', default: false },
      workers: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  const [minutes, clients, seed] = [Number(values.minutes), Number(values.clients), Number(values.seed)]
  const workers = values.workers === undefined ? undefined : Number(values.workers)
  const numbers = [minutes, clients, seed, workers ?? 2]
  if (values.help || !numbers.every((value) => value >= 0) || workers === 0 || workers === 1) throw new Error(USAGE)
  return { minutes, clients, seed, workers, heavy: values.heavy, outages: values.outages }
}

/** Sessions, roles and sockets that do not go, once nobody is connected. */
async function settled(stage: Standalone): Promise<string[]> {
  const deadline = performance.now() + SETTLE
  for (;;) {
    const left = await leftNow(stage, stage.idleSockets, await readMetrics(stage.httpAddress))
    if (left.length === 0 || performance.now() > deadline) return left
    await delay(500)
  }
}

async function accounts(stage: Standalone): Promise<string[]> {
  const left = (await settled(stage)).map((what) => `left: ${what}`)
  const files = await stage.auditFiles()
  if (settings.workers === undefined) {
    return [...left, ...missingEvents(await readAudit(files), await readMetrics(stage.httpAddress))]
  }
  // The counters of a worker go with it, so that the metrics agree with nothing.
  const logs = await Promise.all(files.map(async (file) => missingInLog(await readAudit([file]))))
  return [...left, ...logs.flat()]
}

/** What a job was told whose worker was killed. */
const BROKEN = 'a session broke: '

async function mixedLoad(
  stage: Standalone,
  { minutes, clients, seed }: { minutes: number; clients: number; seed: number },
) {
  const idle = await takeSample(stage)
  const workload = startWorkload(stage, clients, seed)
  const chores = startChores(stage, workload.tag, settings.workers !== undefined)
  const samples: Sample[] = []
  const end = performance.now() + minutes * 60_000
  while (performance.now() < end) {
    await delay(Math.min(SAMPLE_EVERY, Math.max(0, end - performance.now())))
    samples.push(await takeSample(stage))
  }
  await chores.stop()
  await workload.stop()
  const broken = workload.tally.violations.filter((text) => chores.counts.killed > 0 && text.startsWith(BROKEN))
  const others = workload.tally.violations.filter((text) => !broken.includes(text))
  // Each has as many sessions as there are jobs at most, and a job that connects at that moment.
  if (broken.length > chores.counts.killed * clients) others.push(...broken.slice(0, 5))
  const violations = [...others, ...chores.violations, ...(await accounts(stage))]
  const after = await takeSample(stage)
  const growth = growthOf(samples)
  const residentGrowth = growthOf(samples, 'rss')
  if (growth > MAX_GROWTH) violations.push(`memory grew by ${shownMiB(growth)}`)
  if (residentGrowth > MAX_RESIDENT_GROWTH) violations.push(`resident memory grew by ${shownMiB(residentGrowth)}`)
  if (after.timers > idle.timers + 2) violations.push(`${after.timers} timers, and ${idle.timers} at the start`)
  const difference = await compareWithLog(await stage.auditFiles(), stage.server.logFile)
  const lost = difference.violations.filter((text) => chores.counts.killed > 0 && text.endsWith(NOT_RECORDED))
  violations.push(...difference.violations.filter((text) => !lost.includes(text)).slice(0, MAX_SHOWN))
  const { sessions, statements, cancelled, refused } = workload.tally
  const counted = { sessions, statements, cancelled, ...chores.counts, 'compared with the log': difference.compared }
  if (settings.workers !== undefined)
    Object.assign(counted, { 'broken sessions': broken.length, 'records lost': lost.length })
  console.log(`mixed load, ${minutes} min, ${clients} jobs at a time, seed ${seed}:`)
  for (const [name, value] of Object.entries(counted)) console.log(`  ${name}: ${value.toLocaleString('en')}`)
  console.log(`  refused: ${JSON.stringify(refused)}`)
  const most = (of: (sample: Sample) => number): number => Math.max(...samples.map(of))
  const resident = `resident ${shownMiB(idle.rss)} idle, ${shownMiB(most(({ rss }) => rss))} at most, ${shownMiB(residentGrowth)} more in the last quarter than in the second`
  const heap = `heap ${shownMiB(idle.heap)} idle, ${shownMiB(most(({ heap }) => heap))} at most`
  console.log(`  memory: ${resident}; ${heap}, ${shownMiB(growth)} more in the last quarter than in the second`)
  console.log(
    `  sockets: ${idle.sockets} idle, ${Math.max(...samples.map(({ sockets }) => sockets))} at most, ${after.sockets} at the end`,
  )
  console.log(`  timers: ${idle.timers} idle, ${after.timers} at the end; credentials at the end: ${after.credentials}`)
  return violations
}

async function heavyFaults(stage: Standalone): Promise<string[]> {
  const violations: string[] = []
  for (const fault of HEAVY) {
    const outcome = await fault(stage)
    const left = await accounts(stage)
    console.log(`${outcome.fault}: ${outcome.seen}`)
    violations.push(...outcome.violations, ...left.map((what) => `${outcome.fault}: ${what}`))
  }
  const last = await killed(stage)
  console.log(`${last.fault}: ${last.seen}`)
  return [...violations, ...last.violations]
}

/** A job that comes again within the time finds its role and a connection. */
function keptWarm(database: DatabaseInput): DatabaseInput {
  return { ...database, warm: { life: '3s' }, credentials: { ...database.credentials, linger: '3s' } }
}

const settings = settingsOf(process.argv.slice(2))
if (settings.outages) report(await outages())
else report(await soak())

function report(violations: readonly string[]): void {
  for (const violation of violations) console.error(`FAILED ${violation}`)
  console.log(violations.length === 0 ? 'nothing failed' : `${violations.length} failed`)
  process.exitCode = violations.length === 0 ? 0 : 1
}

async function soak(): Promise<string[]> {
  await using stage = await startStandalone({
    ...(settings.workers === undefined ? {} : { workers: settings.workers }),
    config: (config) => ({
      ...config,
      // A herd comes from one address here.
      listen: { ...config.listen, max_unauthenticated_per_address: 1_000 },
      databases: { ...config.databases, warehouse: keptWarm(config.databases['warehouse']!) },
    }),
    settings: {
      max_connections: '200',
      log_min_duration_statement: '0',
      log_line_prefix: '%p %e ',
      log_error_verbosity: 'terse',
    },
  })
  const violations = settings.minutes > 0 ? await mixedLoad(stage, settings) : []
  // They count descriptors and memory of one process, and what it said.
  if (settings.heavy && settings.workers === undefined) violations.push(...(await heavyFaults(stage)))
  return violations
}
