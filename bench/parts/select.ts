/** `pgbench --select-only`: the smallest transactions that there are, which is the worst case for any proxy. */
import { type Contestant, VARIANTS, type Variant } from '../contestants/contestant.ts'
import type { Name } from '../contestants/index.ts'
import { type Load, PROTOCOLS, pgbench } from '../load/pgbench.ts'
import { known, measured } from '../measure.ts'
import type { Bench, Case, Figures, Part } from '../part.ts'

const CLIENTS = [1, 8, 32]

/** haproxy takes TLS from nobody, but passes it through, which is TLS on both sides for nothing; without a proxy there is one side. */
export const TAKING_PART: Readonly<Record<Variant, readonly Name[]>> = {
  plain: ['direct', 'pgbouncer', 'haproxy', 'pgusher'],
  tls: ['direct', 'pgbouncer', 'pgusher'],
  both: ['pgbouncer', 'haproxy', 'pgusher'],
}

/**
 * Seconds that each case with a target is run before it counts. The warm-up of a part, all contestants and all cases at once, is over before
 * V8 has compiled TLS with 32 connections: measured, the first round took half as much again as the third.
 */
const REHEARSAL = 4

/** Of a quick bench. */
const QUICK = /^prepared\/8\/|^prepared\/1\/(plain|tls)|^simple\/8\/plain/

/** CPU, throughput and latency of one run of pgbench. @param load with the number of statements in a transaction */
export async function transactions(
  contestant: Contestant,
  variant: Variant,
  load: Load & { statements: number },
  { stage }: Bench,
): Promise<Figures> {
  const address = await contestant.address(variant)
  const { result, cpu } = await measured(
    contestant,
    () => pgbench(address, load, stage.scratch),
    (done) => ({ events: done.transactions * load.statements }),
  )
  const { tps, p50, p99 } = result
  const perThousand = cpu === undefined ? undefined : (cpu * 1e6) / result.transactions
  return known({ cpu_ms_per_1000: perThousand, tps, p50_ms: p50, p99_ms: p99 })
}

export const select: Part = {
  name: 'select',
  title: 'One SELECT by key a transaction (pgbench --select-only)',
  ...{ rounds: 3, budget: 900, warm: true },
  cases({ quick }) {
    const all = PROTOCOLS.flatMap((protocol) =>
      CLIENTS.flatMap((clients) =>
        VARIANTS.map((variant): Case => {
          // The targets are about prepared statements: those runs are longer.
          const seconds = quick ? 1 : protocol === 'prepared' ? 3 : 2
          const load = { protocol, clients, amount: { seconds }, script: 'select-only', statements: 1 } as const
          const rehearsed = !quick && protocol === 'prepared'
          return {
            name: `${protocol}/${clients}/${variant}`,
            contestants: TAKING_PART[variant],
            run: (contestant, bench) => transactions(contestant, variant, load, bench),
            warmUp: (contestant, bench) =>
              transactions(contestant, variant, { ...load, amount: { transactions: 100 } }, bench),
            ...(rehearsed && {
              rehearse: (contestant: Contestant, bench: Bench) =>
                transactions(contestant, variant, { ...load, amount: { seconds: REHEARSAL } }, bench),
            }),
          }
        }),
      ),
    )
    return quick ? all.filter(({ name }) => QUICK.test(name)) : all
  },
}
