/** A contestant in a process of its own, warmed up, for figures that an earlier load would spoil. */
import type { Contestant } from '../contestants/contestant.ts'
import type { Name } from '../contestants/index.ts'
import { pgbench } from '../load/pgbench.ts'
import type { Bench } from '../part.ts'

export interface FreshContestant extends AsyncDisposable {
  contestant: Contestant
}

/** Seconds of each: statements, which compile what is hot. */
const WARM_UP = { full: 4, quick: 1 }

export async function startFresh(bench: Bench, name: Name): Promise<FreshContestant> {
  const contestant = await bench.startAnew(name)
  const fresh = { contestant, [Symbol.asyncDispose]: () => contestant.stop() }
  try {
    const seconds = bench.quick ? WARM_UP.quick : WARM_UP.full
    const load = { protocol: 'simple', clients: 8, amount: { seconds }, script: 'select-only' } as const
    // Half of it with a connection for each statement: logging in is hot here, too.
    for (const reconnect of [false, true]) {
      const address = await contestant.address('tls')
      await pgbench(address, { ...load, amount: { seconds: Math.ceil(seconds / 2) }, reconnect }, bench.stage.scratch)
    }
    return fresh
  } catch (error) {
    await contestant.stop()
    throw error
  }
}
