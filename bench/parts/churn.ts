/** A connection for each statement, which is what short steps of a job are made of. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Contestant, Variant } from '../contestants/contestant.ts'
import type { Name } from '../contestants/index.ts'
import { startGenerator } from '../load/generator.ts'
import { pgbench } from '../load/pgbench.ts'
import { known, measured } from '../measure.ts'
import type { Bench, Case, Figures, Part } from '../part.ts'
import { percentile } from '../statistics.ts'
import { TAKING_PART } from './select.ts'

const CLIENTS = 8
/** session.started, one statement, session.ended. */
const EVENTS = 3

const scriptFile = (bench: Bench): string => join(bench.stage.scratch, 'churn.sql')

/** `pgbench --connect`, all of one job. libpq does not resume TLS sessions. */
async function reconnect(contestant: Contestant, variant: Variant, seconds: number, bench: Bench): Promise<Figures> {
  const address = await contestant.address(variant)
  const script = { file: scriptFile(bench) }
  const load = { protocol: 'simple', clients: CLIENTS, amount: { seconds }, script, reconnect: true } as const
  const { result, cpu } = await measured(
    contestant,
    () => pgbench(address, load, bench.stage.scratch),
    ({ transactions }) => ({ events: transactions * EVENTS }),
  )
  return known({
    cpu_ms_per_connect: cpu === undefined ? undefined : (cpu * 1_000) / result.transactions,
    connects_per_s: result.tps,
  })
}

interface Churn {
  count: number
  /** Each connection with the last one's TLS ticket. */
  resume?: boolean
  /** Each connection is another job: a token to verify and a role to mint, and to drop again. */
  newJobs?: boolean
  /** The jobs' roles need not be gone yet. */
  hurried?: boolean
}

/** The same by our own client. */
async function churnOf(
  contestant: Contestant,
  variant: Variant,
  { count, resume = false, newJobs = false, hurried = false }: Churn,
): Promise<Figures> {
  // Another run's jobs are other jobs again.
  const first = Math.floor(Math.random() * 1e9)
  const jobs = newJobs ? Array.from({ length: count }, (_, index) => first + index) : [0]
  const addresses = await Promise.all(jobs.map((job) => contestant.address(variant, job)))
  await using generator = startGenerator()
  const { result, cpu } = await measured(
    contestant,
    () => generator.churn(addresses, count, CLIENTS, resume),
    () => ({ events: count * EVENTS, credentials: newJobs && !hurried }),
  )
  if (result.errors.length > 0) throw new Error(`${result.errors.length} of ${count} failed: ${result.errors[0]}`)
  return known({
    cpu_ms_per_connect: cpu === undefined ? undefined : (cpu * 1_000) / count,
    connects_per_s: count / result.seconds,
    p50_ms: percentile(result.milliseconds, 0.5),
    p99_ms: percentile(result.milliseconds, 0.99),
    ...(resume ? { resumed_share: result.resumed / count } : {}),
  })
}

/** PostgreSQL gives no TLS tickets, and haproxy has no TLS of its own. */
const RESUMING: readonly Name[] = ['pgbouncer', 'pgusher']

export const churn: Part = {
  name: 'churn',
  title: 'A connection for each SELECT 1, 8 clients',
  ...{ rounds: 3, budget: 150, warm: true },
  async prepare(bench) {
    await writeFile(scriptFile(bench), 'SELECT 1;\n')
    return undefined
  },
  cases({ quick }) {
    const seconds = quick ? 1 : 3
    const count = quick ? 60 : 400
    const sameJob = (['plain', 'tls'] as const).map(
      (variant): Case => ({
        name: `same-job/${variant}`,
        contestants: [...TAKING_PART[variant], 'pgusher-cold'],
        run: (contestant, bench) => reconnect(contestant, variant, seconds, bench),
        warmUp: (contestant, bench) => reconnect(contestant, variant, 1, bench),
      }),
    )
    return [
      ...sameJob,
      {
        name: 'same-job/tls-resumed',
        contestants: RESUMING,
        run: (contestant) => churnOf(contestant, 'tls', { count: count * 2, resume: true }),
        warmUp: (contestant) => churnOf(contestant, 'tls', { count: 100, resume: true }),
      },
      {
        name: 'new-job/tls',
        contestants: TAKING_PART.tls,
        run: (contestant) => churnOf(contestant, 'tls', { count, newJobs: true }),
        warmUp: (contestant) => churnOf(contestant, 'tls', { count: 20, newJobs: true, hurried: true }),
      },
    ]
  },
}
