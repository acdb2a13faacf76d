/** What every part of the fuzzer has in common: how far it goes, what it counts, what it says of a case that failed. */
import { createHistogram } from 'node:perf_hooks'
import { setImmediate as turn } from 'node:timers/promises'
import { createRandom, type Random } from './random.ts'

export interface Budget {
  seed: number
  /** Frames each way for sessions; other parts take a share of it. */
  count: number
  /** `performance.now()` at which the part ends, done or not. */
  deadline: number
  /** This case alone. */
  only: number | undefined
}

export interface Outcome {
  part: string
  cases: number
  /** What the part counts, e.g. `frames from clients`. */
  figures: Record<string, number>
  /** Milliseconds of this thread's CPU that 99 of 100 cases took at most; a machine that is busy with others does not count. */
  p99: number
  /** What must not be, in words; empty where all held. */
  violations: string[]
}

/** @throws anything, for a case that failed; `input` shows what it was given */
export type Case = (random: Random, input: (bytes: Buffer | string) => void) => unknown

const MAX_VIOLATIONS = 5
const SHOWN = 1_500
/** Milliseconds after which the event loop gets its turn; a case takes less than one. */
const SLICE = 5

export function threadMicroseconds(): number {
  const { user, system } = process.threadCpuUsage()
  return user + system
}

/** Plays cases until `enough` or the deadline. A case that throws is reported with what it was given, and the others go on. */
export async function playCases(
  part: string,
  budget: Budget,
  enough: (cases: number) => boolean,
  play: Case,
): Promise<Outcome> {
  const outcome: Outcome = { part, cases: 0, figures: {}, p99: 0, violations: [] }
  const times = createHistogram()
  let sliceEnd = performance.now() + SLICE
  for (let index = budget.only ?? 0; ; index++) {
    const inputs: Buffer[] = []
    const began = threadMicroseconds()
    try {
      const made = play(createRandom(budget.seed, saltOf(part), index), (bytes) => inputs.push(Buffer.from(bytes)))
      if (made instanceof Promise) await made
    } catch (error) {
      outcome.violations.push(shownCase(part, budget.seed, index, inputs, error))
    }
    outcome.cases++
    times.record(1 + threadMicroseconds() - began)
    outcome.p99 = times.percentile(99) / 1e3
    const late = performance.now() > budget.deadline
    if (late || budget.only !== undefined || outcome.violations.length >= MAX_VIOLATIONS || enough(outcome.cases))
      return outcome
    if (performance.now() < sliceEnd) continue
    await turn()
    sliceEnd = performance.now() + SLICE
  }
}

function saltOf(part: string): number {
  return [...part].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) >>> 0, 7)
}

function shownCase(part: string, seed: number, index: number, inputs: readonly Buffer[], error: unknown): string {
  const why = error instanceof Error ? (error.stack ?? error.message) : String(error)
  const given = inputs.map((bytes) => bytes.toString('base64').slice(0, SHOWN)).join('\n  ')
  return `${part}, case ${index} (npm run fuzz -- --only ${part} --seed ${seed} --case ${index}): ${why}\n  ${given}`
}
