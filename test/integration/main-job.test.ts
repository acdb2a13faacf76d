/** The main job on real parts: who is let in, who is refused and how, what a job leaves, when it ends. */
import { readFile } from 'node:fs/promises'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Issuer, startIssuer } from '../../src/cli/demo/issuer.ts'
import { AT_ONCE } from '../support/at-once.ts'
import { type Job, RULES, type Stage, type StageEvent, startStage } from '../support/pgusher.ts'
import { eventually, urlFor } from '../support/postgres.ts'
import { forged } from '../support/tokens.ts'

let stage: Stage

beforeAll(async () => {
  const [migrate] = RULES
  const short = { ...migrate!, name: 'short', match: { repository_id: '784500009', ref: 'refs/heads/main' } }
  const allow = { database: 'shop-prod', role: 'shop_migrator', max_session: '1s' }
  stage = await startStage({ rules: [...RULES, { ...short, allow }] })
})

afterAll(() => stage.close())

const nameOf = (name: string): RegExp => new RegExp(`"${name}"`)

async function refusalOf(config: pg.ClientConfig): Promise<pg.DatabaseError> {
  const client = new pg.Client(config)
  client.on('error', () => {})
  try {
    await client.connect()
  } catch (thrown) {
    if (thrown instanceof pg.DatabaseError) return thrown
    throw thrown
  } finally {
    await client.end()
  }
  throw new Error('it was let in')
}

/** The denial with the id that stands in the message. */
function denialOf({ message }: pg.DatabaseError): Promise<StageEvent> {
  const id = /\[(D-[0-9A-Z]+)\]$/.exec(message)?.[1]
  expect(id, message).toBeDefined()
  return stage.waitForEvent(
    ({ event, pgusher }) => event === 'session.denied' && (pgusher['decision'] as { id: string }).id === id,
  )
}

describe('invariant 15: refused, before PostgreSQL hears of it', () => {
  let stranger: Issuer

  beforeAll(async () => {
    stranger = await startIssuer()
  })

  afterAll(() => stranger.close())

  /** True when PostgreSQL's own log knows of no connection but those of the superuser and of pgusher's admin. */
  async function onlyAdminsConnected(): Promise<boolean> {
    const log = await readFile(stage.server.logFile, 'utf8')
    const count = (pattern: RegExp): number => log.match(pattern)?.length ?? 0
    return count(/connection received:/g) === count(/connection authorized: user=(postgres|pgusher_admin) /g)
  }

  const cases: {
    name: string
    job: () => Promise<Job>
    plain?: boolean
    sqlstate: string
    code: string
    /** Each stands in MESSAGE. */
    says: (string | RegExp)[]
  }[] = [
    {
      name: 'a wrong ref',
      job: async () => ({ token: await stage.token('github', { ref: 'refs/heads/fix-1' }) }),
      sqlstate: '42501',
      code: 'no_matching_rule',
      says: [
        nameOf('shop-prod'),
        'claim ref is "refs/heads/fix-1"',
        'rule "migrate-production" needs "refs/heads/main"',
      ],
    },
    {
      name: 'another tenant',
      job: async () => ({
        token: await stage.token('github', { repository_owner_id: '666', repository_owner: 'evil' }),
      }),
      sqlstate: '42501',
      code: 'tenancy_mismatch',
      says: ['repository_owner_id "666"'],
    },
    {
      name: 'another audience',
      job: async () => ({ token: await stage.token('github', {}, { audience: 'https://vault.acme.example' }) }),
      sqlstate: '28P01',
      code: 'audience_mismatch',
      says: [/audience/],
    },
    {
      name: 'an expired token',
      job: async () => ({ token: await stage.token('github', {}, { lifeSeconds: -60 }) }),
      sqlstate: '28P01',
      code: 'token_expired',
      says: [/expired/],
    },
    {
      name: 'an issuer that is not configured',
      job: async () => ({ token: await stranger.token('github') }),
      sqlstate: '28P01',
      code: 'issuer_unknown',
      says: [/issuer/],
    },
    {
      name: 'alg none',
      job: async () => {
        const payload = Buffer.from((await stage.token()).split('.')[1] ?? '', 'base64url').toString()
        return { token: forged({ alg: 'none', typ: 'JWT' }, payload) }
      },
      sqlstate: '28P01',
      code: 'signature_invalid',
      says: ['signature algorithm is not accepted'],
    },
    {
      name: 'alg none without a signature',
      job: async () => ({ token: forged({ alg: 'none', typ: 'JWT' }, { iss: stage.issuer.issuerUrl('github') }, '') }),
      sqlstate: '28P01',
      code: 'token_malformed',
      says: ['not a valid token'],
    },
    {
      name: 'a payload that was changed',
      job: async () => {
        const [header, payload, signature] = (await stage.token('github', { ref: 'refs/heads/fix-1' })).split('.')
        const changed = Buffer.from(payload ?? '', 'base64url')
          .toString()
          .replaceAll('refs/heads/fix-1', 'refs/heads/main')
        return { token: [header, Buffer.from(changed).toString('base64url'), signature].join('.') }
      },
      sqlstate: '28P01',
      code: 'signature_invalid',
      says: [/signature/],
    },
    {
      name: 'no token at all',
      job: async () => ({ token: 'correct horse battery staple' }),
      sqlstate: '28P01',
      code: 'token_malformed',
      says: [/token/],
    },
    {
      name: 'a role that the rules do not give',
      job: async () => ({ token: await stage.token(), user: 'postgres' }),
      sqlstate: '42501',
      code: 'role_not_allowed',
      says: [nameOf('postgres'), nameOf('shop_migrator')],
    },
    {
      name: 'an unknown database',
      job: async () => ({ token: await stage.token(), database: 'shop-prd' }),
      sqlstate: '3D000',
      code: 'database_unknown',
      says: [nameOf('shop-prd')],
    },
    {
      name: 'plain TCP',
      job: async () => ({ token: await stage.token() }),
      plain: true,
      sqlstate: '28000',
      code: 'tls_required',
      says: [/TLS/, 'sslmode'],
    },
  ]

  test.each(cases)('$name', async ({ job, plain, sqlstate, code, says }) => {
    const wanted = await job()
    const error = await refusalOf({ ...stage.client(wanted), ...(plain === true ? { ssl: false } : {}) })
    expect({ code: error.code, severity: error.severity }).toEqual({ code: sqlstate, severity: 'FATAL' })
    for (const part of says) expect(error.message).toMatch(part)
    const event = await denialOf(error)
    expect(event.pgusher).toMatchObject({ outcome: 'denied', decision: { code } })
    expect(event).toMatchObject({ db: { response: { status_code: sqlstate } } })
    // Claims that no issuer of ours signed are nobody's.
    const unsigned = ['issuer_unknown', 'signature_invalid', 'token_malformed', 'tls_required'].includes(code)
    expect((event.pgusher['idp'] as { claims?: object } | undefined)?.claims === undefined).toBe(unsigned)
    for (const text of [error.message, error.detail ?? '', error.hint ?? '', JSON.stringify(event)])
      expect(text).not.toContain(wanted.token)
    await eventually(onlyAdminsConnected)
    expect(await stage.mintedRoles()).toEqual([])
  })

  test('nothing of a token reaches the log of pgusher or of PostgreSQL', async () => {
    for (const file of [stage.logFile, stage.server.logFile, stage.auditFile])
      expect(await readFile(file, 'utf8')).not.toMatch(/eyJ[\w-]{20,}/)
  })
})

