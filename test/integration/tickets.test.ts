/** Tickets on the real stage, with a clock that the test sets: two pgushers over one PostgreSQL, jobs with curl, psql and drivers. */
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { Agent, request } from 'node:https'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { fileURLToPath } from 'node:url'
import type pg from 'pg'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { ask } from '../../src/cli/control-client.ts'
import { errorAnswer, type TokenAnswer, tokenAnswer, whoamiAnswer } from '../../src/http/api.ts'
import { KILL_PATH } from '../../src/http/control-request.ts'
import { available, output } from '../support/commands.ts'
import { minterOf } from '../support/mint.ts'
import { type ConfigInput, type Job, RULES, type RuleInput, type Stage, startStage } from '../support/pgusher.ts'
import { eventually, psqlAvailable, withClient } from '../support/postgres.ts'

const MINUTE = 60_000
const JDBC = '/usr/share/java/postgresql.jar'
const KEY = Buffer.alloc(32, 7).toString('base64')
const program = (name: string): string => fileURLToPath(new URL(`../support/clients/${name}`, import.meta.url))

function withAllow(rule: RuleInput, allow: Partial<NonNullable<RuleInput['allow']>>): RuleInput {
  return { ...rule, allow: { ...rule.allow!, ...allow } }
}

const [migrate, report, warehouse, nightly] = RULES as [RuleInput, RuleInput, RuleInput, RuleInput]
/** GitHub's jobs get tickets, Buildkite's from any address, Jenkins' have windows as well, GitLab's get none. */
const GIVING = [
  withAllow(migrate, { ticket_life: '45m' }),
  report,
  withAllow(warehouse, { role: ['shop_migrator', 'shop_reader'], ticket_life: '45m', any_address: true }),
  withAllow(nightly, { ticket_life: '45m', job_window: '30m' }),
]
const config =
  (rules: readonly RuleInput[] = GIVING, key: string | string[] = KEY) =>
  (base: ConfigInput): ConfigInput => ({
    ...base,
    control: { socket: 'control.sock' },
    tickets: { key },
    rules: [...rules],
  })

let stage: Stage
/** Another process with the same key over the same databases. */
let replica: Stage
/** Milliseconds that the clock of everything here is ahead. */
let ahead = 0
const realNow = Date.now
/** Tickets of this file, none of which may be found anywhere else. */
const given: string[] = []

beforeAll(async () => {
  vi.spyOn(Date, 'now').mockImplementation(() => realNow() + ahead)
  stage = await startStage({ config: config() })
  replica = await startStage({ config: config() })
})
afterEach(() => {
  ahead = 0
})
afterAll(async () => {
  vi.restoreAllMocks()
  for (const ticket of given) await call('DELETE', '/v1/token', { bearer: ticket })
  await replica.close()
  await stage.close()
})

interface Asking {
  bearer?: string
  body?: string
  from?: string
  at?: Stage
}

/** One request of a job; 127.0.0.0/8 is all this machine's, so a thief's address is as easily had. */
async function call(
  method: string,
  path: string,
  { bearer, body = '', from = '127.0.0.1', at = stage }: Asking = {},
): Promise<{ status: number | undefined; json: unknown }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number | undefined; json: unknown }>()
  const headers = bearer === undefined ? {} : { authorization: `Bearer ${bearer}` }
  const where = { host: 'localhost', port: at.port, family: 4, localAddress: from, agent: new Agent({ ca: at.ca }) }
  const sent = request({ ...where, method, path, headers }, async (response) => {
    const text = Buffer.concat(await response.toArray()).toString()
    resolve({ status: response.statusCode, json: text === '' ? undefined : JSON.parse(text) })
  })
  sent.on('error', reject).end(body)
  return promise
}

let runs = 0
/** A production job of its own. */
const tokenOf = (shape: 'github' | 'buildkite' | 'jenkins' = 'github'): Promise<string> => {
  const id = String(700_000 + runs++)
  return shape === 'github' ? stage.token(shape, { run_id: id, check_run_id: id }) : stage.token(shape)
}

