/** Forks a worker from this very program. */
import { type ChildProcess, fork } from 'node:child_process'
import { ipcPort } from './ipc-port.ts'
import type { WorkerProcess } from './slot.ts'

/** tsc rewrites imports to `.js` and leaves URLs alone, so the worker's extension is this module's own. */
const WORKER_URL = new URL(`./worker-process${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)

/** Nothing is told by its command line; the environment is this process's own. */
export function forkWorker(): WorkerProcess {
  const child = fork(WORKER_URL, [], { serialization: 'advanced', stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  return {
    pid: child.pid,
    port: ipcPort(child),
    kill: () => void child.kill('SIGKILL'),
    exited: exitOf(child),
  }
}

function exitOf(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve(signal === null ? `exit code ${code}` : signal))
    // It could not be started, or not be signalled.
    child.once('error', (error) => resolve(error.message))
  })
}
