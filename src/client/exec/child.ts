/** The command of `pgusher exec`: its streams are ours, its signals come to it, and its end becomes ours. */
import { spawn } from 'node:child_process'
import { constants } from 'node:os'

/**
 * What somebody sends to this process is meant for the command. A terminal's job control (SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH) is
 * not among them: it goes to the whole process group, which the command belongs to, and stops and continues both.
 */
const FORWARDED = ['SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGCONT', 'SIGALRM'] as const
/** Ctrl-C and Ctrl-\ reach the command from the terminal itself; a second one would be another Ctrl-C to it. */
const FROM_TERMINAL = ['SIGINT', 'SIGQUIT'] as const

/** As env(1), nohup(1) and shells have it. */
const NOT_FOUND = 127
const NOT_EXECUTABLE = 126
const SIGNAL_BASE = 128

export interface Signals extends Disposable {
  /** From now on they go there. */
  to(receiver: (signal: NodeJS.Signals) => void): void
}

/** Takes every signal that would end this process, until it is disposed of. */
export function captureSignals(): Signals {
  let receiver: (signal: NodeJS.Signals) => void = () => {}
  const listener = (signal: NodeJS.Signals): void => receiver(signal)
  const all = [...FORWARDED, ...FROM_TERMINAL]
  for (const signal of all) process.on(signal, listener)
  return {
    to(next) {
      receiver = next
    },
    [Symbol.dispose]() {
      for (const signal of all) process.off(signal, listener)
    },
  }
}

/** What a shell says of a process that a signal ended. */
export function exitCodeOf(signal: NodeJS.Signals): number {
  return SIGNAL_BASE + constants.signals[signal]
}

export interface CommandOptions {
  command: readonly string[]
  env: NodeJS.ProcessEnv
  /** This process belongs to a terminal, which sends its signals to the whole group. */
  terminal: boolean
  signals: Signals
}

export type CommandEnd = { started: true; exitCode: number } | { started: false; exitCode: number; reason: string }

/** Runs the command to its end. Never rejects. */
export async function runCommand({ command, env, terminal, signals }: CommandOptions): Promise<CommandEnd> {
  const [program = '', ...args] = command
  const { promise, resolve } = Promise.withResolvers<CommandEnd>()
  try {
    const child = spawn(program, args, { env, stdio: 'inherit' })
    child.once('error', (error) => resolve(notStarted(program, error)))
    child.once('exit', (code, signal) => {
      resolve({ started: true, exitCode: signal === null ? (code ?? 0) : exitCodeOf(signal) })
    })
    signals.to((signal) => {
      if (terminal && isFromTerminal(signal)) return
      child.kill(signal)
    })
  } catch (error) {
    resolve(notStarted(program, error))
  }
  return await promise
}

function isFromTerminal(signal: NodeJS.Signals): boolean {
  return FROM_TERMINAL.some((one) => one === signal)
}

function notStarted(program: string, error: unknown): CommandEnd {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (code === 'ENOENT') return { started: false, exitCode: NOT_FOUND, reason: `${program}: command not found` }
  const reason = code === 'EACCES' ? 'permission denied' : error instanceof Error ? error.message : String(error)
  return { started: false, exitCode: NOT_EXECUTABLE, reason: `${program}: ${reason}` }
}
