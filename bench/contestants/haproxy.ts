/** haproxy in TCP mode: the least that any proxy can do. It does not speak PostgreSQL's way into TLS, which goes through it untouched. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort, startServer, versionOf } from '../processes.ts'
import { DATABASE, type Stage, USER } from '../stage.ts'
import type { Contestant } from './contestant.ts'

export async function haproxy({ server, scratch }: Stage): Promise<Contestant | string> {
  const version = await versionOf('haproxy', '-v')
  if (version === undefined) return 'haproxy is not installed (apt-get install haproxy)'
  const port = await freePort()
  const file = join(scratch, `haproxy-${port}.cfg`)
  await writeFile(
    file,
    `global
  nbthread 1
  maxconn 4000
defaults
  mode tcp
  maxconn 4000
  timeout connect 5s
  timeout client 10m
  timeout server 10m
listen bench
  bind 127.0.0.1:${port}
  server postgres 127.0.0.1:${server.port}
`,
  )
  const { pid, stop } = await startServer('haproxy', ['-db', '-f', file], port)
  return {
    pids: [pid],
    version,
    address: async (variant) => ({
      ...{ port, user: USER.name, password: USER.password, database: DATABASE, tls: variant !== 'plain' },
    }),
    stop,
  }
}
