/** The child process behind `generator.ts`: makes connections as it is told to, over Node's IPC. */
import type { Address } from '../contestants/contestant.ts'
import { type Connection, openConnection } from './connection.ts'
import type { Answer, Connects, Order } from './generator.ts'

const held: Connection[] = []

/** Runs `work` for each index below `count`, so many at once. */
async function inParallel(count: number, atOnce: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < count) await work(next++)
  }
  await Promise.all(Array.from({ length: Math.min(count, atOnce) }, worker))
}

/** Opens `count` connections and keeps them. */
async function open(addresses: readonly Address[], count: number, atOnce: number): Promise<Connects> {
  const begun = performance.now()
  const milliseconds: number[] = []
  const errors: string[] = []
  await inParallel(count, atOnce, async (index) => {
    const from = performance.now()
    try {
      held.push(await openConnection(addresses[index % addresses.length]!))
      milliseconds.push(performance.now() - from)
    } catch (error) {
      errors.push(error instanceof Error ? error.message : String(error))
    }
  })
  return { milliseconds, errors, resumed: 0, seconds: (performance.now() - begun) / 1_000 }
}

/** Connects, asks one question and closes, again and again; with the last ticket where `resume` says so. */
async function churn(addresses: readonly Address[], count: number, atOnce: number, resume: boolean): Promise<Connects> {
  const begun = performance.now()
  const milliseconds: number[] = []
  const errors: string[] = []
  let resumed = 0
  let ticket: Buffer | undefined
  await inParallel(count, atOnce, async (index) => {
    const from = performance.now()
    try {
      const connection = await openConnection(addresses[index % addresses.length]!, ticket)
      await connection.query('SELECT 1')
      await connection.close()
      milliseconds.push(performance.now() - from)
      if (connection.resumed) resumed++
      if (resume) ticket = connection.ticket ?? ticket
    } catch (error) {
      errors.push(error instanceof Error ? error.message : String(error))
    }
  })
  return { milliseconds, errors, resumed, seconds: (performance.now() - begun) / 1_000 }
}

async function obey(order: Order): Promise<Answer> {
  switch (order.kind) {
    case 'open':
      return { connects: await open(order.addresses, order.count, order.atOnce) }
    case 'churn':
      return { connects: await churn(order.addresses, order.count, order.atOnce, order.resume) }
    case 'query':
      await inParallel(held.length, 32, async (index) => held[index]!.query(order.sql))
      return {}
    case 'close':
      await Promise.all(held.splice(0).map((connection) => connection.close()))
      return {}
  }
}

process.on('message', (order: Order) => {
  obey(order).then(
    (answer) => process.send?.(answer),
    (error: unknown) => process.send?.({ failure: error instanceof Error ? error.message : String(error) }),
  )
})
// The bench is gone: so is the load.
process.on('disconnect', () => process.exit())