describe('what a job leaves', () => {
  const owners = (database: string): Promise<{ name: string; owner: string }[]> =>
    stage.admin(
      `SELECT c.relname::text AS name, pg_get_userbyid(c.relowner)::text AS owner FROM pg_class c
       WHERE c.relname LIKE 'left\\_%' AND c.relkind = 'r' ORDER BY 1`,
      database,
    )

  test('its tables belong to the group role, and stay', async () => {
    await stage.session({ token: await stage.token() }, async (client) => {
      const { rows } = await client.query('SELECT session_user, current_user')
      expect(rows).toEqual([{ session_user: expect.stringMatching(/^pgu_/), current_user: 'shop_migrator' }])
      await client.query('CREATE TABLE public.left_behind (id int)')
      // Whatever resets the role comes back to the group role.
      for (const reset of ['RESET ROLE', 'SET SESSION AUTHORIZATION DEFAULT', 'DISCARD ALL']) {
        await client.query(reset)
        expect((await client.query('SELECT current_user AS role')).rows, reset).toEqual([{ role: 'shop_migrator' }])
      }
      // And as the minted login itself it may do nothing.
      await client.query('SET ROLE NONE')
      for (const sql of ['CREATE TABLE public.mine (id int)', 'SELECT * FROM public.orders'])
        await expect(client.query(sql), sql).rejects.toMatchObject({ code: '42501' })
    })
    await stage.waitForNoRoles()
    expect(await owners('shop')).toEqual([{ name: 'left_behind', owner: 'shop_migrator' }])
  })

  test('invariant 32: objects of the login in two databases, a prepared transaction and a session past pgusher: the login is gone, the data is not', async () => {
    for (const database of ['shop', 'warehouse'])
      await stage.admin('CREATE SCHEMA open_to_all; GRANT CREATE, USAGE ON SCHEMA open_to_all TO PUBLIC', database)
    const login = await stage.session({ token: await stage.token() }, async (client) => {
      const [{ login }] = (await client.query<{ login: string }>('SELECT session_user::text AS login')).rows as [
        { login: string },
      ]
      await client.query('SET ROLE NONE')
      await client.query('CREATE TABLE open_to_all.left_in_shop AS SELECT 1 AS id')
      await client.query('GRANT SELECT ON open_to_all.left_in_shop TO shop_reader')
      // The one way past pgusher that PostgreSQL leaves open: a role may change its own password.
      await client.query(`ALTER ROLE ${login} PASSWORD 'stolen'`)
      const past = urlFor(stage.server.superuserUrl, { user: login, password: 'stolen', database: 'warehouse' })
      const direct = new pg.Client({ connectionString: past })
      const farewell = new Promise((resolve) => direct.on('error', resolve))
      await direct.connect()
      await direct.query('SET ROLE NONE')
      await direct.query('CREATE TABLE open_to_all.left_in_warehouse AS SELECT 1 AS id')
      await client.query('BEGIN')
      await client.query('CREATE TABLE open_to_all.left_prepared (id int)')
      await client.query(`PREPARE TRANSACTION 'left'`)
      await client.end()
      expect(await farewell).toMatchObject({ code: '57P01' })
      return login
    })
    await stage.waitForNoRoles()
    const revoked = await stage.waitForEvent(
      ({ event, pgusher }) =>
        event === 'credential.revoked' && (pgusher['credential'] as { login: string }).login === login,
    )
    expect(revoked).toMatchObject({ cicd: { pipeline: { run: { id: '18700000412' } } } })
    // It outlives the job's sessions, so it names none.
    expect(Object.keys(revoked)).not.toEqual(expect.arrayContaining(['session']))
    expect(Object.keys(revoked)).not.toEqual(expect.arrayContaining(['client']))
    expect(await stage.admin('SELECT gid FROM pg_prepared_xacts')).toEqual([])
    expect(await owners('warehouse')).toEqual([{ name: 'left_in_warehouse', owner: 'shop_migrator' }])
    expect(await owners('shop')).toEqual([
      { name: 'left_behind', owner: 'shop_migrator' },
      { name: 'left_in_shop', owner: 'shop_migrator' },
    ])
    expect(
      await stage.admin(
        `SELECT has_table_privilege('shop_reader', 'open_to_all.left_in_shop', 'SELECT') AS kept`,
        'shop',
      ),
    ).toEqual([{ kept: true }])
  })

  test('parallel connections of one job share a login; another job has its own', async () => {
    const job = { token: await stage.token() }
    const other = { token: await stage.token('github', { run_id: '18700000499' }) }
    const login = (one: Job): Promise<pg.Client> => {
      const client = new pg.Client(stage.client(one))
      return client.connect().then(() => client)
    }
    const clients = await Promise.all([job, job, job, other].map(login))
    const logins = await Promise.all(
      clients.map(async (client) => (await client.query('SELECT session_user::text AS login')).rows[0].login as string),
    )
    expect(new Set(logins.slice(0, 3)).size).toBe(1)
    expect(logins[3]).not.toBe(logins[0])
    await Promise.all(clients.map((client) => client.end()))
    await stage.waitForNoRoles()
  })
})