async function exchange(asking: Asking & { bearer: string }): Promise<TokenAnswer> {
  const { status, json } = await call('POST', '/v1/token', { body: '{"database":"shop-prod"}', ...asking })
  expect({ status, json }).toMatchObject({ status: 200 })
  const answer = tokenAnswer.parse(json)
  given.push(answer.ticket)
  return answer
}

const ticketOf = async (): Promise<string> => (await exchange({ bearer: await tokenOf() })).ticket

const connect = (job: Job, at = stage): Promise<string> =>
  at.session(job, async (client) => (await client.query<{ name: string }>('select current_user as name')).rows[0]!.name)

function connectFrom(localAddress: string, job: Job): Promise<string> {
  const stream = () => {
    const socket = new Socket()
    const dial = socket.connect.bind(socket)
    return Object.assign(socket, { connect: (port: number, host: string) => dial({ port, host, localAddress }) })
  }
  return withClient({ ...stage.client(job), stream }, async () => 'in')
}

const refused = (work: Promise<unknown>): Promise<string> =>
  work.then(
    (value) => `let ${String(value)}`,
    (error: pg.DatabaseError) => `${error.code} ${error.message}`,
  )

const carriers = (): Promise<{ name: string }[]> =>
  stage.admin<{ name: string }>(`select rolname as name from pg_roles where rolname like 'pgu\\_t\\_%'`)

test('a job with curl gets a ticket, connects with it, and gives it back', async () => {
  const base = `https://localhost:${stage.port}/v1`
  const curl = (...args: string[]): Promise<string> =>
    output(['curl', '-sS', '--fail-with-body', '--cacert', stage.caFile, ...args], { PATH: process.env['PATH'] ?? '' })
  const audience = await curl('-H', 'Accept: text/plain', `${base}/audience?preset=github-actions`)
  expect(audience).toBe('https://pgusher.acme.example\n')
  const token = await tokenOf()
  const answer = await curl('-H', `Authorization: Bearer ${token}`, '-d', 'database=shop-prod', `${base}/token`)
  const { ticket, user, rule, database, expires_at, urls } = tokenAnswer.parse(JSON.parse(answer))
  expect({ user, rule, database }).toEqual({ user: 'shop_migrator', rule: 'migrate-production', database: 'shop-prod' })
  expect(Date.parse(expires_at) - Date.now()).toBeGreaterThan(44 * MINUTE)
  expect(urls.uri).toContain(`@localhost:${stage.port}/shop-prod`)
  expect(await connect({ token: ticket })).toBe('shop_migrator')
  await curl('-X', 'DELETE', '-H', `Authorization: Bearer ${ticket}`, `${base}/token`)
  expect(await refused(connect({ token: ticket }))).toMatch(
    /^28P01 this ticket is not known any more: it was given back/,
  )
  expect((await call('DELETE', '/v1/token', { bearer: ticket })).status).toBe(204)
  const started = await stage.waitForEvent('session.started')
  const { id } = started.pgusher['admission'] as { id: string }
  const [issued, returned] = await Promise.all([
    stage.waitForEvent('ticket.issued'),
    stage.waitForEvent('ticket.returned'),
  ])
  expect(issued).toMatchObject({
    pgusher: { ticket: { id, rule, database, expires_at }, idp: { provider: 'github-actions' } },
    security_rule: { name: rule },
    client: { address: '127.0.0.1' },
  })
  expect(returned).toMatchObject({
    pgusher: { ticket: { id, reason: 'returned' }, idp: { provider: 'github-actions' } },
  })
})

