/** A pgusher that is killed at one step of minting. Run as a process of its own; argument: JSON of MintAndDie. Prints the login. */
import { once } from 'node:events'
import pg from 'pg'
import type { MintStep } from '../../src/credentials/mint-role.ts'
import { grantOf, minterOf, principalOf, urlOf } from './mint.ts'
import type { PostgresServer, Shop } from './shop.ts'

export interface MintAndDie {
  server: Pick<PostgresServer, 'host' | 'port' | 'superuserUrl'>
  shop: Shop
  boot: string
  /** `session`: after it logged in with the credential and has a statement running. */
  at: MintStep | 'session'
}

const { server, shop, boot, at }: MintAndDie = JSON.parse(process.argv[2] ?? '')

async function die(login: string): Promise<never> {
  process.stdout.write(login)
  if (process.stdout.writableNeedDrain) await once(process.stdout, 'drain')
  process.kill(process.pid, 'SIGKILL')
  return new Promise(() => {})
}

const onStep = async (step: MintStep, login: string) => {
  if (step === at) await die(login)
}
const minter = minterOf(server, shop, { boot, onStep })
const credential = await minter.mint(principalOf(boot), grantOf(), Date.now() + 600_000)
const session = new pg.Client(urlOf(server, credential))
await session.connect()
void session.query('SELECT pg_sleep(600)')
const watcher = new pg.Client(server.superuserUrl)
await watcher.connect()
for (;;) {
  const { rowCount } = await watcher.query(
    `SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = $1`,
    [credential.login],
  )
  if (rowCount === 1) await die(credential.login)
}
