import { readFile } from 'node:fs/promises'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type EventFilter, RULES, type Stage, startStage } from '../support/pgusher.ts'

let stage: Stage
let token: string

beforeAll(async () => {
  const [first, ...others] = RULES
  const limits = { statement_timeout: '7s', lock_timeout: '3s', idle_in_transaction_session_timeout: '11s' }
  stage = await startStage({ rules: [{ ...first!, allow: { ...first!.allow!, ...limits } }, ...others] })
  token = await stage.token()
})

afterAll(() => stage.close())

const connect = async (options: pg.ClientConfig): Promise<pg.Client> => {
  const client = new pg.Client({ ...stage.client({ token }), ...options })
  await client.connect()
  return client
}

const refusal = async (options: pg.ClientConfig): Promise<{ code?: string; message: string }> =>
  connect(options).then(
    (client) => client.end().then(() => expect.fail('it was let in')),
    (error: unknown) => error as { code?: string; message: string },
  )

test("the rule's time-outs are the session's, and a job's own are not taken in their place", async () => {
  const client = await connect({ statement_timeout: 600_000, options: '-c lock_timeout=1h' })
  const show = async (name: string) => (await client.query(`show ${name}`)).rows[0][name]
  expect(await show('statement_timeout')).toBe('7s')
  expect(await show('lock_timeout')).toBe('3s')
  expect(await show('idle_in_transaction_session_timeout')).toBe('11s')
  await client.end()
})

test('application_name tells the run and keeps what the client calls itself', async () => {
  const client = await connect({ application_name: 'flyway' })
  const { rows } = await client.query('select pg_backend_pid() as pid')
  const [seen] = await stage.admin<{ application_name: string; usename: string }>(
    `select application_name, usename from pg_stat_activity where pid = ${rows[0].pid}`,
  )
  expect(seen?.application_name).toBe('pgusher github-actions/18700000412.1 flyway')
  expect(seen?.usename).toMatch(/^pgu_/)
  const [role] = await stage.admin<{ comment: string }>(
    `select shobj_description(oid, 'pg_authid') as comment from pg_roles where rolname = '${seen?.usename}'`,
  )
  expect(JSON.stringify(JSON.parse(role!.comment))).toContain('18700000412')
  await client.end()
})

test('the job is in pgusher.job, comes back after DISCARD ALL, and a client cannot begin with another one', async () => {
  const client = await connect({})
  const job = async (): Promise<Record<string, string>> =>
    JSON.parse((await client.query("select current_setting('pgusher.job') as job")).rows[0].job)
  const [first] = await stage.events('session.started')
  expect(await job()).toMatchObject({
    provider: 'github-actions',
    repository: 'https://github.com/acme/shop',
    ref: 'refs/heads/main',
    run: '18700000412',
    attempt: '1',
    rule: 'migrate-production',
    role: 'shop_migrator',
    database: 'shop-prod',
  })
  expect((await client.query('show pgusher.job')).rows[0]['pgusher.job']).toContain('"actor":"dana-dev"')
  await client.query(`set pgusher.job = '{"run":"of somebody else"}'`)
  await client.query('discard all')
  expect((await job())['run']).toBe('18700000412')
  expect(first).toBeDefined()
  await client.end()
  expect(await refusal({ options: '-c pgusher.job=x' })).toMatchObject({ code: '08P01' })
})

test('a long claim in another script fits into the startup packet', async () => {
  const actor = '長'.repeat(1_300)
  const client = await connect({ password: await stage.token('github', { actor }) })
  const { rows } = await client.query("select current_setting('pgusher.job') as job")
  expect(JSON.parse(rows[0].job).actor).toMatch(/^長{10,}…$/)
  await client.end()
})

test("the login role's comment is the proof: a trigger notes the job by it, whatever the session sets", async () => {
  const [snippet] =
    /create function current_job\(\)[\s\S]*?\$\$;/.exec(await readFile('docs/postgresql.md', 'utf8')) ?? []
  const table = 'create table noted (job jsonb default current_job()); alter table noted owner to shop_migrator'
  await stage.admin(`${snippet} ${table}`, 'shop')
  const client = await connect({})
  await client.query(`set pgusher.job = '{"run":"of somebody else"}'`)
  await client.query('insert into noted default values')
  const { rows } = await client.query(`select job->>'run' as run, job->>'repository' as repository from noted`)
  expect(rows).toEqual([{ run: '18700000412', repository: 'https://github.com/acme/shop' }])
  await expect(client.query(`comment on role current_user is '{}'`)).rejects.toThrow()
  const login = (await client.query('select session_user as login')).rows[0].login
  await expect(client.query(`comment on role ${login} is '{}'`)).rejects.toThrow(/permission denied/)
  await client.end()
  await stage.admin('drop table noted; drop function current_job()', 'shop')
})

