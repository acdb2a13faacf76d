/** Servers as child processes: started, waited for, ended by their id. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'

export const run = promisify(execFile)

const START_TIMEOUT = 15_000
const STOP_TIMEOUT = 10_000

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no free port')
  return address.port
}

async function answers(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  const connected = await new Promise<boolean>((resolve) => {
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
  })
  socket.destroy()
  return connected
}

export interface Running {
  pid: number
  stop(): Promise<void>
}

export interface ProcessOptions {
  env?: NodeJS.ProcessEnv
  uid?: number
  gid?: number
}

/** Starts a server and waits until it takes connections. @throws Error with its last words where it does not. */
export async function startServer(
  command: string,
  args: readonly string[],
  port: number,
  options: ProcessOptions = {},
): Promise<Running> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: '/', ...options })
  let words = ''
  const listen = (chunk: Buffer): void => {
    words = (words + chunk.toString()).slice(-2_000)
  }
  child.stdout?.on('data', listen)
  child.stderr?.on('data', listen)
  child.on('error', (error) => {
    words += error.message
  })
  const deadline = Date.now() + START_TIMEOUT
  while (!(await answers(port))) {
    if (child.exitCode !== null || child.pid === undefined || Date.now() > deadline) {
      await stopChild(child)
      throw new Error(`${command} does not listen on port ${port}: ${words.trim()}`)
    }
    await delay(25)
  }
  return { pid: child.pid ?? 0, stop: () => stopChild(child) }
}

export async function stopChild(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  const killing = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT)
  await ended
  clearTimeout(killing)
}

/** First line of `command --version`, or undefined where it is not installed. */
export async function versionOf(command: string, ...args: readonly string[]): Promise<string | undefined> {
  try {
    const { stdout, stderr } = await run(command, [...args], { timeout: 5_000 })
    return (stdout || stderr).split('\n')[0]?.trim()
  } catch {
    return undefined
  }
}
