/** Sessions that do nothing: a pool in each of many jobs. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Variant } from '../contestants/contestant.ts'
import { startGenerator } from '../load/generator.ts'
import { known } from '../measure.ts'
import type { Bench, Case, Figures, Part } from '../part.ts'
import { residentBytes } from '../proc.ts'
import { type FreshContestant, startFresh } from './fresh.ts'

const FULL = 1_000
const QUICK = 200
const PER_JOB = 10
const RESULT_BYTES = 200 * 1024
/** Connections, and queries, under way at once: as jobs come, not as a herd. */
const AT_ONCE = 16
/**
 * Milliseconds until memory is read: what a proxy frees by itself shortly after, it has freed. Of what it has then, what it had before
 * the first session is subtracted, and nothing else: V8's garbage and memory that malloc keeps count, as the system sees them.
 */
const SETTLE = { opened: 1_500, used: 5_000, quick: 1_000 }

async function memoryOf({ contestant }: FreshContestant, variant: Variant, bench: Bench): Promise<Figures> {
  const count = bench.quick ? QUICK : FULL
  const settle = (after: 'opened' | 'used'): Promise<void> => delay(SETTLE[bench.quick ? 'quick' : after])
  const jobs = Array.from({ length: count / PER_JOB }, (_, job) => contestant.address(variant, 2_000 + job))
  const addresses = await Promise.all(jobs)
  await settle('opened')
  const before = await residentBytes(contestant.pids)
  await using generator = startGenerator()
  const { errors } = await generator.open(addresses, count, AT_ONCE)
  if (errors.length > 0) throw new Error(`${errors.length} of ${count} were refused: ${errors[0]}`)
  // pgbouncer answers a login before it has a connection to PostgreSQL; a session that is compared has one.
  await generator.query('SELECT 1')
  await settle('opened')
  const idle = await residentBytes(contestant.pids)
  await generator.query(`SELECT repeat('x', ${RESULT_BYTES})`)
  await settle('used')
  const used = await residentBytes(contestant.pids)
  await generator.close()
  return known({
    idle_kb_per_session: (idle - before) / 1024 / count,
    used_kb_per_session: (used - before) / 1024 / count,
    process_mb: used / 1024 ** 2,
  })
}

export const idle: Part = {
  name: 'idle',
  title: `Idle sessions, ${PER_JOB} of each job: resident memory of the proxy`,
  ...{ rounds: 2, budget: 220, warm: false },
  cases: ({ quick }) =>
    (quick ? (['tls'] as const) : (['plain', 'tls'] as const)).map(
      (variant): Case => ({
        name: `${quick ? QUICK : FULL}/${variant}`,
        contestants: variant === 'plain' ? ['pgbouncer', 'haproxy', 'pgusher'] : ['pgbouncer', 'pgusher'],
        async run(_, bench, name) {
          await using fresh = await startFresh(bench, name)
          return await memoryOf(fresh, variant, bench)
        },
      }),
    ),
}