test('the time of each step is on record: a refusal by the policy has no step behind it', async () => {
  const client = await connect({})
  await client.end()
  const refused = await refusal({ password: await stage.token('github', { ref: 'refs/heads/other' }) })
  expect(refused.code).toBe('42501')
  const stepsOf = async (filter: EventFilter): Promise<string[]> => {
    const timing = (await stage.waitForEvent(filter)).pgusher['timing'] as Record<string, number>
    expect(Object.values(timing).every((seconds) => seconds > 0 && seconds < 60)).toBe(true)
    return Object.keys(timing)
  }
  expect(await stepsOf(({ event }) => event === 'session.started')).toEqual([
    'tls_s',
    'verify_s',
    'mint_s',
    'upstream_s',
    'total_s',
  ])
  const byPolicy: EventFilter = ({ pgusher }) =>
    (pgusher['decision'] as { stage?: string } | undefined)?.stage === 'decide'
  expect(await stepsOf(byPolicy)).toEqual(['tls_s', 'verify_s', 'total_s'])
})

test('ordinary settings of the client reach PostgreSQL', async () => {
  const client = await connect({ options: '-c search_path=warehouse,public -c work_mem=12MB --extra_float_digits=0' })
  expect((await client.query('show search_path')).rows[0].search_path).toBe('warehouse,public')
  expect((await client.query('show work_mem')).rows[0].work_mem).toBe('12MB')
  await client.end()
})

test.each([
  '-c role=postgres',
  '--role=postgres',
  '-crole=shop_reader',
  '-c ROLE=x',
  '-c session_authorization=postgres',
  '-c ro\\le=x',
])('invariant 5: an identity inside options is refused: %s', async (options) => {
  const { code, message } = await refusal({ options })
  expect(code).toBe('42501')
  const denied = await stage.waitForEvent(({ pgusher }) => JSON.stringify(pgusher).includes(message.slice(-9, -1)))
  // Before the token was asked for, so nothing can have been minted.
  expect(denied.pgusher['decision']).toMatchObject({ stage: 'handshake', code: 'role_not_allowed' })
})

test('a setting that PostgreSQL does not take is refused by it, in its own words, and nothing is left', async () => {
  const { code, message } = await refusal({ options: '-c no_such_setting=1' })
  expect(code).toBe('42704')
  expect(message).toContain('no_such_setting')
  await stage.waitForNoRoles()
})

test('a job that resets everything is still its group role, and nobody with SET ROLE NONE', async () => {
  const client = await connect({})
  for (const sql of ['reset role', 'discard all', 'set session authorization default', 'reset all']) {
    await client.query(sql)
    expect((await client.query('select current_user')).rows[0].current_user).toBe('shop_migrator')
  }
  await client.query('set role none')
  await expect(client.query('select * from public.orders')).rejects.toMatchObject({ code: '42501' })
  await expect(client.query('create table public.mine (a int)')).rejects.toMatchObject({ code: '42501' })
  await client.end()
})

test('parallel connections of one job share one login, another job has its own', async () => {
  const logins = async (with_: string) => {
    const clients = await Promise.all([1, 2, 3].map(() => connect({ password: with_ })))
    const users = await Promise.all(
      clients.map(async (client) => (await client.query('select session_user as u')).rows[0].u),
    )
    return { users, end: () => Promise.all(clients.map((client) => client.end())) }
  }
  const other = await stage.token('github', { run_id: '18700000999', check_run_id: '52900000999' })
  const [first, second] = await Promise.all([logins(token), logins(other)])
  expect(new Set(first.users).size).toBe(1)
  expect(new Set(second.users).size).toBe(1)
  expect(first.users[0]).not.toBe(second.users[0])
  await Promise.all([first.end(), second.end()])
  await stage.waitForNoRoles()
})
