/** What a part of the bench is: cases, each of which is measured with each of its contestants in turn. */
import type { Contestant } from './contestants/contestant.ts'
import type { Name } from './contestants/index.ts'
import type { Stage } from './stage.ts'

/** What is measured, by its name in the results; the unit is in the name. `title` heads its column. */
export const METRICS = {
  cpu_ms_per_1000: { title: 'CPU ms / 1,000 tx', digits: 1 },
  cpu_ms_per_connect: { title: 'CPU ms / connect', digits: 2 },
  cpu_s_per_gb: { title: 'CPU s / GB', digits: 2 },
  cpu_s: { title: 'CPU s', digits: 2 },
  tps: { title: 'tps', digits: 0 },
  connects_per_s: { title: 'connects / s', digits: 0 },
  mb_per_s: { title: 'MB / s', digits: 0 },
  wall_s: { title: 'wall s', digits: 2 },
  p50_ms: { title: 'p50 ms', digits: 3 },
  p99_ms: { title: 'p99 ms', digits: 2 },
  max_ms: { title: 'slowest ms', digits: 0 },
  resumed_share: { title: 'resumed', digits: 2 },
  refused: { title: 'refused', digits: 0 },
  idle_kb_per_session: { title: 'KB / session', digits: 1 },
  used_kb_per_session: { title: 'KB / session after 200 KB', digits: 1 },
  process_mb: { title: 'process MB', digits: 0 },
  mints_per_s: { title: 'mint and drop / s', digits: 0 },
  mint_ms: { title: 'mint and drop ms', digits: 2 },
  commits: { title: 'commits of one', digits: 1 },
  commit_ms: { title: 'ms a commit', digits: 2 },
  beyond_commits_ms: { title: 'ms beyond commits', digits: 2 },
} as const satisfies Record<string, { title: string; digits: number }>

export type Metric = keyof typeof METRICS
export type Figures = Partial<Record<Metric, number>>

/** What a case is measured with. */
export interface Bench {
  stage: Stage
  quick: boolean
  /** Aborted by Ctrl-C. */
  signal: AbortSignal
  /** `performance.now()` after which nothing more is begun: a bench on a busy machine ends, too. */
  deadline: number
  /** Another process of a contestant, for figures that an earlier load would spoil. @throws Error where it is not installed */
  startAnew(name: Name): Promise<Contestant>
}

export interface Case {
  /** Unique within the part, e.g. `prepared/8/tls`. */
  name: string
  contestants: readonly Name[]
  run(contestant: Contestant, bench: Bench, name: Name): Promise<Figures>
  /** Less of the same for warming up; `run` without it. */
  warmUp?(contestant: Contestant, bench: Bench, name: Name): Promise<unknown>
  /** The same load before its first round, for each contestant by itself. */
  rehearse?(contestant: Contestant, bench: Bench, name: Name): Promise<unknown>
}

export interface Part {
  name: string
  /** For people. */
  title: string
  /** Rounds of a whole bench, and seconds after which no further round begins. */
  rounds: number
  budget: number
  /** False where a measurement starts its contestant itself, or warms it up in a way of its own. */
  warm: boolean
  /** Tables and files of its own. @returns why the part cannot be measured here */
  prepare?(bench: Bench): Promise<string | undefined>
  /** Takes down what `prepare` started. */
  end?(): Promise<void>
  cases(bench: Pick<Bench, 'quick'>): readonly Case[]
}
