/** Holds the audit against PostgreSQL's own log, and samples of the process against each other. */
import { createReadStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { openSockets, readMetrics, type Samples, total } from '../test/support/nothing-left.ts'
import type { Standalone } from '../test/support/standalone.ts'

const MiB = 1024 * 1024

export interface Sample {
  /** `performance.now()`. */
  at: number
  rss: number
  /** JavaScript objects and what they hold outside of the heap. */
  heap: number
  sockets: number
  sessions: number
  credentials: number
  timers: number
}

async function resident(pid: number): Promise<number> {
  return Number(/VmRSS:\s+(\d+) kB/.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
}

export const timersOf = (samples: Samples): number => samples.get('nodejs_active_resources{type="Timeout"}') ?? 0

export async function takeSample(stage: Standalone): Promise<Sample> {
  const samples = await readMetrics(stage.httpAddress)
  return {
    at: performance.now(),
    rss: await resident(stage.pid),
    heap: total(samples, 'nodejs_heap_size_used_bytes') + total(samples, 'nodejs_external_memory_bytes'),
    sockets: await openSockets(stage.pid),
    sessions: samples.get('pgusher_sessions') ?? Number.NaN,
    credentials: total(samples, 'pgusher_credentials'),
    timers: timersOf(samples),
  }
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN

/** From the second quarter to the last: the first is the warming up. Bytes; a peak that passes does not count. */
export function growthOf(samples: readonly Sample[], of: 'heap' | 'rss' = 'heap'): number {
  const quarter = Math.max(1, Math.floor(samples.length / 4))
  const values = samples.map((sample) => sample[of])
  return median(values.slice(-quarter)) - median(values.slice(quarter, 2 * quarter))
}

export const shownMiB = (bytes: number): string => `${Math.round(bytes / MiB)} MiB`

interface Executed {
  /** SQLSTATE; empty for success. */
  code: string
}

const NUMBER = /\/\*(\d+)\*\//g
const numbersOf = (text: string): string[] => [...text.matchAll(NUMBER)].map(([, number]) => number ?? '')

/** By number. A statement of several lines does not occur in the workload. */
async function fromLog(logFile: string): Promise<Map<string, Executed>> {
  const executed = new Map<string, Executed>()
  const failed = new Map<string, string>()
  for await (const line of createInterface({ input: createReadStream(logFile, 'utf8') })) {
    const [, pid = '', code = '', kind, text = ''] = /^(\d+) (\w{5}) (\w+): {2}(.*)$/.exec(line) ?? []
    if (kind === 'LOG' && /^duration: \S+ ms {2}(statement|execute [^:]*): /.test(text)) {
      for (const number of numbersOf(text)) executed.set(number, { code: '' })
    } else if (kind === 'ERROR') failed.set(pid, code)
    else if (kind === 'STATEMENT') {
      for (const number of numbersOf(text))
        if (!executed.has(number)) executed.set(number, { code: failed.get(pid) ?? '' })
    }
  }
  return executed
}

interface Recorded {
  outcome: string
  code: string
}

/** By number. What was prepared or bound and never executed, and what was refused or thrown away, ran nowhere. */
async function fromAudit(files: readonly string[]): Promise<{ executed: Map<string, Recorded>; twice: string[] }> {
  const executed = new Map<string, Recorded>()
  const twice: string[] = []
  for (const file of files) {
    for await (const line of createInterface({ input: createReadStream(file, 'utf8') })) {
      const { event, pgusher, db, error } = JSON.parse(line)
      if (event !== 'statement') continue
      if (['prepared_only', 'bound_only', 'not_executed'].includes(error?.type)) continue
      for (const number of numbersOf(db?.query?.text ?? '')) {
        if (executed.has(number)) twice.push(number)
        executed.set(number, { outcome: pgusher.outcome, code: db?.response?.status_code ?? '' })
      }
    }
  }
  return { executed, twice }
}

export interface Difference {
  compared: number
  violations: string[]
}

/** The end of what is said of such a statement. */
export const NOT_RECORDED = 'is not recorded'

/** What PostgreSQL ran is recorded once with the same outcome, and nothing is a success that it did not run. */
export async function compareWithLog(files: readonly string[], logFile: string): Promise<Difference> {
  const [log, { executed: audit, twice }] = await Promise.all([fromLog(logFile), fromAudit(files)])
  const violations = twice.map((number) => `statement ${number} is recorded twice`)
  let compared = 0
  for (const [number, { code }] of log) {
    const recorded = audit.get(number)
    if (recorded === undefined)
      violations.push(`statement ${number} ran at PostgreSQL (${code || 'success'}) and ${NOT_RECORDED}`)
    else if (recorded.outcome !== 'unknown') {
      compared++
      const told = recorded.outcome === 'success' ? '' : recorded.code
      if (told !== code) violations.push(`statement ${number}: "${told}" in the audit, "${code}" at PostgreSQL`)
    }
  }
  for (const [number, { outcome }] of audit) {
    if (outcome === 'success' && !log.has(number)) violations.push(`statement ${number} is a success and did not run`)
  }
  return { compared, violations }
}
