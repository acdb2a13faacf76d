/** SIGTERM while a job is busy, and again by somebody who does not want to wait. */
import { once } from 'node:events'
import { connect } from 'node:net'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Stage, startStage } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'

let stage: Stage
beforeAll(async () => {
  stage = await startStage({ spawn: true, config: (config) => ({ ...config, drain_timeout: '60s' }) })
})
afterAll(() => expect(stage.close()).rejects.toThrow('pgusher did not end cleanly'))

test('invariant 41: while it drains nobody new gets in and readiness is 503; a second SIGTERM ends it at once', async () => {
  const { child, httpAddress } = stage.pgusher
  const exited = once(child!, 'exit')
  const port = httpAddress.kind === 'tcp' ? httpAddress.port : 0
  const client = new pg.Client(stage.client({ token: await stage.token() }))
  client.on('error', () => {})
  await client.connect()
  const running = client.query("select pg_sleep(60), 'busy'").catch((error: Error) => error)
  await eventually(async () => {
    const rows = await stage.admin(`select 1 from pg_stat_activity where query like '%''busy''' and state = 'active'`)
    return rows.length === 1
  })
  child?.kill('SIGTERM')
  await eventually(async () => (await fetch(`http://127.0.0.1:${port}/readyz`)).status === 503)
  const late = connect(stage.port, '127.0.0.1')
  const told = new Promise((resolve) =>
    late.once('connect', () => resolve('in')).once('error', () => resolve('refused')),
  )
  expect(await told).toBe('refused')
  const at = performance.now()
  child?.kill('SIGTERM')
  expect((await exited)[0]).toBe(1)
  // It would drain for a minute.
  expect(performance.now() - at).toBeLessThan(10_000)
  expect(await running).toBeInstanceOf(Error)
  // The next start would take its role back 20 s later; here the superuser does.
  await stage.admin(`select pg_terminate_backend(pid, 10000) from pg_stat_activity where usename like 'pgu\\_%'`)
  for (const login of await stage.mintedRoles()) await stage.admin(`drop role ${login}`)
})
