/** `npm run bench`: what pgusher costs, beside other proxies and none. See README.md. */
import { writeFile } from 'node:fs/promises'
import { loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import type { Contestant } from './contestants/contestant.ts'
import { CONTESTANTS, NAMES, type Name } from './contestants/index.ts'
import { type Failure, type Measurement, measurePart } from './measure.ts'
import type { Bench, Part } from './part.ts'
import { PARTS } from './parts/index.ts'
import { versionOf } from './processes.ts'
import { updateReadme } from './readme.ts'
import { failureList, machine, partTable, targetTable } from './report.ts'
import { resultsOf } from './results.ts'
import { type Stage, startStage } from './stage.ts'
import { verdicts } from './targets.ts'

const SAVED = new URL('results.json', import.meta.url)

/** Seconds after which no further measurement is begun. */
const TIME = { quick: 165, full: 29 * 60 }

const USAGE = `npm run bench -- [options]
  --quick        one round of short runs, less than three minutes in all; without it less than thirty
  --only LIST    parts (${PARTS.map(({ name }) => name).join(', ')}) and contestants (${NAMES.join(', ')}), with commas
  --rounds N     of each part; without it each has its own number
  --output FILE  where the JSON goes
  --save         JSON to bench/results.json and the tables to bench/README.md`

/** Ctrl-C ends the bench with its servers and files, after the run that is under way. */
const stop = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stop.abort(new Error(`ended by ${signal}`)))

interface Settings {
  quick: boolean
  rounds: number | undefined
  output: string | undefined
  save: boolean
  parts: readonly Part[]
  names: readonly Name[]
}

function settingsOf(argv: readonly string[]): Settings {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string', default: '' },
      rounds: { type: 'string' },
      output: { type: 'string' },
      save: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) throw new Error(USAGE)
  const only = values.only.split(',').filter(Boolean)
  const parts = PARTS.filter(({ name }) => only.includes(name))
  const names = NAMES.filter((name) => only.includes(name))
  const unknown = only.find((name) => ![...PARTS.map((part) => part.name), ...NAMES].includes(name))
  if (unknown !== undefined) throw new Error(`${unknown} is neither a part nor a contestant\n${USAGE}`)
  return {
    quick: values.quick,
    rounds: values.rounds === undefined ? (values.quick ? 1 : undefined) : Number(values.rounds),
    output: values.output,
    save: values.save,
    parts: parts.length > 0 ? parts : PARTS,
    names: names.length > 0 ? names : NAMES,
  }
}

/** Those that the parts need, but for the ones that a part starts itself. */
async function startAll(
  stage: Stage,
  { parts, names }: Settings,
  stack: AsyncDisposableStack,
): Promise<Map<Name, Contestant>> {
  const running = new Map<Name, Contestant>()
  const needed = new Set(
    parts.flatMap((part) => part.cases({ quick: false }).flatMap(({ contestants }) => contestants)),
  )
  for (const name of names.filter((one) => needed.has(one))) {
    const contestant = await CONTESTANTS[name](stage)
    if (typeof contestant === 'string') {
      console.log(`${name} takes no part: ${contestant}`)
      continue
    }
    stack.defer(() => contestant.stop())
    running.set(name, contestant)
  }
  return running
}

function benchOf(stage: Stage, { quick }: Settings, begun: number): Bench {
  const deadline = begun + (quick ? TIME.quick : TIME.full) * 1_000
  return {
    ...{ stage, quick, signal: stop.signal, deadline },
    async startAnew(name) {
      const contestant = await CONTESTANTS[name](stage)
      if (typeof contestant === 'string') throw new Error(contestant)
      return contestant
    },
  }
}

interface Outcome {
  measurements: Measurement[]
  failures: Failure[]
  /** Parts that could not be measured here, with the reason. */
  leftOut: { part: string; reason: string }[]
  versions: Record<string, string>
}

async function measureAll(settings: Settings): Promise<Outcome> {
  const begun = performance.now()
  await using stack = new AsyncDisposableStack()
  const stage = await startStage()
  stack.defer(() => stage.stop())
  const contestants = await startAll(stage, settings, stack)
  const bench = benchOf(stage, settings, begun)
  const outcome: Outcome = { measurements: [], failures: [], leftOut: [], versions: {} }
  for (const [name, { version }] of contestants) outcome.versions[name] = version
  for (const part of settings.parts) await runPart(part, contestants, bench, settings, outcome)
  return outcome
}

async function runPart(
  part: Part,
  contestants: ReadonlyMap<Name, Contestant>,
  bench: Bench,
  settings: Settings,
  outcome: Outcome,
): Promise<void> {
  stop.signal.throwIfAborted()
  const leaveOut = (reason: string): void => {
    console.log(`${part.name} is left out: ${reason}`)
    outcome.leftOut.push({ part: part.name, reason })
  }
  const begun = performance.now()
  if (begun > bench.deadline) return leaveOut('there was no time left')
  try {
    const reason = await part.prepare?.(bench)
    if (reason !== undefined) return leaveOut(reason)
    const rounds = settings.rounds ?? part.rounds
    const { measurements, failures, cutShort } = await measurePart(part, contestants, bench, rounds)
    outcome.measurements.push(...measurements)
    outcome.failures.push(...failures)
    if (cutShort) leaveOut('there was no time for all of it')
  } finally {
    await part.end?.()
    console.log(`${part.name} took ${Math.round((performance.now() - begun) / 1_000)} s`)
  }
}

async function main(): Promise<void> {
  const settings = settingsOf(process.argv.slice(2))
  const client = await versionOf('pgbench', '--version')
  if (client === undefined) throw new Error('pgbench is not installed (apt-get install postgresql postgresql-contrib)')
  const described = machine()
  const begun = performance.now()
  const { measurements, failures, leftOut, versions } = await measureAll(settings)
  const seconds = Math.round((performance.now() - begun) / 1_000)
  const results = resultsOf(measurements)
  const measuredParts = settings.parts.filter(({ name }) => results.rows.some((row) => row.part === name))
  const tables = measuredParts.map((part) => ({ title: `${part.name}: ${part.title}`, text: partTable(part, results) }))
  for (const { title, text } of tables) console.log(`\n${title}\n\n${text}`)
  console.log(`\nTargets\n\n${targetTable(results)}`)
  if (failures.length > 0) console.log(`\nFailed:\n${failureList(failures)}`)
  const report = {
    date: new Date().toISOString(),
    machine: { ...described, load_average_at_end: Number(loadavg()[0]?.toFixed(2)) },
    versions: { ...versions, pgbench: client },
    settings: { quick: settings.quick, rounds: settings.rounds, seconds },
    ...{ targets: verdicts(results), left_out: leftOut, failures, rows: results.rows, measurements },
  }
  if (settings.save) await updateReadme(report, [...tables, { title: 'Targets', text: targetTable(results) }])
  for (const file of [settings.output, settings.save ? SAVED : undefined]) {
    if (file !== undefined) await writeFile(file, `${JSON.stringify(report, null, 2)}\n`)
  }
  console.log(`\n${seconds} s, load average ${described.load_average_at_start} at the start`)
  if (failures.length > 0) process.exitCode = 1
}

try {
  await main()
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
