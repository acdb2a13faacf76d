/** Against tickets and HTTP on the TLS port: clients that leave, copies from elsewhere, floods, and others who may make roles. */
import { Agent, request } from 'node:https'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { type TokenAnswer, tokenAnswer, whoamiAnswer } from '../../src/http/api.ts'
import { type ConfigInput, RULES, type RuleInput, type Stage, startStage } from '../support/pgusher.ts'
import { urlFor, withClient } from '../support/postgres.ts'

const MINUTE = 60_000
const KEY = Buffer.alloc(32, 5).toString('base64')
const [migrate, , , nightly] = RULES as [RuleInput, RuleInput, RuleInput, RuleInput]

let stage: Stage
/** Milliseconds that the clock of everything here is ahead. */
let ahead = 0
const realNow = Date.now

beforeAll(async () => {
  vi.spyOn(Date, 'now').mockImplementation(() => realNow() + ahead)
  const rules = [
    { ...migrate, allow: { ...migrate.allow!, ticket_life: '45m' } },
    { ...nightly, allow: { ...nightly.allow!, job_window: '30m', window_connections: 1 } },
  ]
  stage = await startStage({ config: (base: ConfigInput) => ({ ...base, tickets: { key: KEY }, rules }) })
})
afterEach(() => {
  ahead = 0
})
afterAll(async () => {
  vi.restoreAllMocks()
  await stage.close()
})

interface Answer {
  status: number | undefined
  json: unknown
}

/** One request of a job; 127.0.0.0/8 is all this machine's. */
async function call(method: string, path: string, bearer: string, body = '', from = '127.0.0.1'): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const where = { host: 'localhost', port: stage.port, family: 4, localAddress: from }
  const headers = { authorization: `Bearer ${bearer}` }
  const agent = new Agent({ ca: stage.ca })
  const sent = request({ ...where, agent, method, path, headers }, async (response) => {
    const text = Buffer.concat(await response.toArray()).toString()
    resolve({ status: response.statusCode, json: text === '' ? undefined : JSON.parse(text) })
  })
  sent.on('error', reject).end(body)
  return promise
}

async function exchange(): Promise<TokenAnswer> {
  return tokenAnswer.parse((await call('POST', '/v1/token', await stage.token(), 'database=shop-prod')).json)
}

const connect = (token: string, user = 'shop_migrator'): Promise<string> =>
  stage.session({ token, user }, async () => 'in').catch((error: Error) => error.message)

test('whoami decides about a token that is over as a connection is decided: by address, count and window', async () => {
  const token = await stage.token('jenkins')
  const about = async (from?: string): Promise<unknown> => {
    const { json } = await call('POST', '/v1/whoami', token, 'database=shop-prod&user=shop_reader', from)
    const { decision } = whoamiAnswer.parse(json)
    return decision?.allowed === true ? 'in' : decision?.error?.code
  }
  expect(await about('127.0.0.2')).toBe('in')
  expect(await connect(token, 'shop_reader')).toBe('in')
  expect(await about('127.0.0.2')).toBe('address_mismatch')
  expect(await about()).toBe('in')
  ahead = 20 * MINUTE
  expect(await about('127.0.0.2')).toBe('address_mismatch')
  expect(await about()).toBe('in')
  expect(await connect(token, 'shop_reader')).toBe('in')
  expect(await about()).toBe('limit_rate')
  ahead = 40 * MINUTE
  expect(await about()).toBe('token_expired')
})

test('a ticket that was given back does not come back by who may make roles and has kept its comment', async () => {
  const { ticket } = await exchange()
  const carriers = (): Promise<{ name: string; comment: string }[]> =>
    stage.admin(`select rolname as name, shobj_description(oid, 'pg_authid') as comment
      from pg_roles where rolname like 'pgu\\_t\\_%'`)
  const [carrier] = await carriers()
  expect(await connect(ticket)).toBe('in')
  expect((await call('DELETE', '/v1/token', ticket)).status).toBe(204)
  expect(await carriers()).toEqual([])
  await stage.admin(`create role other_admin login createrole password 'other'`)
  try {
    const again = `create role "${carrier!.name}"; comment on role "${carrier!.name}" is '${carrier!.comment}'`
    // By a role in between which is gone afterwards, so that nobody but superusers may change the one that it made.
    await withClient(urlFor(stage.server.superuserUrl, { user: 'other_admin', password: 'other' }), (client) =>
      client.query(again),
    )
    expect(await carriers()).toEqual([carrier])
    expect(await connect(ticket)).toMatch(/^this ticket is not known any more/)
    expect((await call('POST', '/v1/whoami', ticket)).status).toBe(401)
  } finally {
    await stage.admin(`drop role if exists "${carrier!.name}"; drop role other_admin`)
  }
})
