/** What the audit costs: `serve` beside the same relay without it. */
import type { Case, Part } from '../part.ts'
import { transactions } from './select.ts'

export const audit: Part = {
  name: 'audit',
  title: 'Cost of the audit: the relay with it and without, plain, 8 clients',
  ...{ rounds: 5, budget: 90, warm: true },
  cases: ({ quick }) =>
    // Known texts, and texts that are new each time.
    (['prepared', 'simple'] as const).map((protocol): Case => {
      const load = { protocol, clients: 8, script: 'select-only', statements: 1 } as const
      return {
        name: protocol,
        contestants: ['pgusher', 'relay'],
        run: (contestant, bench) =>
          transactions(contestant, 'plain', { ...load, amount: { seconds: quick ? 1 : 3 } }, bench),
        warmUp: (contestant, bench) =>
          transactions(contestant, 'plain', { ...load, amount: { transactions: 200 } }, bench),
      }
    }),
}