test('it is kept as a role that can do nothing, whose comment tells nothing', async () => {
  const ticket = await ticketOf()
  const [role, ...more] = await stage.admin(`
    select r.*, shobj_description(r.oid, 'pg_authid') as comment,
      (select count(*)::int from pg_auth_members m where m.member = r.oid) as memberships
    from pg_roles r where rolname like 'pgu\\_t\\_%'`)
  expect(more).toEqual([])
  expect(role).toMatchObject({
    ...{ rolcanlogin: false, rolinherit: false, rolsuper: false, rolcreaterole: false, rolcreatedb: false },
    ...{ rolreplication: false, rolbypassrls: false, memberships: 0 },
  })
  const minter = minterOf(stage.server, stage.shop)
  expect((await minter.check([])).filter(({ message }) => message.includes('was not made by pgusher'))).toEqual([])
  await minter.close()
  const comment = String(role?.['comment'])
  expect(comment).toMatch(
    /^pgusher ticket 1: until \S+, job [0-9a-f]{32}, run [0-9a-f]{32} [0-9a-f]{32}, sealed [A-Za-z0-9+/=]+$/,
  )
  for (const word of ['acme', 'shop', 'dana', ticket]) expect(comment).not.toContain(word)
  expect((await call('DELETE', '/v1/token', { bearer: ticket })).status).toBe(204)
  expect(await carriers()).toEqual([])
})

test('it lets in long after the token, up to its own end, on both pgushers and after a restart', async () => {
  const token = await tokenOf()
  const { ticket } = await exchange({ bearer: token })
  ahead = 44 * MINUTE
  expect(await refused(connect({ token }))).toMatch(/^28P01 the token expired/)
  expect(await connect({ token: ticket })).toBe('shop_migrator')
  expect(await connect({ token: ticket }, replica)).toBe('shop_migrator')
  await replica.pgusher.stop()
  await replica.restart()
  expect(await connect({ token: ticket }, replica)).toBe('shop_migrator')
  ahead = 46 * MINUTE
  expect(await refused(connect({ token: ticket }))).toMatch(/^28P01 the ticket expired at 20/)
  // What is over is cleared away by whoever starts next, whoever made it.
  await replica.pgusher.stop()
  await replica.restart()
  await eventually(async () => (await carriers()).length === 0)
  expect(await refused(connect({ token: ticket }))).toMatch(/^28P01 the ticket expired at 20/)
})

test('its URLs work as they are, but for the CA', async () => {
  const { urls } = await exchange({ bearer: await tokenOf() })
  const uri = new URL(urls.uri)
  uri.searchParams.set('sslrootcert', stage.caFile)
  expect(await withClient(uri.href, async () => 'in')).toBe('in')
  const env = { PATH: process.env['PATH'] ?? '', PSQLRC: '/dev/null' }
  if (await psqlAvailable()) {
    const psql = ['psql', '-Xqtc', 'select current_user']
    expect((await output([...psql, `${urls.libpq} sslrootcert=${stage.caFile}`], env)).trim()).toBe('shop_migrator')
    expect((await output([...psql, uri.href], env)).trim()).toBe('shop_migrator')
  }
})

test.runIf(existsSync(JDBC) && (await available('java')))('pgjdbc connects by the JDBC URL alone', async () => {
  const { urls } = await exchange({ bearer: await tokenOf() })
  const env = { PATH: process.env['PATH'] ?? '', JDBC_DATABASE_URL: `${urls.jdbc}&sslrootcert=${stage.caFile}` }
  const java = ['java', '-XX:TieredStopAtLevel=1', '-cp', JDBC, program('ExecJob.java')]
  expect(await output(java, env)).toBe('shop_migrator\n')
})

test('a client that cuts passwords at 100 characters passes it whole, as it does no token', async () => {
  const token = await tokenOf()
  const { ticket } = await exchange({ bearer: token })
  expect(await connect({ token: ticket.slice(0, 100) })).toBe('shop_migrator')
  expect(await refused(connect({ token: token.slice(0, 100) }))).toMatch(/^28P01 /)
  expect(await refused(connect({ token: ticket.slice(0, 60) }))).toMatch(/^28P01 this is no whole ticket: it has 60 ch/)
})

