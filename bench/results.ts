/** Medians of the measurements, by part, case and contestant. */
import { NAMES, type Name } from './contestants/index.ts'
import type { Measurement } from './measure.ts'
import type { Figures, Metric } from './part.ts'
import { median } from './statistics.ts'

export interface Row {
  part: string
  case: string
  contestant: Name
  rounds: number
  /** Medians over the rounds. */
  figures: Figures
}

export interface Results {
  rows: readonly Row[]
  /** Undefined where it was not measured. */
  of(part: string, name: string, contestant: Name, metric: Metric): number | undefined
}

function medianFigures(all: readonly Figures[]): Figures {
  const metrics = new Set(all.flatMap((figures) => Object.keys(figures) as Metric[]))
  return Object.fromEntries(
    [...metrics].map((metric) => [metric, median(all.map((figures) => figures[metric] ?? Number.NaN))]),
  )
}

export function resultsOf(measurements: readonly Measurement[]): Results {
  const groups = Map.groupBy(measurements, (one) => `${one.part} ${one.case} ${one.contestant}`)
  const rows = [...groups.values()].map((group): Row => {
    const { part, case: name, contestant } = group[0]!
    return {
      part,
      case: name,
      contestant,
      rounds: group.length,
      figures: medianFigures(group.map((one) => one.figures)),
    }
  })
  // Turns change from round to round; tables have one order.
  const cases = [...new Set(rows.map((row) => `${row.part} ${row.case}`))]
  const place = (row: Row): number =>
    cases.indexOf(`${row.part} ${row.case}`) * NAMES.length + NAMES.indexOf(row.contestant)
  rows.sort((a, b) => place(a) - place(b))
  return {
    rows,
    of: (part, name, contestant, metric) =>
      rows.find((row) => row.part === part && row.case === name && row.contestant === contestant)?.figures[metric],
  }
}
