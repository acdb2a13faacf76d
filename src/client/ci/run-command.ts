/** A command that prints a token. What it prints is never shown; what it says on standard error is, when it fails. */
import { spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { printable } from '../../config/quote.ts'
import { maskSecrets } from '../../telemetry/mask.ts'
import type { Environment } from '../token-source.ts'
import { noToken } from '../token-text.ts'

export interface TokenCommand {
  /** For errors: `buildkite-agent oidc request-token`. */
  name: string
  file: string
  args: readonly string[]
  env: Environment
  signal?: AbortSignal | undefined
  /** What to do where it fails. */
  hint?: string
}

const TIMEOUT_MS = 30_000
const MAX_OUTPUT_BYTES = 128 * 1024

/**
 * Standard output of a command that ended with 0. It has no standard input, and 30 s.
 * @throws AccessError `token_missing`; the signal's reason when it aborts
 */
export function runCommand({ name, file, args, env, signal, hint }: TokenCommand): Promise<string> {
  return new Promise((resolve, reject) => {
    const fail = (message: string, cause?: unknown) => finish(() => reject(noToken(message, hint, cause)))
    // A process group of its own: a shell's children go with it when the time is over.
    const child = spawn(file, args, { env: { ...env }, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
    const stdout: Buffer[] = []
    let stderr = Buffer.alloc(0)
    let bytes = 0
    let closed = false
    const timer = setTimeout(() => fail(`${name} gave no token within ${TIMEOUT_MS / 1000} s`), TIMEOUT_MS)
    const abort = () => finish(() => reject(signal?.reason))
    signal?.addEventListener('abort', abort)

    function finish(settle: () => void): void {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
      // Also where the command itself has ended: something that it left behind holds its output open.
      if (!closed && child.pid !== undefined) killGroup(child.pid)
      child.stdout.destroy()
      child.stderr.destroy()
      settle()
    }

    child.stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes <= MAX_OUTPUT_BYTES) stdout.push(chunk)
      else fail(`${name} printed more than 128 KiB, which is no token`)
    })
    child.stderr.on('data', (chunk: Buffer) => {
      stderr = Buffer.concat([stderr, chunk]).subarray(-MAX_OUTPUT_BYTES)
    })
    child.once('error', (error) => fail(`${name} cannot be run: ${startFailure(error)}`, error))
    child.once('close', (code, killedBy) => {
      closed = true
      if (code === 0) return finish(() => resolve(Buffer.concat(stdout).toString('utf8')))
      fail(`${name} ended with ${code === null ? `signal ${killedBy}` : `exit code ${code}`}${lastWords(stderr)}`)
    })
  })
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // It ended in the meantime.
  }
}

function startFailure(error: Error): string {
  const code = 'code' in error ? String(error.code) : error.message
  if (code === 'ENOENT') return 'it is not on the PATH'
  return code === 'EACCES' ? 'it may not be executed' : code
}

/** The end of what it said, where the reason stands. */
function lastWords(stderr: Buffer): string {
  const text = maskSecrets(stderr.toString('utf8')).trim().split('\n').slice(-3).join(' ')
  return text === '' ? '' : `: ${printable(text.replace(/\s+/g, ' ')).slice(-300)}`
}

export async function isOnPath(file: string, env: Environment): Promise<boolean> {
  for (const directory of (env['PATH'] ?? '').split(delimiter)) {
    if (directory === '') continue
    const found = await access(join(directory, file), constants.X_OK).then(
      () => true,
      () => false,
    )
    if (found) return true
  }
  return false
}
