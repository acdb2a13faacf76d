/** Medians, ratios and the table. */
import { cpus, loadavg, release, totalmem } from 'node:os'
import { median } from './pgbench.ts'

export interface Measurement {
  contestant: string
  /** `prepared/tls` */
  workload: string
  round: number
  transactions: number
  tps: number
  /** Milliseconds. */
  p50: number
  /** Milliseconds of CPU for 1,000 transactions; undefined without a proxy. */
  cpu: number | undefined
  /** Audit events of the run: at least as many as transactions. */
  events: number | undefined
}

export interface Row {
  contestant: string
  workload: string
  rounds: number
  /** Medians over the rounds. */
  cpu_ms_per_1000: number | undefined
  /** By the medians. */
  cpu_ratio_to_pgbouncer: number | undefined
  tps: number
  tps_ratio_to_pgbouncer: number | undefined
  p50_ms: number
}

export function rowsOf(measurements: readonly Measurement[]): Row[] {
  const groups = Map.groupBy(measurements, ({ workload, contestant }) => `${workload} ${contestant}`)
  const rows = [...groups.values()].map((group): Row => {
    const { contestant, workload } = group[0]!
    const cpu = group.map((one) => one.cpu).filter((value) => value !== undefined)
    return {
      contestant,
      workload,
      rounds: group.length,
      cpu_ms_per_1000: cpu.length === 0 ? undefined : median(cpu),
      cpu_ratio_to_pgbouncer: undefined,
      tps: median(group.map(({ tps }) => tps)),
      tps_ratio_to_pgbouncer: undefined,
      p50_ms: median(group.map(({ p50 }) => p50)),
    }
  })
  for (const row of rows) {
    const reference = rows.find(({ contestant, workload }) => contestant === 'pgbouncer' && workload === row.workload)
    if (reference === undefined) continue
    row.tps_ratio_to_pgbouncer = row.tps / reference.tps
    if (row.cpu_ms_per_1000 !== undefined && reference.cpu_ms_per_1000 !== undefined) {
      row.cpu_ratio_to_pgbouncer = row.cpu_ms_per_1000 / reference.cpu_ms_per_1000
    }
  }
  return rows
}

const fixed = (value: number | undefined, digits: number): string => value?.toFixed(digits) ?? '–'

/** A Markdown table, which is readable in a terminal too. */
export function tableOf(rows: readonly Row[]): string {
  const header = ['workload', 'contestant', 'CPU ms / 1,000 tx', '× pgbouncer', 'tps', '× pgbouncer', 'p50 ms']
  const cells = rows.map((row) => [
    row.workload,
    row.contestant,
    fixed(row.cpu_ms_per_1000, 1),
    fixed(row.cpu_ratio_to_pgbouncer, 2),
    fixed(row.tps, 0),
    fixed(row.tps_ratio_to_pgbouncer, 2),
    fixed(row.p50_ms, 2),
  ])
  const all = [header, ...cells]
  const widths = header.map((_, column) => Math.max(...all.map((line) => line[column]?.length ?? 0)))
  const lineOf = (line: readonly string[]): string =>
    `| ${line.map((cell, column) => (column < 2 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!))).join(' | ')} |`
  const rule = `| ${widths.map((width, column) => (column < 2 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)).join(' | ')} |`
  return [lineOf(header), rule, ...cells.map(lineOf)].join('\n')
}

export function machine(): Record<string, string | number> {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memory_gib: Math.round(totalmem() / 1024 ** 3),
    kernel: release(),
    node: process.versions.node,
    load_average_at_start: Number(loadavg()[0]?.toFixed(2)),
  }
}
