/** `npm run bench`: what a session through pgusher costs, beside other proxies and none. See README.md. */
import { writeFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { type Contestant, NAMES, type Name, start } from './contestants.ts'
import { PROTOCOLS, type Protocol, pgbench } from './pgbench.ts'
import { cpuSeconds, versionOf } from './processes.ts'
import { type Measurement, machine, rowsOf, tableOf } from './report.ts'
import { type Stage, startStage } from './stage.ts'

const USAGE = `npm run bench -- [options]
  --quick            two rounds of two seconds, less than two minutes in all
  --only LIST        contestants (${NAMES.join(', ')}) and workloads (prepared/plain, simple/tls, ...), with commas
  --rounds N         5 without it
  --seconds N        of each run; 5 without it
  --clients N        8 without it
  --output FILE      where the JSON goes; without it only the table is printed`

/** How long the last events of a run may take: each new text is classified first, and what that costs belongs to the run. */
const SETTLE = { deadline: 5_000, poll: 100 }
/** Transactions of each client before a contestant is measured: V8 has compiled what is hot by then. */
const WARM_UP = 1_000

/** Ctrl-C ends the bench with its servers and files, after the run that is under way. */
const stop = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stop.abort(new Error(`ended by ${signal}`)))

interface Workload {
  name: string
  protocol: Protocol
  tls: boolean
}

interface Settings {
  rounds: number
  seconds: number
  clients: number
  output: string | undefined
  contestants: readonly Name[]
  workloads: readonly Workload[]
}

const WORKLOADS: readonly Workload[] = PROTOCOLS.toReversed().flatMap((protocol) =>
  [false, true].map((tls) => ({ name: `${protocol}/${tls ? 'tls' : 'plain'}`, protocol, tls })),
)

function settingsOf(argv: readonly string[]): Settings {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string', default: '' },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      clients: { type: 'string', default: '8' },
      output: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) throw new Error(USAGE)
  const only = values.only.split(',').filter(Boolean)
  const known: readonly string[] = [...NAMES, ...WORKLOADS.map(({ name }) => name)]
  const unknown = only.find((name) => !known.includes(name))
  if (unknown !== undefined) throw new Error(`${unknown} is neither a contestant nor a workload\n${USAGE}`)
  const contestants = NAMES.filter((name) => only.includes(name))
  const workloads = WORKLOADS.filter(({ name }) => only.includes(name))
  return {
    rounds: Number(values.rounds ?? (values.quick ? 2 : 5)),
    seconds: Number(values.seconds ?? (values.quick ? 2 : 5)),
    clients: Number(values.clients),
    output: values.output,
    contestants: contestants.length > 0 ? contestants : NAMES,
    workloads: workloads.length > 0 ? workloads : WORKLOADS,
  }
}

async function startAll(
  stage: Stage,
  names: readonly Name[],
  stack: AsyncDisposableStack,
): Promise<Map<Name, Contestant>> {
  const running = new Map<Name, Contestant>()
  for (const name of names) {
    const contestant = await start[name](stage)
    if (typeof contestant === 'string') {
      console.log(`${name} takes no part: ${contestant}`)
      continue
    }
    stack.defer(() => contestant.stop())
    running.set(name, contestant)
  }
  return running
}

async function measure(
  contestant: Contestant,
  { protocol, tls }: Workload,
  { clients, seconds }: Settings,
  scratch: string,
): Promise<Omit<Measurement, 'contestant' | 'workload' | 'round'>> {
  const target = { ...(await contestant.target()), tls }
  const eventsBefore = await contestant.events?.()
  const { pid } = contestant
  const before = pid === undefined ? undefined : await cpuSeconds(pid)
  const { transactions, tps, p50 } = await pgbench(target, { protocol, clients, seconds }, scratch)
  const events = await settled(contestant, eventsBefore, transactions)
  const after = pid === undefined ? undefined : await cpuSeconds(pid)
  const cpu = before === undefined || after === undefined ? undefined : ((after - before) * 1e6) / transactions
  return { transactions, tps, p50: p50 ?? Number.NaN, cpu, events }
}

/** @throws Error where fewer events than transactions were recorded: a fast run without its audit would prove nothing. */
async function settled(
  contestant: Contestant,
  before: number | undefined,
  transactions: number,
): Promise<number | undefined> {
  if (contestant.events === undefined || before === undefined) return undefined
  const deadline = performance.now() + SETTLE.deadline
  for (;;) {
    const events = (await contestant.events()) - before
    if (events >= transactions) return events
    if (performance.now() > deadline) throw new Error(`${transactions} transactions left ${events} audit events`)
    await delay(SETTLE.poll)
  }
}

/** Contestants take turns within a round, so that whatever else the machine does meets all of them. */
async function measureAll(
  stage: Stage,
  contestants: ReadonlyMap<Name, Contestant>,
  settings: Settings,
): Promise<Measurement[]> {
  const measurements: Measurement[] = []
  const runs = settings.workloads.flatMap((workload) =>
    [...contestants]
      .filter(([, contestant]) => contestant.tls || !workload.tls)
      .map(([name, contestant]) => ({ workload, name, contestant })),
  )
  for (const { workload, contestant } of runs) {
    const { protocol, tls } = workload
    const load = { protocol, clients: settings.clients, transactions: WARM_UP }
    await pgbench({ ...(await contestant.target()), tls }, load, stage.scratch)
  }
  for (let round = 1; round <= settings.rounds; round++) {
    for (const { workload, name, contestant } of runs) {
      stop.signal.throwIfAborted()
      const result = await measure(contestant, workload, settings, stage.scratch)
      measurements.push({ contestant: name, workload: workload.name, round, ...result })
      const cpu = result.cpu === undefined ? '' : `, ${result.cpu.toFixed(1)} ms CPU / 1,000`
      console.log(`round ${round} ${workload.name} ${name}: ${result.tps.toFixed(0)} tps${cpu}`)
    }
  }
  return measurements
}

async function main(): Promise<void> {
  const settings = settingsOf(process.argv.slice(2))
  const client = await versionOf('pgbench', '--version')
  if (client === undefined)
    throw new Error('pgbench is not installed (apt-get install postgresql-client postgresql-contrib)')
  const described = machine()
  await using stack = new AsyncDisposableStack()
  const stage = await startStage()
  stack.defer(() => stage.stop())
  const contestants = await startAll(stage, settings.contestants, stack)
  const measurements = await measureAll(stage, contestants, settings)
  const rows = rowsOf(measurements)
  console.log(`\n${tableOf(rows)}`)
  if (settings.output === undefined) return
  const versions = Object.fromEntries([...contestants].map(([name, { version }]) => [name, version]))
  const { rounds, seconds, clients } = settings
  const report = {
    date: new Date().toISOString(),
    machine: described,
    versions: { ...versions, pgbench: client },
    settings: { rounds, seconds, clients, command: 'pgbench --select-only' },
    rows,
    measurements,
  }
  await writeFile(settings.output, `${JSON.stringify(report, null, 2)}\n`)
}

try {
  await main()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
