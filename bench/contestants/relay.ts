/** pgusher's own relay without audit, identity and policy, to subtract it. */
import { fileURLToPath } from 'node:url'
import { freePort, startServer } from '../processes.ts'
import { DATABASE, type Stage, USER } from '../stage.ts'
import type { Contestant } from './contestant.ts'

export async function relay({ server }: Stage): Promise<Contestant> {
  const port = await freePort()
  const main = fileURLToPath(new URL('relay-process.ts', import.meta.url))
  const { pid, stop } = await startServer(process.execPath, [main, String(port), String(server.port)], port)
  return {
    pids: [pid],
    version: `on Node ${process.versions.node}`,
    address: async () => ({ port, user: USER.name, password: USER.password, database: DATABASE, tls: false }),
    stop,
  }
}
