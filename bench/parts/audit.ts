/** What the audit costs: `serve` beside the same relay without it. */
import type { Contestant } from '../contestants/contestant.ts'
import { type Load, pgbench } from '../load/pgbench.ts'
import { known, measured } from '../measure.ts'
import type { Bench, Case, Figures, Part } from '../part.ts'

const CLIENTS = 8

/**
 * CPU of statements alone. The relay knows no tokens, so what connecting costs is taken off: eight connections with one statement
 * each, measured a moment before, when the job's role is there already.
 */
async function statementsOnly(contestant: Contestant, load: Load, { stage }: Bench): Promise<Figures> {
  const address = await contestant.address('plain')
  const measure = (amount: Load['amount']) =>
    measured(
      contestant,
      () => pgbench(address, { ...load, amount }, stage.scratch),
      ({ transactions }) => ({ events: transactions }),
    )
  await measure({ transactions: 1 })
  const connecting = await measure({ transactions: 1 })
  const { result, cpu } = await measure(load.amount)
  const statements = result.transactions - connecting.result.transactions
  const own = cpu === undefined || connecting.cpu === undefined ? undefined : cpu - connecting.cpu
  return known({ cpu_ms_per_1000: own === undefined ? undefined : (own * 1e6) / statements, tps: result.tps })
}

export const audit: Part = {
  name: 'audit',
  title: 'Cost of the audit: statements through the relay with it and without, plain, 8 clients',
  ...{ rounds: 5, budget: 90, warm: true },
  cases: ({ quick }) =>
    // Known texts, and texts that are new each time.
    (['prepared', 'simple'] as const).map((protocol): Case => {
      const load = { protocol, clients: CLIENTS, script: 'select-only' } as const
      return {
        name: protocol,
        contestants: ['pgusher', 'relay'],
        run: (contestant, bench) => statementsOnly(contestant, { ...load, amount: { seconds: quick ? 1 : 4 } }, bench),
        warmUp: (contestant, bench) => statementsOnly(contestant, { ...load, amount: { transactions: 200 } }, bench),
      }
    }),
}
