/** Against tickets and HTTP on the TLS port: clients that leave, copies from elsewhere, floods, and others who may make roles. */
import { Agent, request } from 'node:https'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { openAdmin } from '../../src/credentials/admin-connection.ts'
import { createTicketCarriers } from '../../src/credentials/ticket-carriers.ts'
import { type TokenAnswer, tokenAnswer, whoamiAnswer } from '../../src/http/api.ts'
import { databaseOf } from '../support/mint.ts'
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

test('a job that holds on to the roles of its tickets makes no more of them by giving them back', async () => {
  const target = { alias: 'shop-prod', config: databaseOf(stage.server, stage.shop), dbname: 'shop' }
  const minting = { ...stage.shop.admin, connections: 4 }
  const login = { kind: 'ephemeral-role', admin: minting, prefix: 'pgu_', linger: 0 } as const
  const admin = openAdmin(target, login, 'attack')
  const carriers = createTicketCarriers(admin, 4)
  const comment = { expiresAt: Date.now() + MINUTE, runs: [], sealed: 'AAAA' }
  const [mine, other] = ['0'.repeat(32), '1'.repeat(32)] as const
  const ids = [1, 2, 3, 4, 5, 6].map((n) => n.toString(16).padStart(24, '0')) as [string, ...string[]]
  const create = (at: number, job: string): Promise<boolean> => carriers.create(ids[at]!, { ...comment, job }, [job], 2)
  try {
    expect([await create(0, mine), await create(1, mine), await create(2, mine)]).toEqual([true, true, false])
    await stage.admin(`grant select on orders to pgu_t_${ids[0]}, pgu_t_${ids[1]}`, 'shop')
    expect([await carriers.remove(ids[0]), await carriers.remove(ids[1]!)]).toEqual([true, true])
    expect(await create(2, mine)).toBe(false)
    expect([await create(2, other), await create(3, other)]).toEqual([true, true])
    await expect(create(4, '2'.repeat(32))).rejects.toMatchObject({
      code: 'limit_rate',
      message: 'database "shop-prod" has 4 tickets already, as many as it may have',
    })
  } finally {
    await stage.admin(`revoke select on orders from pgu_t_${ids[0]}, pgu_t_${ids[1]}`, 'shop')
    for (const id of ids) await carriers.remove(id)
    await carriers.removeExpired(Date.now())
    await admin.close()
  }
  expect(await stage.mintedRoles()).toEqual([])
})
