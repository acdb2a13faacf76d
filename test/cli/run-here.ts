/** The command in this process: a start of Node takes up to a second where all tests run at once. */
import { vi } from 'vitest'
import { run } from '../../src/cli/program.ts'
import type { CliResult } from './run-cli.ts'

/** @param env all that the command finds: a CI system that runs the tests must not be recognised */
export async function runHere(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<CliResult> {
  const written = { stdout: '', stderr: '' }
  const spies = (['stdout', 'stderr'] as const).map((name) =>
    vi.spyOn(process[name], 'write').mockImplementation((chunk) => {
      written[name] += String(chunk)
      return true
    }),
  )
  const before = { env: process.env, exitCode: process.exitCode }
  process.env = { ...env }
  try {
    return { code: await run(args), ...written }
  } finally {
    process.env = before.env
    process.exitCode = before.exitCode
    for (const spy of spies) spy.mockRestore()
  }
}
