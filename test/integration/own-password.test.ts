/** A job may change the password of its own minted login: PostgreSQL lets every role do that. What it gets out of it. */
import { Socket } from 'node:net'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { startPostgres } from '../../src/cli/demo/embedded-postgres.ts'
import { type Stage, startStage } from '../support/pgusher.ts'
import { type PostgresServer, setupShop } from '../support/postgres.ts'

const PASSWORD = 'chosen-by-the-job'

let server: PostgresServer
let stage: Stage
beforeAll(async () => {
  // As the README has them, with loopback for pgusher's address.
  server = await startPostgres({ hba: ['host all /^pgu_ 127.0.0.1/32 scram-sha-256', 'host all /^pgu_ all reject'] })
  stage = await startStage({ upstream: { server, shop: await setupShop(server) } })
})
afterAll(async () => {
  await stage?.close()
  await server?.stop()
})

/** Past pgusher, as the login itself. */
async function loginFrom(localAddress: string, user: string): Promise<string> {
  const stream = () => {
    const socket = new Socket()
    const dial = socket.connect.bind(socket)
    return Object.assign(socket, { connect: (port: number, host: string) => dial({ port, host, localAddress }) })
  }
  const client = new pg.Client({
    ...{ host: server.host, port: server.port, database: 'shop', user, password: PASSWORD, stream },
  })
  client.on('error', () => {})
  try {
    await client.connect()
    return 'in'
  } catch (error) {
    return (error as pg.DatabaseError).code ?? 'none'
  } finally {
    await client.end().catch(() => {})
  }
}

test('invariant 43: a login whose password its job has changed is no use from elsewhere, ends with the job, and has an end in any case', async () => {
  const login = await stage.session({ token: await stage.token() }, async (client) => {
    const [{ login }] = (await client.query<{ login: string }>('select session_user::text as login')).rows as [
      { login: string },
    ]
    await client.query(`set role none; alter role ${login} password '${PASSWORD}'`)
    expect(await loginFrom('127.0.0.2', login)).toBe('28000')
    // From pgusher's own address it is what the job has anyway, until the same end.
    expect(await loginFrom('127.0.0.1', login)).toBe('in')
    await expect(client.query(`alter role ${login} valid until 'infinity'`)).rejects.toMatchObject({ code: '42501' })
    await expect(client.query(`alter role ${login} connection limit -1`)).rejects.toMatchObject({ code: '42501' })
    const [end] = await stage.admin<{ minutes: number }>(
      `select extract(epoch from rolvaliduntil - now())::float / 60 as minutes from pg_roles where rolname = '${login}'`,
    )
    // max_session of the rule, and the time for taking it back.
    expect(end?.minutes).toBeGreaterThan(29)
    expect(end?.minutes).toBeLessThan(60)
    return login
  })
  await stage.waitForNoRoles()
  expect(await loginFrom('127.0.0.1', login)).toBe('28P01')
})
