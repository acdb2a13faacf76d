/** What the bench concludes from its figures; that it measures is seen by running it. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { METRICS, type Metric } from '../../bench/part.ts'
import { migration } from '../../bench/parts/ci-trace.ts'
import { PARTS } from '../../bench/parts/index.ts'
import { cpuBetween } from '../../bench/proc.ts'
import { targetTable } from '../../bench/report.ts'
import { resultsOf } from '../../bench/results.ts'
import { median, percentile } from '../../bench/statistics.ts'
import { TARGETS, verdicts } from '../../bench/targets.ts'

const METRIC_NAMES = Object.keys(METRICS) as Metric[]

/** Every case of a whole bench, each figure the same. */
function everything(value: number) {
  const figures = Object.fromEntries(METRIC_NAMES.map((metric) => [metric, value]))
  return PARTS.flatMap((part) =>
    part
      .cases({ quick: false })
      .flatMap((one) =>
        one.contestants.map((contestant) => ({ part: part.name, case: one.name, contestant, round: 1, figures })),
      ),
  )
}

test('a whole bench measures what each target is about', () => {
  const found = verdicts(resultsOf(everything(1)))
  expect(found.filter(({ verdict }) => verdict === 'not measured')).toEqual([])
})

test('a part that was left out leaves its targets unmeasured and fails none', () => {
  const found = verdicts(resultsOf([]))
  expect(new Set(found.map(({ verdict }) => verdict))).toEqual(new Set(['not measured']))
  expect(found).toHaveLength(TARGETS.length)
})

describe('a figure beside its target', () => {
  const rows = (pgusher: number) => [
    { part: 'tpcb', case: 'plain', contestant: 'direct' as const, round: 1, figures: { tps: 1 } },
    ...(['pgbouncer', 'pgusher'] as const).map((contestant) => ({
      ...{ part: 'select', case: 'prepared/8/plain', contestant, round: 1 },
      figures: { cpu_ms_per_1000: contestant === 'pgusher' ? pgusher : 10, tps: 1_000 },
    })),
  ]

  test.each([
    [17, 'not reached', '1.70'],
    [16, 'reached', '1.60'],
    [13, 'stretch', '1.30'],
  ])('%s ms beside 10 ms of pgbouncer is %s', (cpu, verdict, shown) => {
    const line = targetTable(resultsOf(rows(cpu))).split('\n')[2]
    expect(line).toMatch(new RegExp(`prepared, plain, 8 clients.*\\| ${verdict} +\\| +${shown} \\| +≤ 1.6 \\|`))
  })

  test('resumption counts only where the TLS sessions were resumed', () => {
    const resumed = (share: number) =>
      verdicts(
        resultsOf([
          {
            ...{ part: 'churn', case: 'same-job/tls-resumed', contestant: 'pgusher', round: 1 },
            figures: { cpu_ms_per_connect: 0.5, resumed_share: share },
          },
        ]),
      ).find(({ measure }) => measure.endsWith('TLS resumed'))?.verdict
    expect([resumed(0.95), resumed(0.1)]).toEqual(['reached', 'not measured'])
  })
})

test('medians and percentiles are values of the sample, or lie between two of them', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer(), { minLength: 1 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (values, share) => {
        const below = values.filter((value) => value <= median(values)).length
        const above = values.filter((value) => value >= median(values)).length
        expect(Math.min(below, above)).toBeGreaterThanOrEqual(values.length / 2)
        expect(values).toContain(percentile(values, share))
        expect(values.filter((value) => value <= percentile(values, share)).length).toBeGreaterThanOrEqual(
          Math.floor(values.length * share),
        )
      },
    ),
  )
})

test('CPU is that of the threads; of a process that lost one, that of its coarse clock', () => {
  const reading = (coarse: number, threads: Record<string, number>) => ({
    coarse,
    threads: new Map(Object.entries(threads)),
  })
  expect(cpuBetween(reading(1, { a: 1e9 }), reading(1.51, { a: 1.5e9, b: 7e6 }))).toBeCloseTo(0.507, 9)
  expect(cpuBetween(reading(1, { a: 1e9, b: 2e9 }), reading(1.5, { a: 1.4e9 }))).toBe(0.5)
})

test('the migration of the CI mix has sixty statements', () => {
  expect(migration('ci_1').trimEnd().split('\n')).toHaveLength(60)
})
