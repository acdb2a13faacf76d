/** One stage for each PostgreSQL that is installed, for files whose tests are the same on all of them. */
import { afterAll, beforeAll, describe } from 'vitest'
import { type Stage, type StageOptions, startStage } from './pgusher.ts'
import { type PostgresOptions, type PostgresServer, postgresVersions, setupShop } from './postgres.ts'

/** @param define gets the stage, which is there once the tests run */
export function onEachPostgres(
  define: (stage: () => Stage, version: number) => void,
  options: StageOptions = {},
  server: PostgresOptions = {},
): void {
  describe.each(postgresVersions())('PostgreSQL $version', ({ version, start }) => {
    let postgres: PostgresServer | undefined
    let stage: Stage | undefined
    beforeAll(async () => {
      postgres = await start(server)
      stage = await startStage({ ...options, upstream: { server: postgres, shop: await setupShop(postgres) } })
    })
    afterAll(async () => {
      try {
        await stage?.close()
      } finally {
        await postgres?.stop()
      }
    })
    define(() => stage!, version)
  })
}
