/** pgusher itself, in this process or as a child; both write their log to a file. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync } from 'node:fs'
import { open, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { formatDiagnostics } from '../../src/config/diagnostics.ts'
import type { ListenAddress } from '../../src/config/scalars.ts'
import { startProxy } from '../../src/proxy.ts'
import { createLog } from '../../src/telemetry/log.ts'
import { eventually } from './shop.ts'

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

export interface RunningPgusher {
  address: ListenAddress
  httpAddress: ListenAddress
  /** Undefined where it runs in this process. */
  child: ChildProcess | undefined
  /** False where the new configuration was refused. */
  reload(): Promise<boolean>
  rotateAudit(): Promise<void>
  /** Drains and ends it. False where it says that something could not be taken back. Safe to call on one that is gone. */
  stop(): Promise<boolean>
}

/** @throws Error with the diagnostics of a configuration that does not load */
export async function startInProcess(configFile: string, logFile: string): Promise<RunningPgusher> {
  let over = false
  const write = (line: string): void => {
    // A session that was cut off is cancelled for 0.4 s more, and the file may be gone by then.
    if (!over) appendFileSync(logFile, line)
  }
  const log = createLog({ level: 'info', destination: { write } })
  const result = await startProxy({ configFile, env: process.env, log, classifyWithin: 20_000 })
  if (!result.ok) throw new Error(formatDiagnostics(result.diagnostics))
  const { proxy } = result
  let stopped: Promise<boolean> | undefined
  return {
    address: proxy.address,
    httpAddress: proxy.httpAddress,
    child: undefined,
    reload: () => proxy.reload(),
    rotateAudit: () => proxy.rotateAudit(),
    stop() {
      stopped ??= proxy.shutdown().finally(() => {
        over = true
      })
      return stopped
    },
  }
}

interface LogLine {
  msg: string
  address?: ListenAddress
  http?: ListenAddress
}

async function logLines(logFile: string): Promise<LogLine[]> {
  const complete = (await readFile(logFile, 'utf8')).split('\n').slice(0, -1)
  return complete.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line) as LogLine)
}

/** `pgusher serve` under this Node. @throws Error with the log's end where it does not come up */
export async function startChild(
  configFile: string,
  logFile: string,
  { env = {}, workers }: { env?: Readonly<Record<string, string>>; workers?: number } = {},
): Promise<RunningPgusher> {
  const log = await open(logFile, 'a')
  const before = (await logLines(logFile)).length
  const more = workers === undefined ? [] : ['--workers', String(workers)]
  const child = spawn(process.execPath, [MAIN, 'serve', '--config', configFile, ...more], {
    stdio: ['ignore', 'ignore', log.fd],
    env: { ...process.env, ...env },
  })
  await log.close()
  const exited = once(child, 'exit')
  const said = (from: number, ...messages: string[]) =>
    eventually(async () => {
      const found = (await logLines(logFile)).slice(from).find(({ msg }) => messages.some((text) => msg.includes(text)))
      if (found === undefined && child.exitCode !== null) {
        throw new Error(`pgusher ended with ${child.exitCode}:\n${(await readFile(logFile, 'utf8')).slice(-4000)}`)
      }
      return found
    })
  const { address, http } = await said(before, 'pgusher is ready').catch((error: unknown) => {
    // Nobody else knows of it, and it would live on behind the tests.
    child.kill('SIGKILL')
    throw error
  })
  if (address === undefined || http === undefined) throw new Error('pgusher did not say where it listens')
  return {
    address,
    httpAddress: http,
    child,
    async reload() {
      const from = (await logLines(logFile)).length
      child.kill('SIGHUP')
      const { msg } = await said(from, 'configuration reloaded', 'the configuration was not reloaded')
      return msg.includes('configuration reloaded')
    },
    async rotateAudit() {
      child.kill('SIGUSR2')
    },
    async stop() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM')
      await exited
      return child.exitCode === 0
    },
  }
}