describe('max_session', () => {
  const ofShortRule = async (): Promise<Job> => ({ token: await stage.token('github', { repository_id: '784500009' }) })

  test.each(['in mid statement', 'while idle'])('invariant 17: ends a session within a second, %s', async (when) => {
    const client = new pg.Client(stage.client(await ofShortRule()))
    const farewell = new Promise<Error>((resolve) => client.once('error', resolve))
    const started = performance.now()
    await client.connect()
    client.on('error', () => {})
    const asleep =
      when === 'while idle' ? farewell : client.query('SELECT pg_sleep(60)').catch((error: unknown) => error)
    const error = await asleep
    const took = performance.now() - started
    expect(error).toMatchObject({ code: '57P01', severity: 'FATAL' })
    expect((error as Error).message).toMatch(/session ended: rule "short" allows 1 s \(max_session\)/)
    expect(took).toBeGreaterThan(800)
    expect(took).toBeLessThan(1_000 + AT_ONCE)
    await client.end()
    await eventually(async () => {
      const left = await stage.admin(`SELECT pid FROM pg_stat_activity WHERE usename LIKE 'pgu\\_%'`)
      return left.length === 0
    })
    await stage.waitForEvent(
      ({ event, pgusher, security_rule }) =>
        event === 'session.ended' &&
        pgusher['end_reason'] === 'expired' &&
        (security_rule as { name: string }).name === 'short',
    )
  })
})
