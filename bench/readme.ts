/** Puts the tables of a run into README.md, between two marks. */
import { readFile, writeFile } from 'node:fs/promises'
import type { Machine } from './report.ts'

const README = new URL('README.md', import.meta.url)
const BEGIN = '<!-- tables: written by `npm run bench -- --save` -->'
const END = '<!-- end of tables -->'

export interface Described {
  date: string
  machine: Machine & { load_average_at_end: number }
  versions: Readonly<Record<string, string>>
  settings: { quick: boolean; seconds: number }
  failures: readonly unknown[]
}

export interface TitledTable {
  title: string
  text: string
}

/** @throws Error where the marks are not there. */
export async function updateReadme(report: Described, tables: readonly TitledTable[]): Promise<void> {
  const text = await readFile(README, 'utf8')
  const [begin, end] = [text.indexOf(BEGIN), text.indexOf(END)]
  if (begin < 0 || end < begin) throw new Error('bench/README.md has lost the marks between which the tables stand')
  const parts = [preface(report), ...tables.map((table) => `### ${table.title}\n\n${table.text}`)]
  await writeFile(README, `${text.slice(0, begin)}${BEGIN}\n\n${parts.join('\n\n')}\n\n${text.slice(end)}`)
}

function preface({ date, machine, versions, settings, failures }: Described): string {
  const { cpu, cores, memory_gib, kernel, load_average_at_start, load_average_at_end } = machine
  const kind = settings.quick ? 'A quick run (`--quick`), one round of short runs' : 'A whole run'
  const contestants = Object.entries(versions).map(([name, version]) => `${name}: ${version}`)
  return [
    `${kind} of ${date.slice(0, 10)}, ${settings.seconds} s: ${cores} cores of ${cpu}, ${memory_gib} GiB, Linux ${kernel}; ${contestants.join('; ')}.`,
    `Load average ${load_average_at_start} at the start, ${load_average_at_end} at the end: what else ran on the machine is in the former.`,
    ...(failures.length > 0 ? [`${failures.length} measurements failed; they are in the JSON.`] : []),
  ].join('\n')
}
