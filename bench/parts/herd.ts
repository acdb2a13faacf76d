/** Everybody connects at the same moment, as after a deployment or an outage. */
import { startGenerator } from '../load/generator.ts'
import { known, measured } from '../measure.ts'
import type { Bench, Case, Figures, Part } from '../part.ts'
import { median, percentile } from '../statistics.ts'
import { type FreshContestant, startFresh } from './fresh.ts'

const FULL = 1_000
const QUICK = 200
/** Connections of one job. */
const PER_JOB = 10

async function rush({ contestant }: FreshContestant, count: number): Promise<Figures> {
  const jobs = Array.from({ length: count / PER_JOB }, (_, job) => contestant.address('tls', 1_000 + job))
  const addresses = await Promise.all(jobs)
  await using generator = startGenerator()
  const { result, cpu } = await measured(
    contestant,
    () => generator.open(addresses, count, count),
    (done) => ({ events: done.milliseconds.length }),
  )
  const { milliseconds, errors, seconds } = result
  if (milliseconds.length === 0) throw new Error(`nobody was served: ${errors[0]}`)
  return known({
    cpu_ms_per_connect: cpu === undefined ? undefined : (cpu * 1_000) / count,
    connects_per_s: milliseconds.length / seconds,
    ...{ wall_s: seconds, p50_ms: median(milliseconds), p99_ms: percentile(milliseconds, 0.99) },
    ...{ max_ms: Math.max(...milliseconds), refused: errors.length },
  })
}

export const herd: Part = {
  name: 'herd',
  title: 'A herd that connects at once over TLS, ten sessions of each job',
  ...{ rounds: 2, budget: 90, warm: false },
  cases: ({ quick }): Case[] => [
    {
      name: quick ? String(QUICK) : String(FULL),
      contestants: quick ? ['pgbouncer', 'pgusher'] : ['direct', 'pgbouncer', 'haproxy', 'pgusher'],
      // Anew, since a pooler keeps a thousand connections to PostgreSQL afterwards, which others need.
      async run(_, bench: Bench, name) {
        await using fresh = await startFresh(bench, name)
        return await rush(fresh, quick ? QUICK : FULL)
      },
    },
  ],
}
