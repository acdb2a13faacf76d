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
