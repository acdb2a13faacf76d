/**
 * One small story with every way in, refusals and statements that carry passwords, and then a search: in whatever pgusher and
 * PostgreSQL wrote or answered there is no token, ticket, minted password, private key or PASSWORD literal.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { request as httpsRequest } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type pg from 'pg'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { startPostgres } from '../../src/cli/demo/embedded-postgres.ts'
import { FrontendMessage } from '../../src/wire/constants.ts'
import { saslInitialResponse, saslResponse } from '../../src/wire/frontend.ts'
import { frame } from '../../src/wire/writer.ts'
import { createCa } from '../support/certificates.ts'
import { type Job, RULES, type RuleInput, type Stage, type StageOptions, startStage } from '../support/pgusher.ts'
import { type PostgresServer, query as queryAs, setupShop } from '../support/postgres.ts'
import { approach, query, type RawClient, startupOf } from '../support/raw-client.ts'

/** What pgusher made for itself: the parts are real, and what passes through these two functions is noted. */
const made = vi.hoisted(() => ({ passwords: [] as string[], verifiers: [] as string[], keys: [] as string[] }))

vi.mock('../../src/sasl/scram.ts', async (original) => {
  const real = await original<typeof import('../../src/sasl/scram.ts')>()
  return {
    ...real,
    deriveScramKeys(...parameters: Parameters<typeof real.deriveScramKeys>) {
      made.passwords.push(parameters[0])
      return real.deriveScramKeys(...parameters)
    },
    formatVerifier(...parameters: Parameters<typeof real.formatVerifier>) {
      const verifier = real.formatVerifier(...parameters)
      made.verifiers.push(verifier)
      return verifier
    },
  }
})

vi.mock('../../src/credentials/certificate-authority.ts', async (original) => {
  const real = await original<typeof import('../../src/credentials/certificate-authority.ts')>()
  return {
    async issueClientCertificate(...parameters: Parameters<typeof real.issueClientCertificate>) {
      const issued = await real.issueClientCertificate(...parameters)
      made.keys.push(issued.key)
      return issued
    },
  }
})

const TICKET_KEY = Buffer.alloc(32, 0xa7).toString('base64')
const WRONG_ADMIN = 'wrong-admin-password-4711'
/** In statements of the job: PostgreSQL's own log has those, because it got them. */
const LITERALS = ['lit-alter-role', 'lit-failing', 'lit-prepared', 'lit-in-do', 'lit-broken', 'lit-connection']
const COPIED = 'a-row-of-copy-data'

let server: PostgresServer
let stage: Stage
let directory: string
/** Everything that was a secret, with what it was. */
const secrets: [what: string, secret: string][] = []
/** What pgusher answered to refused clients. */
const answers: string[] = []
const realNow = Date.now
let ahead = 0

const KEPT: readonly RuleInput[] = [
  { ...RULES[0]!, allow: { database: 'shop-prod', role: 'shop_migrator', job_window: '45m', ticket_life: '45m' } },
  { ...RULES[1]!, allow: { database: 'shop-by-certificate', role: 'shop_by_certificate' } },
]

beforeAll(async () => {
  vi.spyOn(Date, 'now').mockImplementation(() => realNow() + ahead)
  const [serverCa, clientCa] = await Promise.all([createCa('servers'), createCa('jobs')])
  server = await startPostgres({
    tls: { ...(await serverCa.issue({ cn: 'localhost', ips: ['127.0.0.1'] })), ca: clientCa.cert },
    settings: { log_statement: 'all', log_min_messages: 'debug1', log_error_verbosity: 'verbose' },
    hba: ['hostssl all shop_by_certificate all cert'],
  })
  const shop = await setupShop(server)
  await queryAs(server.superuserUrl, 'CREATE ROLE shop_by_certificate LOGIN')
  directory = await mkdtemp(join(tmpdir(), 'pgusher-secrets-'))
  await Promise.all(
    Object.entries({ 'pg-ca.crt': serverCa.cert, 'ca.crt': clientCa.cert, 'ca.key': clientCa.key }).map(
      ([name, text]) => writeFile(join(directory, name), text, { mode: 0o600 }),
    ),
  )
  stage = await startStage({ upstream: { server, shop }, ...options(shop.admin.password) })
  secrets.push(['key of the minting CA', clientCa.key], ['ticket key', TICKET_KEY], ['admin', shop.admin.password])
  secrets.push(["listener's key", await readFile(join(stage.directory, 'tls.key'), 'utf8')])
})

afterAll(async () => {
  vi.restoreAllMocks()
  await stage?.close()
  await server?.stop()
  await rm(directory, { recursive: true, force: true })
})

