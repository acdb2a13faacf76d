/** What a client sees of an outage of PostgreSQL: psql and node-postgres, idle, in a statement, and those that come meanwhile. */
import { spawn } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import type { Standalone } from '../test/support/standalone.ts'

export interface Seen {
  /** SQLSTATE, or `end` where the connection ended without a word. */
  code: string
  text: string
  /** Milliseconds since the outage began. */
  after: number
}

export interface Watcher {
  /** Once the session has ended. @param since `performance.now()` of the outage */
  seen(since: number): Promise<Seen>
}

const BUSY = 'select pg_sleep(600)'

export function login(stage: Standalone, token: string): pg.ClientConfig {
  const { port, ca } = stage
  return { host: '127.0.0.1', port, user: 'shop_migrator', database: 'shop-prod', password: token, ssl: { ca } }
}

const codeOf = (error: unknown): string => (error as { code?: string }).code ?? 'end'

/** A session of node-postgres that does nothing, or waits for a statement. */
export async function watchDriver(stage: Standalone, token: string, busy: boolean): Promise<Watcher> {
  const client = new pg.Client(login(stage, token))
  const ended = Promise.withResolvers<{ error: Error; at: number }>()
  const end = (error: Error): void => ended.resolve({ error, at: performance.now() })
  client.on('error', end)
  await client.connect()
  if (busy) client.query(BUSY).then(() => {}, end)
  else client.on('end', () => end(new Error('Connection terminated')))
  return {
    async seen(since) {
      const { error, at } = await ended.promise
      void client.end().catch(() => {})
      return { code: codeOf(error), text: error.message, after: at - since }
    },
  }
}

/** psql in the middle of a statement; undefined where there is none on this machine. */
export async function watchPsql(stage: Standalone, token: string): Promise<Watcher | undefined> {
  const where = `host=127.0.0.1 port=${stage.port} user=shop_migrator dbname=shop-prod sslmode=verify-full sslrootcert=${stage.caFile}`
  const child = spawn('timeout', ['60', 'psql', '-X', '-w', '-v', 'VERBOSITY=verbose', '-c', BUSY, where], {
    env: { PATH: process.env['PATH'] ?? '', PGPASSWORD: token },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const told: string[] = []
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => told.push(chunk))
  const ended = new Promise<number>((resolve) => {
    child.once('error', () => resolve(Number.NaN)).once('close', () => resolve(performance.now()))
  })
  if (child.pid === undefined) return undefined
  return {
    async seen(since) {
      const after = (await ended) - since
      const lines = told
        .join('')
        .split('\n')
        .filter((line) => /^(?:FATAL|ERROR|WARNING|server closed|psql:)/.test(line))
      const codes = lines.flatMap((line) => /^(?:FATAL|ERROR|WARNING): {2}(\w{5}):/.exec(line)?.[1] ?? [])
      return { code: codes.join(' then ') || 'end', text: lines.join(' / '), after }
    },
  }
}

export interface Newcomers {
  /** What those were told that were not served, in the order of the first of each. */
  refused: Seen[]
  /** Milliseconds from the outage to the first that was served. */
  served: number
}

/** One after another, until one is served. @throws Error where none is within `patience` ms */
export async function watchNewcomers(
  stage: Standalone,
  token: () => Promise<string>,
  since: number,
  patience: number,
): Promise<Newcomers> {
  const refused = new Map<string, Seen>()
  while (performance.now() - since < patience) {
    const client = new pg.Client(login(stage, await token()))
    client.on('error', () => {})
    const at = performance.now()
    const error: unknown = await client.connect().then(
      () => client.query('select 1').then(() => undefined),
      (thrown: unknown) => thrown,
    )
    if (error === undefined) {
      const served = performance.now() - since
      await client.end()
      return { refused: [...refused.values()], served }
    }
    const text = error instanceof Error ? error.message.replace(/ \[D-\w+\]/, '') : String(error)
    const key = `${codeOf(error)} ${text}`
    if (!refused.has(key)) refused.set(key, { code: codeOf(error), text, after: performance.now() - at })
    await delay(100)
  }
  throw new Error(`nobody was served for ${patience} ms: ${[...refused.keys()].join('; ')}`)
}
