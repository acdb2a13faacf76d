/** No proxy: what PostgreSQL and the client take by themselves. */
import { DATABASE, type Stage, USER } from '../stage.ts'
import type { Contestant } from './contestant.ts'

export async function direct({ server, version }: Stage): Promise<Contestant> {
  return {
    pids: [],
    version: `PostgreSQL ${version}`,
    address: async (variant) => ({
      ...{ port: server.port, user: USER.name, password: USER.password, database: DATABASE, tls: variant !== 'plain' },
    }),
    stop: async () => {},
  }
}
