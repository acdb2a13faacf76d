#!/usr/bin/env node
/** The `pgusher` command. */
import { plainReports } from '../telemetry/plain-reports.ts'
import { run } from './program.ts'

plainReports()

process.exitCode = await run(process.argv.slice(2))
