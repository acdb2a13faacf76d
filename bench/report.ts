/** Tables in Markdown, which is readable in a terminal too, and the machine's description. */
import { cpus, loadavg, release, totalmem } from 'node:os'
import type { Failure } from './measure.ts'
import { METRICS, type Metric, type Part } from './part.ts'
import type { Results, Row } from './results.ts'
import { TARGETS, verdicts } from './targets.ts'

const dash = (value: number | undefined, digits: number): string => value?.toFixed(digits) ?? '–'

/** @param texts how many columns from the left hold text, and stand at its left */
function table(header: readonly string[], lines: readonly (readonly string[])[], texts: number): string {
  const widths = header.map((_, column) => Math.max(...[header, ...lines].map((line) => line[column]?.length ?? 0)))
  const pad = (cell: string, column: number): string =>
    column < texts ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)
  const rule = widths.map((width, column) => (column < texts ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`))
  return [header.map(pad), rule, ...lines.map((line) => line.map(pad))]
    .map((line) => `| ${line.join(' | ')} |`)
    .join('\n')
}

/** Ratios to pgbouncer stand beside what is a cost of the proxy. */
const COMPARED: readonly Metric[] = [
  'cpu_ms_per_1000',
  'cpu_ms_per_connect',
  'cpu_s_per_gb',
  'cpu_s',
  'tps',
  'connects_per_s',
]

export function partTable(part: Part, results: Results): string {
  const rows = results.rows.filter((row) => row.part === part.name)
  const metrics = (Object.keys(METRICS) as Metric[]).filter((metric) => rows.some(({ figures }) => metric in figures))
  const columns = metrics.flatMap((metric) => (isCompared(metric, rows) ? [metric, undefined] : [metric]))
  const header = [
    'case',
    'contestant',
    ...columns.map((metric) => (metric === undefined ? '× pgbouncer' : METRICS[metric].title)),
  ]
  const lines = rows.map((row) => {
    const cells = columns.map((metric, index) => {
      if (metric !== undefined) return dash(row.figures[metric], METRICS[metric].digits)
      const compared = columns[index - 1]!
      const [own, reference] = [row.figures[compared], results.of(part.name, row.case, 'pgbouncer', compared)]
      return dash(own === undefined || reference === undefined ? undefined : own / reference, 2)
    })
    return [row.case, row.contestant, ...cells]
  })
  return table(header, lines, 2)
}

const isCompared = (metric: Metric, rows: readonly Row[]): boolean =>
  COMPARED.includes(metric) && rows.some(({ contestant, figures }) => contestant === 'pgbouncer' && metric in figures)

const DIGITS = { '×': 2, ms: 2, µs: 1, KB: 1 } as const

/** Each target beside its figure. */
export function targetTable(results: Results): string {
  const found = verdicts(results)
  const lines = TARGETS.map(({ measure, unit, bound, target, stretch }, index) => {
    const { figure, verdict } = found[index]!
    const suffix = unit === '×' ? '' : ` ${unit}`
    const limit = (value: number): string => `${bound} ${value}${suffix}`
    return [
      measure,
      verdict,
      figure === undefined ? '–' : `${figure.toFixed(DIGITS[unit])}${suffix}`,
      limit(target),
      limit(stretch),
    ]
  })
  return table(['measure', 'verdict', 'figure', 'target', 'stretch'], lines, 2)
}

export function failureList(failures: readonly Failure[]): string {
  return failures.map((one) => `- ${one.part} ${one.case}, ${one.contestant}: ${one.reason}`).join('\n')
}

export interface Machine {
  cpu: string
  cores: number
  memory_gib: number
  kernel: string
  node: string
  load_average_at_start: number
}

export function machine(): Machine {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memory_gib: Math.round(totalmem() / 1024 ** 3),
    // What distributions and hosts put behind the version says nothing of it.
    kernel: release().split('-')[0] ?? '',
    node: process.versions.node,
    load_average_at_start: Number(loadavg()[0]?.toFixed(2)),
  }
}
