/** One measurement of CPU, and a part's measurements in turns. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Contestant } from './contestants/contestant.ts'
import type { Name } from './contestants/index.ts'
import type { Bench, Case, Figures, Part } from './part.ts'
import { cpuBetween, readCpu } from './proc.ts'

/** How long the last events of a run may take: each new text is classified first, and what that costs belongs to the run. */
const SETTLE = { deadline: 5_000, poll: 100 }
/** How long a job's credential may take to go: it lingers for 2 s after the job. */
const CREDENTIALS_DEADLINE = 15_000
/** Seconds, of each contestant and in each part: V8 has compiled what is hot by then. */
const WARM_UP = 4
/** Of a quick bench, once a contestant has had the others in another part. */
const WARM_UP_AGAIN = 1.5
const warmed = new WeakSet<Contestant>()

export interface Measurement {
  part: string
  case: string
  contestant: Name
  round: number
  figures: Figures
}

export interface Failure {
  part: string
  case: string
  contestant: Name
  reason: string
}

export interface Measured<T> {
  result: T
  /** CPU seconds of the contestant; undefined without a process. */
  cpu: number | undefined
  wall: number
}

export interface Demands {
  /** Audit events that the work must leave at least: a fast run without its audit would prove nothing. */
  events?: number
  /** Wait until the jobs' credentials are taken back, which belongs to the work. */
  credentials?: boolean
}

/** @throws Error where fewer events were recorded than `demands` says. */
export async function measured<T>(
  contestant: Contestant,
  work: () => Promise<T>,
  demands: (result: T) => Demands,
): Promise<Measured<T>> {
  const before = await contestant.events?.()
  const cpu = await readCpu(contestant.pids)
  const begun = performance.now()
  const result = await work()
  const wall = (performance.now() - begun) / 1_000
  const { events = 0, credentials = false } = demands(result)
  const { events: recorded, credentials: live } = contestant
  if (recorded !== undefined && before !== undefined) {
    await until(
      async () => (await recorded()) - before >= events,
      SETTLE.deadline,
      `${events} events were not recorded`,
    )
  }
  if (credentials && live !== undefined) {
    await until(async () => (await live()) === 0, CREDENTIALS_DEADLINE, 'credentials were not taken back')
  }
  const used = cpuBetween(cpu, await readCpu(contestant.pids))
  return { result, cpu: contestant.pids.length === 0 ? undefined : used, wall }
}

async function until(holds: () => Promise<boolean>, milliseconds: number, otherwise: string): Promise<void> {
  const deadline = performance.now() + milliseconds
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`${otherwise} within ${milliseconds / 1_000} s`)
    await delay(SETTLE.poll)
  }
}

/** Figures without those that are not known: JSON has no place for them. */
export function known(figures: { [metric in keyof Figures]: number | undefined }): Figures {
  return Object.fromEntries(Object.entries(figures).filter(([, value]) => value !== undefined && !Number.isNaN(value)))
}

/** All contestants at once: nothing is measured yet. A case that fails here fails again when it is measured, and says so then. */
async function warmUp(cases: readonly Case[], contestants: ReadonlyMap<Name, Contestant>, bench: Bench): Promise<void> {
  const warm = async ([name, contestant]: [Name, Contestant]): Promise<void> => {
    const own = cases.filter((one) => one.contestants.includes(name))
    if (own.length === 0) return
    const seconds = bench.quick && warmed.has(contestant) ? WARM_UP_AGAIN : WARM_UP
    warmed.add(contestant)
    const end = performance.now() + seconds * 1_000
    for (let index = 0; index < own.length || performance.now() < end; index++) {
      bench.signal.throwIfAborted()
      const one = own[index % own.length]!
      await (one.warmUp ?? one.run)(contestant, bench, name).catch(() => {})
    }
  }
  await Promise.all([...contestants].map(warm))
}

export interface PartResult {
  measurements: Measurement[]
  failures: Failure[]
  /** There was no time for all of the first round. */
  cutShort: boolean
}

/**
 * Contestants take turns within each case and round, in another order each round, so that whatever else the machine does meets all
 * of them.
 */
export async function measurePart(
  part: Part,
  contestants: ReadonlyMap<Name, Contestant>,
  bench: Bench,
  rounds: number,
): Promise<PartResult> {
  const measurements: Measurement[] = []
  const failures: Failure[] = []
  const cases = part.cases(bench)
  if (part.warm) await warmUp(cases, contestants, bench)
  const begun = performance.now()
  for (let round = 1; round <= rounds; round++) {
    for (const one of cases) {
      const names = one.contestants.filter((name) => contestants.has(name))
      if (round === 1)
        for (const name of names) await one.rehearse?.(contestants.get(name)!, bench, name).catch(() => {})
      for (let turn = 0; turn < names.length; turn++) {
        bench.signal.throwIfAborted()
        if (performance.now() > bench.deadline) return { measurements, failures, cutShort: round === 1 }
        const contestant = names[(turn + round - 1) % names.length]!
        const at = { part: part.name, case: one.name, contestant }
        if (failures.some((failure) => failure.case === one.name && failure.contestant === contestant)) continue
        try {
          const figures = await one.run(contestants.get(contestant)!, bench, contestant)
          measurements.push({ ...at, round, figures })
          const shown = Object.entries(figures).map(([metric, value]) => `${metric} ${value.toPrecision(4)}`)
          console.log(`round ${round} ${part.name} ${one.name} ${contestant}: ${shown.join(', ')}`)
        } catch (error) {
          bench.signal.throwIfAborted()
          const reason = error instanceof Error ? error.message.trim() : String(error)
          failures.push({ ...at, reason })
          console.log(`round ${round} ${part.name} ${one.name} ${contestant} FAILED: ${reason}`)
        }
      }
    }
    const elapsed = (performance.now() - begun) / 1_000
    if (elapsed + elapsed / round > part.budget) break
  }
  return { measurements, failures, cutShort: false }
}
