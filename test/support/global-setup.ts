/** Before the first test: a stopped cluster of each PostgreSQL that is here. Tests begin with copies: initdb takes over a second each time. */
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'
import { startPostgres } from '../../src/cli/demo/embedded-postgres.ts'
import { canEnter, unprivilegedUser } from '../../src/cli/demo/postgres-binaries.ts'
import { debianVersions } from './postgres-versions.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** Data directories by major version. */
    clusters: Record<number, string>
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const parent = (await canEnter(tmpdir(), await unprivilegedUser())) ? tmpdir() : '/tmp'
  const directory = await mkdtemp(join(parent, 'pgusher-clusters-'))
  // Whoever runs PostgreSQL in root's place must get to its own directory below.
  await chmod(directory, 0o711)
  const versions = [{ version: 18 }, ...debianVersions()]
  const clusters = await Promise.all(
    versions.map(async ({ version, ...options }) => {
      const dataDir = join(directory, String(version))
      await (await startPostgres({ ...options, dataDir })).stop()
      return [version, dataDir] as const
    }),
  )
  project.provide('clusters', Object.fromEntries(clusters))
  return () => rm(directory, { recursive: true, force: true })
}
