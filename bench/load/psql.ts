/** psql and pg_dump against one address; what they read goes nowhere. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import type { Address } from '../contestants/contestant.ts'
import { clientEnv } from './client-env.ts'

const TIMEOUT = 120_000

/** @param input a file for standard input. @throws Error with the program's own words. */
export async function clientProgram(
  program: 'psql' | 'pg_dump' | 'pgbench',
  address: Address,
  args: readonly string[],
  input?: string,
): Promise<void> {
  const stdin = input === undefined ? undefined : await open(input)
  try {
    const child = spawn(program, args, {
      stdio: [stdin?.fd ?? 'ignore', 'ignore', 'pipe'],
      env: clientEnv(address),
      cwd: '/',
      timeout: TIMEOUT,
    })
    let words = ''
    child.stderr?.on('data', (chunk: Buffer) => {
      words = (words + chunk.toString()).slice(-2_000)
    })
    const [code] = (await once(child, 'close')) as [number | null]
    if (code !== 0) throw new Error(`${program} ended with ${code}: ${words.trim()}`)
  } finally {
    await stdin?.close()
  }
}

/** One command in a session of its own. */
export async function psql(address: Address, command: string, input?: string): Promise<void> {
  await clientProgram('psql', address, ['-X', '-q', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-c', command], input)
}
