import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Stage, startStage } from '../support/pgusher.ts'

let stage: Stage
beforeAll(async () => {
  stage = await startStage({ workers: 3 })
})
afterAll(() => stage.close())

test('sessions of one job share one role, whichever worker has them', async () => {
  const token = await stage.token()
  const logins = await Promise.all(
    Array.from({ length: 8 }, () =>
      stage.session(
        { token },
        async (client) => (await client.query<{ u: string }>('select session_user as u')).rows[0]?.u,
      ),
    ),
  )
  expect(new Set(logins).size).toBe(1)
  const starts = await stage.events('session.started')
  console.log(starts.map((e) => e.pgusher['instance']))
})