test('it is for its database and its role, and the refusal says for which', async () => {
  const bearer = await tokenOf()
  const { ticket } = await exchange({ bearer })
  const other = { token: ticket, database: 'warehouse' }
  expect(await connect({ ...other, token: bearer })).toBe('shop_migrator')
  expect(await refused(connect(other))).toMatch(
    /^42501 this ticket is for database "shop-prod" and role "shop_migrator"/,
  )
  expect(await refused(connect({ token: ticket, user: 'shop_reader' }))).toMatch(/^42501 /)
  expect(await connect({ token: ticket, user: 'ci' })).toBe('shop_migrator')

  // Of a job that may have either role, for one.
  const builds = await tokenOf('buildkite')
  const ask = { bearer: builds, body: 'database=warehouse&user=shop_reader' }
  const { ticket: reads } = await exchange(ask)
  const job = { token: reads, database: 'warehouse' }
  expect(await connect({ ...job, user: 'shop_reader' })).toBe('shop_reader')
  expect(await refused(connect({ ...job, user: 'shop_migrator' }))).toMatch(
    /^42501 this ticket is for role "shop_reader" by rule "load-warehouse"/,
  )
})

test('it is for the address that asked, unless the rule says otherwise; anybody may give it back', async () => {
  const ticket = await ticketOf()
  expect(await refused(connectFrom('127.0.0.2', { token: ticket }))).toMatch(
    /^28P01 this ticket was given to another ad/,
  )
  expect(await call('POST', '/v1/whoami', { bearer: ticket, from: '127.0.0.2' })).toMatchObject({
    ...{ status: 401, json: { error: { code: 'address_mismatch' } } },
  })
  const { ticket: free } = await exchange({
    bearer: await tokenOf('buildkite'),
    body: 'database=warehouse&user=shop_reader',
  })
  expect(await connectFrom('127.0.0.2', { token: free, database: 'warehouse', user: 'shop_reader' })).toBe('in')
  expect((await call('DELETE', '/v1/token', { bearer: ticket, from: '127.0.0.2' })).status).toBe(204)
  expect(await refused(connect({ token: ticket }))).toMatch(/^28P01 this ticket is not known any more/)
})

test.each([
  ['a token with another claim', { ref: 'refs/heads/fix-1' }, 'database=shop-prod', 403, 'no_matching_rule'],
  ['a database that is not known', {}, 'database=nowhere', 404, 'database_unknown'],
  ['a role that is not granted', {}, 'database=shop-prod&user=shop_reader', 403, 'role_not_allowed'],
])('%s is refused as at a connection, and on record', async (_, claims, body, status, code) => {
  const bearer = await stage.token('github', claims)
  const { status: got, json } = await call('POST', '/v1/token', { bearer, body })
  const { error } = errorAnswer.parse(json)
  expect({ status: got, code: error.code }).toEqual({ status, code })
  const decision = { code, id: error.id, stage: 'exchange', message: error.message }
  const event = await stage.waitForEvent(({ pgusher }) => (pgusher['decision'] as { id?: string })?.id === error.id)
  expect(event).toMatchObject({ event: 'session.denied', pgusher: { decision, idp: { provider: 'github-actions' } } })
})

test('there is none for a token that is over, for what is no token, for a ticket, or by a rule without ticket_life', async () => {
  const answer = async (bearer: string, body = 'database=shop-prod'): Promise<string> => {
    const { status, json } = await call('POST', '/v1/token', { bearer, body })
    const { code, message } = errorAnswer.parse(json).error
    return `${status} ${code}: ${message}`
  }
  expect(await answer(await stage.token('github', {}, { lifeSeconds: -60 }))).toMatch(/^401 token_expired/)
  expect(await answer('hunter2')).toMatch(/^401 token_malformed/)
  expect(await answer(await ticketOf())).toMatch(/^401 token_malformed: a ticket is not exchanged for another one/)
  expect(await answer(await stage.token('gitlab'))).toBe('403 ticket_scope: rule "report" gives no tickets')
  // A window lets the job connect with it; a ticket would last longer than the window.
  const bearer = await tokenOf('jenkins')
  expect(await connect({ token: bearer, user: 'shop_reader' })).toBe('shop_reader')
  ahead = 20 * MINUTE
  expect(await connect({ token: bearer, user: 'shop_reader' })).toBe('shop_reader')
  expect(await answer(bearer)).toMatch(
    /^401 token_expired: the token has expired, and a ticket is given for a valid one/,
  )
})

