/** What pgusher is to reach, each from the medians of one run on one machine. */
import type { Name } from './contestants/index.ts'
import type { Metric } from './part.ts'
import type { Results } from './results.ts'

export interface Target {
  measure: string
  unit: '×' | 'ms' | 'µs' | 'KB'
  /** At most, or at least. */
  bound: '≤' | '≥'
  target: number
  /** What would be better still. */
  stretch: number
  /** Undefined where something it is made of was not measured. */
  figure(results: Results): number | undefined
}

export interface Verdict {
  measure: string
  figure: number | undefined
  verdict: 'stretch' | 'reached' | 'not reached' | 'not measured'
}

const RESUMED = 'same-job/tls-resumed'

type Figure = Target['figure']
const figure =
  (part: string, name: string, metric: Metric, contestant: Name = 'pgusher'): Figure =>
  (results) =>
    results.of(part, name, contestant, metric)

const combine =
  (a: Figure, b: Figure, how: (a: number, b: number) => number): Figure =>
  (results) => {
    const [first, second] = [a(results), b(results)]
    return first === undefined || second === undefined ? undefined : how(first, second)
  }

const times = (part: string, name: string, metric: Metric, other: Name): Figure =>
  combine(figure(part, name, metric), figure(part, name, metric, other), (ours, theirs) => ours / theirs)

const cpuPerTransaction = (name: string, where: string, target: number, stretch: number): Target => ({
  measure: `CPU a transaction, prepared, ${where}, × pgbouncer`,
  ...{ unit: '×', bound: '≤', target, stretch },
  figure: times('select', name, 'cpu_ms_per_1000', 'pgbouncer'),
})

const throughput = (variant: string, target: number): Target => ({
  measure: `saturated tps, prepared, ${variant}, 8 clients, × pgbouncer`,
  ...{ unit: '×', bound: '≥', target, stretch: 0.95 },
  figure: times('select', `prepared/8/${variant}`, 'tps', 'pgbouncer'),
})

const addedLatency = (variant: string, target: number, stretch: number): Target => ({
  measure: `added p50, prepared, ${variant}, 1 client`,
  ...{ unit: 'µs', bound: '≤', target, stretch },
  figure: combine(
    figure('select', `prepared/1/${variant}`, 'p50_ms'),
    figure('select', `prepared/1/${variant}`, 'p50_ms', 'direct'),
    (ours, direct) => (ours - direct) * 1_000,
  ),
})

const bulk = (what: string, name: string, target: number, stretch: number): Target => ({
  measure: `CPU a GB, ${what}, × pgbouncer`,
  ...{ unit: '×', bound: '≤', target, stretch },
  figure: times('bulk', name, 'cpu_s_per_gb', 'pgbouncer'),
})

const connectCpu = (what: string, name: string, target: number, stretch: number): Target => ({
  measure: `proxy CPU for a connection of the same job, ${what}`,
  ...{ unit: 'ms', bound: '≤', target, stretch },
  figure: figure('churn', name, 'cpu_ms_per_connect'),
})

/** Only where the client's TLS sessions were really resumed. */
const resumedOnly = (of: Target): Target => ({
  ...of,
  figure: (results) =>
    (figure('churn', RESUMED, 'resumed_share')(results) ?? 0) > 0.9 ? of.figure(results) : undefined,
})

const memory = (variant: 'plain' | 'tls', when: 'idle' | 'used', target: number, stretch: number): Target => ({
  measure: `resident memory a session, ${variant}, ${when === 'idle' ? 'idle' : 'after a result of 200 KB'}`,
  ...{ unit: 'KB', bound: '≤', target, stretch },
  // A quick bench has fewer sessions.
  figure: (results) => {
    const row = results.rows.find(
      (one) => one.part === 'idle' && one.case.endsWith(`/${variant}`) && one.contestant === 'pgusher',
    )
    return row?.figures[`${when}_kb_per_session`]
  },
})

