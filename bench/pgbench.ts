/** One run of pgbench against one address. */
import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from './processes.ts'

export const PROTOCOLS = ['simple', 'extended', 'prepared'] as const
export type Protocol = (typeof PROTOCOLS)[number]

export interface Target {
  port: number
  user: string
  database: string
  password: string
  tls: boolean
}

export interface Load {
  protocol: Protocol
  clients: number
  /** Transactions of each client; seconds without it. */
  transactions?: number
  seconds?: number
}

export interface PgbenchResult {
  transactions: number
  /** Transactions a second, without the time of connecting. */
  tps: number
  /** Median of one transaction in ten, milliseconds; undefined where `transactions` were asked for. */
  p50: number | undefined
}

/** @throws Error with pgbench's own words, also where one transaction failed. */
export async function pgbench(target: Target, load: Load, scratch: string): Promise<PgbenchResult> {
  const logged = load.seconds !== undefined
  const prefix = join(scratch, 'latency')
  const amount =
    load.seconds === undefined ? ['--transactions', String(load.transactions ?? 1)] : ['--time', String(load.seconds)]
  const args = [
    '--select-only',
    '--no-vacuum',
    '--protocol',
    load.protocol,
    '--client',
    String(load.clients),
    ...amount,
  ]
  if (logged) args.push('--log', '--sampling-rate', '0.1', '--log-prefix', prefix)
  const env = {
    PATH: process.env['PATH'],
    PGHOST: '127.0.0.1',
    PGPORT: String(target.port),
    PGUSER: target.user,
    PGDATABASE: target.database,
    PGPASSWORD: target.password,
    PGSSLMODE: target.tls ? 'require' : 'disable',
    PGGSSENCMODE: 'disable',
  }
  const { stdout, stderr } = await run('pgbench', args, { env, cwd: scratch, timeout: 120_000 })
  const transactions = Number(/transactions actually processed: (\d+)/.exec(stdout)?.[1])
  const failed = Number(/number of failed transactions: (\d+)/.exec(stdout)?.[1] ?? 0)
  const tps = Number(/tps = ([\d.]+)/.exec(stdout)?.[1])
  if (!(transactions > 0) || !(tps > 0) || failed > 0) throw new Error(`pgbench failed: ${stderr}${stdout}`)
  return { transactions, tps, p50: logged ? await medianLatency(scratch, 'latency') : undefined }
}

/** Of the per-transaction log: client, number, microseconds, … */
async function medianLatency(directory: string, prefix: string): Promise<number> {
  const files = (await readdir(directory)).filter((name) => name.startsWith(`${prefix}.`))
  const latencies: number[] = []
  for (const name of files) {
    const lines = (await readFile(join(directory, name), 'utf8')).trimEnd().split('\n')
    for (const line of lines) latencies.push(Number(line.split(' ')[2]))
    await rm(join(directory, name))
  }
  return median(latencies) / 1_000
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  if (sorted.length === 0) return Number.NaN
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
