/** `pgusher exec` and `pgusher env` as a job calls them. */
import { fileURLToPath } from 'node:url'
import { type Started, start } from './commands.ts'
import type { Stage } from './pgusher.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

export interface ExecOptions {
  /** In place of `shop-prod` and `shop_migrator`. */
  database?: string
  user?: string
  /** Before `--`. */
  options?: readonly string[]
  /** Of the job, beside PATH and HOME. */
  env: Readonly<Record<string, string>>
  input?: string
}

/** Until when something is good, as they say it: with the day where that is no longer today, so shortly before midnight. */
export const UNTIL = String.raw`until (?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d UTC`

/** The command line up to the command itself. */
export function pgusher(stage: Stage, name: 'exec' | 'env', { database, user, options = [] }: ExecOptions): string[] {
  return [
    ...[process.execPath, MAIN, name, '--server', `127.0.0.1:${stage.port}`, '--ca', stage.caFile],
    ...['--database', database ?? 'shop-prod', '--user', user ?? 'shop_migrator', ...options],
  ]
}

export function startExec(stage: Stage, command: readonly string[], options: ExecOptions): Started {
  return start([...pgusher(stage, 'exec', options), '--', ...command], jobEnv(stage, options), options.input)
}

export function jobEnv(stage: Stage, { env }: ExecOptions): Record<string, string> {
  return {
    PATH: process.env['PATH'] ?? '',
    HOME: stage.directory,
    LANG: 'C.UTF-8',
    PSQLRC: '/dev/null',
    PAGER: '',
    ...env,
  }
}