const ciTrace = (variant: 'plain' | 'tls'): Target[] => [
  {
    measure: `ci-trace, ${variant}, proxy CPU, × pgbouncer`,
    ...{ unit: '×', bound: '≤', target: 1, stretch: 0.8 },
    figure: times('ci-trace', variant, 'cpu_s', 'pgbouncer'),
  },
  {
    measure: `ci-trace, ${variant}, wall time, × direct`,
    ...{ unit: '×', bound: '≤', target: 1.1, stretch: 1 },
    figure: times('ci-trace', variant, 'wall_s', 'direct'),
  },
]

export const TARGETS: readonly Target[] = [
  cpuPerTransaction('prepared/8/plain', 'plain, 8 clients', 1.6, 1.3),
  cpuPerTransaction('prepared/32/plain', 'plain, 32 clients', 1.6, 1.3),
  cpuPerTransaction('prepared/8/tls', 'TLS, 8 clients', 1.5, 1.25),
  cpuPerTransaction('prepared/32/tls', 'TLS, 32 clients', 1.7, 1.25),
  cpuPerTransaction('prepared/8/both', 'TLS on both sides, 8 clients', 1.6, 1.3),
  cpuPerTransaction('prepared/32/both', 'TLS on both sides, 32 clients', 1.7, 1.3),
  throughput('plain', 0.78),
  throughput('tls', 0.83),
  addedLatency('plain', 95, 80),
  addedLatency('tls', 75, 55),
  bulk('1 KB rows, plain', 'copy-out-1kb/plain', 0.75, 0.55),
  bulk('small rows, plain', 'copy-out-small/plain', 1, 0.75),
  bulk('COPY out, TLS', 'copy-out-1kb/tls', 0.55, 0.45),
  bulk('COPY in, TLS', 'copy-in/tls', 0.9, 0.75),
  {
    measure: 'cost of the audit, a prepared statement',
    ...{ unit: 'µs', bound: '≤', target: 3, stretch: 1 },
    // Milliseconds for a thousand are microseconds for one.
    figure: combine(
      figure('audit', 'prepared', 'cpu_ms_per_1000'),
      figure('audit', 'prepared', 'cpu_ms_per_1000', 'relay'),
      (recorded, unrecorded) => recorded - unrecorded,
    ),
  },
  {
    measure: 'connections a second, TLS, same job, × direct',
    ...{ unit: '×', bound: '≥', target: 6, stretch: 10 },
    figure: times('churn', 'same-job/tls', 'connects_per_s', 'direct'),
  },
  connectCpu('plain', 'same-job/plain', 0.25, 0.2),
  connectCpu('TLS in full', 'same-job/tls', 0.75, 0.6),
  resumedOnly(connectCpu('TLS resumed', RESUMED, 0.6, 0.45)),
  {
    measure: 'a role made and dropped, one at a time, beyond its commits',
    ...{ unit: 'ms', bound: '≤', target: 2, stretch: 2 },
    figure: figure('mint', 'one-at-a-time', 'beyond_commits_ms'),
  },
  {
    measure: '16 at once by one minter, rate × that of 16 minters',
    // A queue of pgusher's own would show here; measurements vary by a tenth.
    ...{ unit: '×', bound: '≥', target: 0.9, stretch: 1 },
    figure: combine(
      figure('mint', '16-at-once', 'mints_per_s'),
      figure('mint', '16-at-once, 16 minters', 'mints_per_s'),
      (one, sixteen) => one / sixteen,
    ),
  },
  memory('plain', 'idle', 30, 20),
  memory('plain', 'used', 30, 20),
  memory('tls', 'idle', 65, 50),
  memory('tls', 'used', 65, 50),
  ...ciTrace('plain'),
  ...ciTrace('tls'),
]

export function verdicts(results: Results): Verdict[] {
  return TARGETS.map(({ measure, bound, target, stretch, figure: of }) => {
    const value = of(results)
    const meets = (limit: number): boolean => value !== undefined && (bound === '≤' ? value <= limit : value >= limit)
    const verdict =
      value === undefined ? 'not measured' : meets(stretch) ? 'stretch' : meets(target) ? 'reached' : 'not reached'
    return { measure, figure: value, verdict }
  })
}