const options = (adminPassword: string): StageOptions => ({
  rules: KEPT,
  config: (config) => {
    const shop = config.databases['shop-prod']!
    const tls = { mode: 'verify-full' as const, ca: join(directory, 'pg-ca.crt') }
    const admin = { user: 'pgusher_admin', password: adminPassword }
    const ca = { cert: join(directory, 'ca.crt'), key: join(directory, 'ca.key') }
    return {
      ...config,
      tickets: { key: TICKET_KEY },
      databases: {
        'shop-prod': { ...shop, tls, credentials: { kind: 'ephemeral-role', admin, linger: '0' } },
        'shop-by-certificate': { ...shop, tls, credentials: { kind: 'client-certificate', ca } },
      },
    }
  },
})

async function newToken(...parameters: Parameters<Stage['token']>): Promise<string> {
  const token = await stage.token(...parameters)
  const [, payload = '', signature = ''] = token.split('.')
  // Parts of it too: what was cut off, or shortened in a message.
  secrets.push(
    ['token', token],
    ["token's claims", payload.slice(40, 100)],
    ["token's signature", signature.slice(0, 40)],
  )
  return token
}

/** Keeps what the client was told. @throws Error where it was let in */
async function refused(job: Job): Promise<void> {
  const { message, detail, hint } = await stage
    .session(job, async () => {})
    .then(
      () => Promise.reject(new Error('it was let in')),
      (error: pg.DatabaseError) => error,
    )
  answers.push(message, detail ?? '', hint ?? '')
  expect(message).toMatch(/\[D-\w{6}\]$/)
}

async function api(method: string, secret: string, body = ''): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const call = httpsRequest(
      { ...{ method, host: '127.0.0.1', port: stage.port, path: '/v1/token', ca: stage.ca, agent: false } },
      async (response) => {
        const chunks: Buffer[] = []
        for await (const chunk of response) chunks.push(chunk as Buffer)
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString() })
      },
    )
    call.setHeader('authorization', `Bearer ${secret}`)
    call.once('error', reject).end(body)
  })
}

/** What a job does that has passwords in its SQL; whether it may is PostgreSQL's business. */
async function statementsWithPasswords(client: pg.Client): Promise<void> {
  const [{ login }] = (await client.query<{ login: string }>('select session_user::text as login')).rows as [
    { login: string },
  ]
  const [alter, failing, prepared, inDo, broken, connection] = LITERALS
  const answersOf = (sql: string | pg.QueryConfig) =>
    client.query(sql).catch(({ message, detail }: pg.DatabaseError) => answers.push(message, detail ?? ''))
  await client.query('set role none')
  await client.query(`alter role ${login} password '${alter}'`)
  await answersOf(`create role thief login password '${failing}'`)
  await answersOf({ name: 'p', text: `alter role ${login} password '${prepared}'` })
  await answersOf(`do $$ begin execute 'alter role ${login} password ''${inDo}'''; end $$`)
  await answersOf(`alter role ${login} pasword '${broken}' password '${broken}'`)
  await answersOf(`create subscription s connection 'host=h password=${connection}' publication p`)
}

async function byOAuthBearer(token: string): Promise<RawClient> {
  const client = await approach(stage)
  client.send(startupOf({ token }, { parameters: { options: '-cpgusher.auth=oauthbearer' } }))
  expect((await client.next()).type).toBe('R')
  client.send(saslInitialResponse('OAUTHBEARER', Buffer.from(`n,,\x01auth=Bearer ${token}\x01\x01`)))
  return client
}

async function everyWayIn(): Promise<void> {
  const token = await newToken()
  await stage.session({ token }, async (client) => {
    await statementsWithPasswords(client)
    await client.query('reset role; create table public.copied (a text)')
  })
  using copying = await byOAuthBearer(token)
  await copying.until('Z')
  expect(
    await copying.ask(
      query('copy public.copied from stdin'),
      Buffer.from(`d\0\0\0\x17${COPIED}\n`),
      Buffer.from('c\0\0\0\x04'),
    ),
  ).toContain('C COPY 1')
  await stage.session(
    { token: await newToken('gitlab'), user: 'shop_by_certificate', database: 'shop-by-certificate' },
    (client) => client.query('select current_user'),
  )
  const issued = await api('POST', token, JSON.stringify({ database: 'shop-prod', user: 'shop_migrator' }))
  expect(issued.status).toBe(200)
  const { ticket } = JSON.parse(issued.text) as { ticket: string }
  // Its beginning is its public id.
  secrets.push(['ticket', ticket], ["ticket's secret", ticket.slice(-24)])
  await stage.session({ token: ticket }, (client) => client.query('select 2'))
  expect((await api('DELETE', ticket)).status).toBe(204)
  await refused({ token: ticket })
  answers.push((await api('POST', ticket, '{"database":"shop-prod"}')).text)
  // By the window, long after the token's end.
  ahead = 20 * 60_000
  await stage.session({ token }, (client) => client.query('select 3'))
  ahead = 0
}