test('whoami knows a ticket, and decides about it as a connection is decided', async () => {
  const ticket = await ticketOf()
  const about = async (body: string): Promise<unknown> =>
    whoamiAnswer.parse((await call('POST', '/v1/whoami', { bearer: ticket, body })).json).decision
  expect(await about('')).toMatchObject({ allowed: true, database: 'shop-prod', role: 'shop_migrator' })
  expect(await about('{"database":"warehouse"}')).toMatchObject({ allowed: false, error: { code: 'ticket_scope' } })
  expect(await about('{"database":"shop-prod","user":"shop_reader"}')).toMatchObject({ allowed: false })
  const { json } = await call('POST', '/v1/whoami', { bearer: ticket })
  expect(json).toMatchObject({
    identity: { provider: 'github-actions', job: { repository_url: 'https://github.com/acme/shop' } },
  })
  await eventually(async () => (await stage.events(({ pgusher }) => pgusher.outcome === 'would_deny')).length === 2)
  await stage.waitForEvent('job.identified')
})

test('a policy that no longer allows it ends it: another rule, no ticket_life, a shorter one', async () => {
  const ticket = await ticketOf()
  const attempt = (): Promise<string> => refused(connect({ token: ticket }))
  const becomes = (rule: RuleInput): Promise<boolean> => stage.reload({ config: config([rule, ...GIVING.slice(1)]) })
  await becomes({ ...GIVING[0]!, name: 'migrate-anew' })
  expect(await attempt()).toMatch(/^42501 this ticket was given by rule "migrate-production", and the policy of now/)
  await becomes(migrate)
  expect(await attempt()).toMatch(/^42501 rule "migrate-production" takes no tickets any more/)
  await becomes({ ...GIVING[0]!, match: { ...migrate.match, ref: 'refs/heads/release' } })
  expect(await attempt()).toMatch(/^42501 .*claim ref is "refs\/heads\/main"/)
  await becomes(withAllow(migrate, { ticket_life: '10m' }))
  expect(await attempt()).toBe('let shop_migrator')
  ahead = 11 * MINUTE
  expect(await attempt()).toMatch(/^28P01 the ticket expired at .*: ticket_life is shorter than it was/)
  ahead = 0
  await stage.reload({ config: config(GIVING, [Buffer.alloc(32, 9).toString('base64'), KEY]) })
  expect(await attempt()).toBe('let shop_migrator')
  await stage.reload({ config: config() })
})

test('a kill takes it away on every replica, and the job gets no other one', async () => {
  const bearer = await tokenOf()
  const { ticket } = await exchange({ bearer })
  await stage.session({ token: ticket }, async (client) => {
    const ended = new Promise((resolve) => client.once('error', resolve))
    const run = String(700_000 + runs - 1)
    const order = { target: { by: 'run', value: run }, user: 'dana', reason: 'leaked' }
    const killed = await ask(join(stage.directory, 'control.sock'), KILL_PATH, order)
    expect(killed).toMatchObject({ sessions: 1, tickets: 1, problems: [] })
    await ended
  })
  expect(await refused(connect({ token: ticket }, replica))).toMatch(/^28P01 this ticket is not known any more/)
  expect(await call('POST', '/v1/token', { bearer, body: 'database=shop-prod' })).toMatchObject({
    ...{ status: 403, json: { error: { code: 'job_barred' } } },
  })
})

