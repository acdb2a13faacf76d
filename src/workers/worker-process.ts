/** What `serve --workers` forks. */
import { plainReports } from '../telemetry/plain-reports.ts'
import { ipcPort } from './ipc-port.ts'
import { runWorker } from './worker.ts'

plainReports()

// A terminal and some supervisors signal all processes of a group; what a signal asks for comes from the primary.
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR2'] as const) process.on(signal, () => {})

if (process.send === undefined) {
  process.stderr.write('pgusher: this is started by `pgusher serve --workers` only\n')
  process.exit(2)
}
runWorker(ipcPort(process as Parameters<typeof ipcPort>[0]), (code) => process.exit(code))
