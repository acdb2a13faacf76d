/** Real PostgreSQL servers for tests: 18 always, and Debian's 15 where it is installed. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterAll, inject } from 'vitest'
import {
  type PostgresOptions,
  type PostgresServer,
  startPostgres as startServer,
} from '../../src/cli/demo/embedded-postgres.ts'
import { debianVersions } from './postgres-versions.ts'

export type { PostgresOptions, PostgresServer } from '../../src/cli/demo/embedded-postgres.ts'
export { eventually, query, type Shop, setupShop, urlFor, withClient } from './shop.ts'

export interface PostgresVersion {
  /** Major version. */
  version: number
  start(options?: PostgresOptions): Promise<PostgresServer>
}

/** PostgreSQL 18, with a cluster that was made before. */
export const startPostgres = (options: PostgresOptions = {}): Promise<PostgresServer> => startCopy(18, options)

function startCopy(version: number, options: PostgresOptions): Promise<PostgresServer> {
  const copyOf = inject('clusters')[version]
  return startServer(copyOf === undefined ? options : { ...options, copyOf })
}

/** For `describe.each`. */
export function postgresVersions(): PostgresVersion[] {
  return [
    { version: 18, start: startPostgres },
    ...debianVersions().map(({ version, binDir }) => ({
      version,
      start: (options: PostgresOptions = {}) => startCopy(version, { ...options, binDir }),
    })),
  ]
}

let shared: Promise<PostgresServer> | undefined

/** PostgreSQL 18, one for each test file that asks for it, stopped after the file's last test. */
export function sharedPostgres(): Promise<PostgresServer> {
  shared ??= startPostgres()
  return shared
}

afterAll(async () => {
  await (await shared)?.stop()
})

let psql: Promise<boolean> | undefined

export function psqlAvailable(): Promise<boolean> {
  psql ??= promisify(execFile)('psql', ['--version']).then(
    () => true,
    () => false,
  )
  return psql
}
