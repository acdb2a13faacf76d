/** One run of pgbench against one address. */
import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Address } from '../contestants/contestant.ts'
import { run } from '../processes.ts'
import { median, percentile } from '../statistics.ts'
import { clientEnv } from './client-env.ts'

export const PROTOCOLS = ['prepared', 'extended', 'simple'] as const
export type Protocol = (typeof PROTOCOLS)[number]

export interface Load {
  protocol: Protocol
  clients: number
  /** Seconds, or transactions of each client. */
  amount: { seconds: number } | { transactions: number }
  /** What a transaction is: a script of pgbench's own, or a file. */
  script: 'select-only' | 'tpcb-like' | { file: string }
  /** A connection for each transaction. */
  reconnect?: boolean
}

export interface PgbenchResult {
  transactions: number
  /** Transactions a second; without the time of connecting, unless each has a connection of its own. */
  tps: number
  /** Milliseconds of one transaction in ten. */
  p50: number
  p99: number
}

const TIMEOUT = 120_000
const SAMPLED = 0.1

/** @throws Error with pgbench's own words, also where one transaction failed. */
export async function pgbench(address: Address, load: Load, scratch: string): Promise<PgbenchResult> {
  // Several may run at once while contestants are warmed up.
  const prefix = `latency-${crypto.randomUUID()}`
  const { amount, clients, script } = load
  const args = ['--no-vacuum', `--protocol=${load.protocol}`, `--client=${clients}`, `--log-prefix=${prefix}`]
  args.push('seconds' in amount ? `--time=${amount.seconds}` : `--transactions=${amount.transactions}`)
  args.push('seconds' in amount ? `--sampling-rate=${SAMPLED}` : '--sampling-rate=1', '--log')
  args.push(typeof script === 'string' ? `--builtin=${script}` : `--file=${script.file}`)
  // A thread waits for its connection to be made, so that one for each client makes them side by side.
  if (load.reconnect === true) args.push('--connect', `--jobs=${clients}`)
  const { stdout, stderr } = await run('pgbench', args, { env: clientEnv(address), cwd: scratch, timeout: TIMEOUT })
  const latencies = await takeLatencies(scratch, prefix)
  const transactions = Number(/transactions actually processed: (\d+)/.exec(stdout)?.[1])
  const failed = Number(/number of failed transactions: (\d+)/.exec(stdout)?.[1] ?? 0)
  const tps = Number(/tps = ([\d.]+)/.exec(stdout)?.[1])
  if (!(transactions > 0) || !(tps > 0) || failed > 0) throw new Error(`pgbench failed: ${stderr}${stdout}`)
  return { transactions, tps, p50: median(latencies), p99: percentile(latencies, 0.99) }
}

/** Of the log: client, number, microseconds, … */
async function takeLatencies(directory: string, prefix: string): Promise<number[]> {
  const latencies: number[] = []
  for (const name of (await readdir(directory)).filter((file) => file.startsWith(`${prefix}.`))) {
    const lines = (await readFile(join(directory, name), 'utf8')).split('\n').filter(Boolean)
    for (const line of lines) latencies.push(Number(line.split(' ')[2]) / 1_000)
    await rm(join(directory, name))
  }
  return latencies
}
