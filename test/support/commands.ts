/** Programs of PostgreSQL as a job runs them, each with a time limit of its own. */
import { type ChildProcess, spawn } from 'node:child_process'
import type { Job, Stage } from './pgusher.ts'

export interface Finished {
  code: number | null
  stdout: string
  stderr: string
}

export interface Started {
  child: ChildProcess
  finished: Promise<Finished>
  /** What it printed so far. */
  stdout(): string
}

/** The environment of a job: where pgusher is, and its token. */
export function jobEnvironment(stage: Stage, { token, user = 'shop_migrator', database = 'shop-prod' }: Job) {
  return {
    PATH: process.env['PATH'] ?? '',
    HOME: stage.directory,
    LANG: 'C.UTF-8',
    PGHOST: '127.0.0.1',
    PGPORT: String(stage.port),
    PGUSER: user,
    PGDATABASE: database,
    PGPASSWORD: token,
    PGSSLMODE: 'verify-full',
    PGSSLROOTCERT: stage.caFile,
    PSQLRC: '/dev/null',
    PAGER: '',
  }
}

/** Ended by `timeout` after five minutes, longer than a file of tests takes on a busy machine. */
export function start(command: readonly string[], env: Record<string, string>, input = ''): Started {
  const child = spawn('timeout', ['--foreground', '300', ...command], { env, stdio: ['pipe', 'pipe', 'pipe'] })
  const out: string[] = []
  const err: string[] = []
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => out.push(chunk))
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => err.push(chunk))
  child.stdin.on('error', () => {}).end(input)
  const finished = new Promise<Finished>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve({ code, stdout: out.join(''), stderr: err.join('') }))
  })
  return { child, finished, stdout: () => out.join('') }
}

/** @throws Error with what it said, unless it ended with 0 */
export async function output(command: readonly string[], env: Record<string, string>, input = ''): Promise<string> {
  const { code, stdout, stderr } = await start(command, env, input).finished
  if (code !== 0) throw new Error(`${command[0]} ended with ${code}: ${stderr}`)
  return stdout
}

export async function available(program: string): Promise<boolean> {
  return output([program, '--version'], { PATH: process.env['PATH'] ?? '' }).then(
    () => true,
    () => false,
  )
}
