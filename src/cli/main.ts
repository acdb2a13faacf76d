#!/usr/bin/env node
/**
 * The `pgusher` command. Nothing else is imported before it is known that this Node will do: an older one would say which export it
 * lacks, and not why.
 */
import { EXIT, NOT_RUN } from './exit-codes.ts'

const NODE = 24

if (Number.parseInt(process.versions.node, 10) >= NODE) {
  const { plainReports } = await import('../telemetry/plain-reports.ts')
  const { run } = await import('./program.ts')
  plainReports()
  process.exitCode = await run(process.argv.slice(2))
} else {
  process.stderr.write(
    `pgusher: this is Node ${process.versions.node}, and pgusher needs ${NODE} or later: put a newer one first on the PATH\n`,
  )
  process.exitCode = process.argv[2] === 'exec' ? NOT_RUN : EXIT.usage
}