async function everyWayToBeRefused(): Promise<void> {
  const good = await newToken()
  const [header, , signature] = good.split('.')
  const forgedToken = `${header}.${Buffer.from('{"iss":"x","forged":true}').toString('base64url')}.${signature}`
  secrets.push(['forged token', forgedToken], ['password', 'correct-horse-battery'])
  await refused({ token: forgedToken })
  await refused({ token: 'correct-horse-battery' })
  await refused({ token: good.slice(0, 200) })
  await refused({ token: await newToken('github', {}, { lifeSeconds: -60 }) })
  await refused({ token: await newToken('github', {}, { audience: 'https://vault.acme.example' }) })
  await refused({ token: await newToken('github', { ref: 'refs/heads/fix-1' }) })
  await refused({ token: await newToken('github', { repository_owner_id: '666' }) })
  // Where it does not belong: in place of the role, and of the database.
  await refused({ token: good, user: good })
  await refused({ token: good, database: good })
  using bearer = await byOAuthBearer(forgedToken)
  bearer.send(saslResponse(Buffer.from('\x01')))
  answers.push(...(await bearer.rest()))
  using cut = await approach(stage)
  cut.send(startupOf({ token: '' }), frame(FrontendMessage.Password, Buffer.from(`${good}\0\0`)))
  answers.push(...(await cut.rest()))
  answers.push((await api('POST', forgedToken, '{"database":"shop-prod"}')).text)
  // A mint that fails, with the admin's password in the middle of it.
  expect(await stage.reload(options(WRONG_ADMIN))).toBe(true)
  secrets.push(['wrong password of the admin', WRONG_ADMIN])
  await refused({ token: await newToken('github', { run_id: '18700000477' }) })
}

/** As it is, and as something else would have written it down. */
function forms(secret: string): string[] {
  const bytes = Buffer.from(secret)
  return [secret, JSON.stringify(secret).slice(1, -1), bytes.toString('base64'), bytes.toString('hex')]
}

/** PEM without its armour, which every certificate shares; of other texts all. */
function linesOf(secret: string): string[] {
  const isPem = secret.includes('-----BEGIN')
  return isPem ? secret.split('\n').filter((line) => line.length > 40 && !line.startsWith('-----')) : [secret]
}

function found(where: Readonly<Record<string, string>>, wanted: readonly [string, string][]): string[] {
  return Object.entries(where).flatMap(([name, text]) =>
    wanted
      .filter(([, secret]) =>
        linesOf(secret)
          .flatMap(forms)
          .some((form) => text.includes(form)),
      )
      .map(([what]) => `${what} in ${name}`),
  )
}

test('invariant 38: no secret of a whole story is in any log, event or answer', async () => {
  const printed: string[] = []
  for (const stream of [process.stdout, process.stderr])
    vi.spyOn(stream, 'write').mockImplementation((text) => printed.push(String(text)) > 0)
  try {
    await everyWayIn()
    await everyWayToBeRefused()
    expect(await stage.reload(options(stage.shop.admin.password))).toBe(true)
    await stage.waitForNoRoles()
    await stage.pgusher.stop()
  } finally {
    for (const stream of [process.stdout, process.stderr]) vi.mocked(stream.write).mockRestore()
  }
  const read = (file: string): Promise<string> => readFile(file, 'utf8')
  const ours = {
    audit: await read(stage.auditFile),
    log: await read(stage.logFile),
    answers: answers.join('\n'),
    'standard output': printed.join(''),
  }
  const postgres = { "PostgreSQL's log": await read(server.logFile) }
  const minted: [string, string][] = [
    ...made.passwords.map((password): [string, string] => ['minted password', password]),
    ...made.keys.map((key): [string, string] => ['key of a minted certificate', key]),
  ]
  expect(made.passwords.length).toBeGreaterThan(1)
  expect(made.keys.length).toBeGreaterThan(1)
  expect(answers.length).toBeGreaterThan(30)
  // The search finds what is there.
  expect(found({ ...ours, ...postgres }, [['public', 'pgu_']])).toEqual([
    'public in audit',
    "public in PostgreSQL's log",
  ])
  const own = secrets.filter(([what]) => what !== 'admin')
  expect(found({ ...ours, ...postgres }, [...own, ...minted])).toEqual([])
  const written: [string, string][] = [
    ...secrets,
    ...made.verifiers.map((verifier): [string, string] => ['verifier', verifier]),
    ...LITERALS.map((literal): [string, string] => [`literal ${literal}`, literal]),
    ['COPY data', COPIED],
  ]
  expect(found(ours, written)).toEqual([])
  // The setup of this test gave the admin its password by SQL; what PostgreSQL is told by a statement it logs.
  expect(found(postgres, [['literal', LITERALS[0] ?? '']])).toHaveLength(1)
})
