/** pgbench's TPC-B: seven statements a transaction, most of them writes. */
import type { Case, Part } from '../part.ts'
import { TAKING_PART, transactions } from './select.ts'

const CLIENTS = 8

export const tpcb: Part = {
  name: 'tpcb',
  title: 'TPC-B of pgbench, prepared statements, 8 clients',
  ...{ rounds: 3, budget: 90, warm: true },
  cases: ({ quick }) =>
    (quick ? (['tls'] as const) : (['plain', 'tls'] as const)).map((variant): Case => {
      const load = { protocol: 'prepared', clients: CLIENTS, script: 'tpcb-like', statements: 7 } as const
      const amount = { seconds: quick ? 1 : 3 }
      return {
        name: variant,
        contestants: TAKING_PART[variant],
        run: (contestant, bench) => transactions(contestant, variant, { ...load, amount }, bench),
        warmUp: (contestant, bench) =>
          transactions(contestant, variant, { ...load, amount: { transactions: 50 } }, bench),
      }
    }),
}
