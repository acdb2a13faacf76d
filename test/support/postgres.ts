/** Real PostgreSQL servers for tests: 18 always, and Debian's 15 where it is installed. */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'
import { afterAll } from 'vitest'
import { type PostgresOptions, type PostgresServer, startPostgres } from '../../src/cli/demo/embedded-postgres.ts'

export type { PostgresOptions, PostgresServer } from '../../src/cli/demo/embedded-postgres.ts'
export { eventually, query, type Shop, setupShop, urlFor, withClient } from './shop.ts'

export interface PostgresVersion {
  /** Major version. */
  version: number
  start(options?: PostgresOptions): Promise<PostgresServer>
}

/** For `describe.each`. */
export function postgresVersions(): PostgresVersion[] {
  const debian = [14, 15, 16, 17].map((version) => ({ version, binDir: `/usr/lib/postgresql/${version}/bin` }))
  return [
    { version: 18, start: startPostgres },
    ...debian
      .filter(({ binDir }) => existsSync(`${binDir}/initdb`))
      .map(({ version, binDir }) => ({
        version,
        start: (options: PostgresOptions = {}) => startPostgres({ ...options, binDir }),
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
