/** `pgusher serve`. */
import { Command, InvalidArgumentError } from 'commander'
import { formatDiagnostics } from '../config/diagnostics.ts'
import { type Proxy as RunningProxy, startProxy } from '../proxy.ts'
import { MAX_WORKERS, workers } from '../workers/carrier.ts'

export function serveCommand(): Command {
  return new Command('serve')
    .description('listen for jobs and let them in by the policy')
    .requiredOption('-c, --config <file>', 'configuration file')
    .option('-w, --workers <number>', 'processes that carry connections, for more cores than one', workerCount, 1)
    .addHelpText(
      'after',
      `
Signals:
  SIGHUP           read configuration, policy and certificates again; a bad file keeps the last good one
  SIGUSR2          begin a new audit file
  SIGTERM, SIGINT  stop listening, let running statements finish (drain_timeout), take the credentials back; a second one ends at once

Exit codes:
  0  ended by a signal, all credentials taken back
  1  the configuration has errors, or the listener could not be opened, or a credential could not be taken back

Examples:
  $ pgusher serve --config /etc/pgusher/pgusher.yaml
  $ pgusher serve --config /etc/pgusher/pgusher.yaml --workers 4
  $ kill -HUP "$(pgrep -of 'bin/pgusher serve')"       with the systemd unit: systemctl reload pgusher`,
    )
    .action(async ({ config, workers: count }: { config: string; workers: number }) => {
      const carrier = count > 1 ? { carrier: workers(count) } : {}
      const result = await startProxy({ configFile: config, env: process.env, ...carrier })
      if (!result.ok) {
        process.stderr.write(`${formatDiagnostics(result.diagnostics)}\n`)
        process.exitCode = 1
        return
      }
      await untilSignalled(result.proxy)
    })
}

function workerCount(text: string): number {
  const count = Number(text)
  if (/^\d+$/.test(text) && count >= 1 && count <= MAX_WORKERS) return count
  throw new InvalidArgumentError(`It is a number from 1 to ${MAX_WORKERS}.`)
}

async function untilSignalled(proxy: RunningProxy): Promise<void> {
  process.on('SIGHUP', () => void proxy.reload())
  process.on('SIGUSR2', () => void proxy.rotateAudit())
  await new Promise<void>((resolve) => {
    const stop = (): void => {
      process.off('SIGTERM', stop).off('SIGINT', stop)
      // Whoever sends a second one does not want to wait; the next start removes what is left.
      process.once('SIGTERM', () => process.exit(1)).once('SIGINT', () => process.exit(1))
      resolve()
    }
    process.on('SIGTERM', stop).on('SIGINT', stop)
  })
  const clean = await proxy.shutdown()
  process.exit(clean ? 0 : 1)
}