test('a kill of a run by its URL takes away what it got elsewhere, also before a restart, connected or not', async () => {
  const [bearer, next] = [await tokenOf(), await tokenOf()]
  const [mine, other] = [await exchange({ bearer, at: replica }), await exchange({ bearer: next, at: replica })]
  await replica.pgusher.stop()
  await replica.restart()
  const value = `https://github.com/acme/shop/actions/runs/${700_000 + runs - 2}`
  const order = { target: { by: 'run', value }, user: 'dana', reason: 'leaked' }
  const killed = await ask(join(stage.directory, 'control.sock'), KILL_PATH, order)
  expect(killed).toMatchObject({ sessions: 0, tickets: 1, problems: [] })
  expect(await refused(connect({ token: mine.ticket }, replica))).toMatch(/^28P01 this ticket is not known any more/)
  expect(await connect({ token: other.ticket }, replica)).toBe('shop_migrator')
})

test('a job that makes something depend on its role does not keep it', async () => {
  for (const one of given.splice(0)) await call('DELETE', '/v1/token', { bearer: one })
  const ticket = await ticketOf()
  // One sweep takes only a few of those that are held, and the next one is a while away.
  const [carrier, ...others] = await carriers()
  expect(others).toEqual([])
  await stage.session({ token: ticket }, (client) =>
    client.query(`grant select on public.orders to "${carrier?.name}"`),
  )
  expect((await call('DELETE', '/v1/token', { bearer: ticket })).status).toBe(204)
  expect(await refused(connect({ token: ticket }))).toMatch(/^28P01 this ticket is not known any more/)
  await replica.pgusher.stop()
  await replica.restart()
  await eventually(async () => (await carriers()).length === 0)
})

test('a job that locks its role by a prepared transaction does not keep it either', async () => {
  const ticket = await ticketOf()
  const [carrier] = await carriers()
  await stage.session({ token: ticket }, async (client) => {
    await client.query(`begin; grant select on public.orders to "${carrier?.name}"; prepare transaction 'keeps'`)
  })
  expect((await call('DELETE', '/v1/token', { bearer: ticket })).status).toBe(204)
  expect(await refused(connect({ token: ticket }, replica))).toMatch(/^28P01 this ticket is not known any more/)
  expect(await carriers()).toEqual([carrier])
  await stage.admin(`rollback prepared 'keeps'`, 'shop')
  await replica.pgusher.stop()
  await replica.restart()
  await eventually(async () => (await carriers()).length === 0)
})

test('metrics count tickets, and none is in the audit or in the log', async () => {
  const { httpAddress } = stage.pgusher
  const metrics = await (
    await fetch(`http://127.0.0.1:${httpAddress.kind === 'tcp' ? httpAddress.port : 0}/metrics`)
  ).text()
  const counted = Object.fromEntries(
    [...metrics.matchAll(/^pgusher_tickets_total\{event="(\w+)"\} (\d+)$/gm)].map(([, event, count]) => [
      event,
      Number(count),
    ]),
  )
  expect(counted).toMatchObject({ issued: expect.any(Number), returned: expect.any(Number), killed: 2 })
  for (const file of [stage.auditFile, stage.logFile, replica.auditFile, replica.logFile]) {
    expect(await readFile(file, 'utf8')).not.toMatch(/pgut_[\w-]{8}/)
  }
})

test('a shutdown waits for nobody who speaks HTTP, and leaves nothing of theirs', async () => {
  const bytes = [
    '',
    'POST /v1/token HTTP/1.1\r\nHo',
    'POST /v1/token HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nd',
  ]
  const clients = await Promise.all(
    bytes.map(async (text) => {
      const client = connectTls({ host: 'localhost', port: replica.port, ca: replica.ca })
      client.on('error', () => {}).resume()
      await new Promise((resolve) => client.once('secureConnect', resolve))
      client.write(text)
      return client
    }),
  )
  const at = performance.now()
  expect(await replica.pgusher.stop()).toBe(true)
  // They would be hung up on after ten.
  expect(performance.now() - at).toBeLessThan(8_000)
  await eventually(async () => clients.every(({ closed }) => closed))
})
