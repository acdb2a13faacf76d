/** Connections made by another process, which are held, asked and closed as the bench says. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Address } from '../contestants/contestant.ts'
import { stopChild } from '../processes.ts'

export type Order =
  | { kind: 'open'; addresses: readonly Address[]; count: number; atOnce: number }
  | { kind: 'churn'; addresses: readonly Address[]; count: number; atOnce: number; resume: boolean }
  | { kind: 'query'; sql: string }
  | { kind: 'close' }

export interface Connects {
  /** Of each connection that came about, from the first packet to ReadyForQuery; for `churn` to its end. */
  milliseconds: readonly number[]
  errors: readonly string[]
  /** How many TLS sessions were resumed. */
  resumed: number
  /** Over all. */
  seconds: number
}

export interface Answer {
  connects?: Connects
  failure?: string
}

export interface Generator extends AsyncDisposable {
  /** Holds what it opens. */
  open(addresses: readonly Address[], count: number, atOnce: number): Promise<Connects>
  churn(addresses: readonly Address[], count: number, atOnce: number, resume: boolean): Promise<Connects>
  /** On each connection that is held. */
  query(sql: string): Promise<void>
  close(): Promise<void>
}

async function ask(child: ChildProcess, order: Order): Promise<Answer> {
  child.send(order)
  const gone = once(child, 'exit').then(() => ({ failure: 'the load generator ended' }))
  const [answer] = await Promise.race([once(child, 'message'), gone.then((one) => [one])])
  if (answer.failure !== undefined) throw new Error(answer.failure)
  return answer
}

export function startGenerator(): Generator {
  const child = fork(fileURLToPath(new URL('generator-process.ts', import.meta.url)))
  const connects = async (order: Order): Promise<Connects> => {
    const { connects: result } = await ask(child, order)
    if (result === undefined) throw new Error('the load generator said nothing')
    return result
  }
  return {
    open: (addresses, count, atOnce) => connects({ kind: 'open', addresses, count, atOnce }),
    churn: (addresses, count, atOnce, resume) => connects({ kind: 'churn', addresses, count, atOnce, resume }),
    async query(sql) {
      await ask(child, { kind: 'query', sql })
    },
    async close() {
      await ask(child, { kind: 'close' })
    },
    [Symbol.asyncDispose]: () => stopChild(child),
  }
}
