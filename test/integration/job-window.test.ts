/** Jobs that outlive their token by job_window, and the operator who ends them: on the real stage, with a clock that the test sets. */
import { Socket } from 'node:net'
import { join } from 'node:path'
import type pg from 'pg'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { ask } from '../../src/cli/control-client.ts'
import type { TokenOptions } from '../../src/cli/demo/issuer.ts'
import { KILL_PATH } from '../../src/http/control-request.ts'
import { passwordMessage } from '../../src/wire/frontend.ts'
import { runCli } from '../cli/run-cli.ts'
import { withinLockTimeout } from '../support/lock-timeout.ts'
import {
  type ConfigInput,
  type EventFilter,
  type Job,
  RULES,
  type Stage,
  type StageEvent,
  startStage,
} from '../support/pgusher.ts'
import { eventually, withClient } from '../support/postgres.ts'
import { approach, shown, startupOf } from '../support/raw-client.ts'

const MINUTE = 60_000

const withWindows = (config: ConfigInput): ConfigInput => ({
  ...config,
  // Relative to the configuration's directory, which is this user's alone.
  control: { socket: 'control.sock' },
  rules: [
    { ...RULES[0]!, allow: { database: ['shop-prod', 'warehouse'], role: 'shop_migrator', job_window: '45m' } },
    RULES[1]!,
    {
      ...RULES[2]!,
      allow: {
        database: 'warehouse',
        role: 'shop_reader',
        job_window: '45m',
        window_connections: 2,
        any_address: true,
      },
    },
    { ...RULES[3]!, allow: { database: 'shop-prod', role: 'shop_reader', job_window: '45m' } },
  ],
})

/** The production jobs' rule is gone. */
const without = (config: ConfigInput): ConfigInput => ({ ...withWindows(config), rules: RULES.slice(1) })

let stage: Stage
/** Milliseconds that the clock of everything here is ahead. */
let ahead = 0
const realNow = Date.now

beforeAll(async () => {
  vi.spyOn(Date, 'now').mockImplementation(() => realNow() + ahead)
  stage = await startStage({ config: withWindows })
})
afterEach(() => {
  ahead = 0
})
afterAll(async () => {
  vi.restoreAllMocks()
  await stage.close()
})

/** A production job of its own. */
const tokenOf = (run: string, attempt = '1', options: TokenOptions = {}): Promise<string> =>
  stage.token('github', { run_id: run, run_attempt: attempt, check_run_id: `${run}${attempt}` }, options)

const connect = (job: Job): Promise<string> =>
  stage.session(job, async (client) => (await client.query<{ one: string }>(`select 'in' as one`)).rows[0]!.one)

/** 127.0.0.0/8 is all this machine's, so a thief is as easily played as the job. */
async function connectFrom(localAddress: string, job: Job): Promise<string> {
  const stream = () => {
    const socket = new Socket()
    const dial = socket.connect.bind(socket)
    return Object.assign(socket, { connect: (port: number, host: string) => dial({ port, host, localAddress }) })
  }
  return withClient({ ...stage.client(job), stream }, async (client) => {
    await client.query('select 1')
    return 'in'
  })
}

const refused = (work: Promise<unknown>): Promise<{ code: string; message: string }> =>
  work.then(
    (value) => ({ code: 'none', message: `let ${String(value)}` }),
    (error: pg.DatabaseError) => ({ code: error.code ?? '', message: error.message }),
  )

/** As the command does, without a process for it: a login waits a second for its lock and not longer. */
const killRun = (value: string): Promise<unknown> =>
  ask(join(stage.directory, 'control.sock'), KILL_PATH, {
    target: { by: 'run', value },
    user: 'tester',
    reason: 'leaked',
  })

/** As many events as there must be; they are written behind the answer to the client. */
const eventsOf = (count: number, filter: EventFilter): Promise<StageEvent[]> =>
  eventually(async () => {
    const found = await stage.events(filter)
    return found.length >= count ? found : undefined
  })

const isOf = (run: string, name: string): EventFilter => {
  return ({ event, cicd }) => event === name && JSON.stringify(cicd ?? {}).includes(`"id":"${run}"`)
}

test('a token of 20 seconds connects long after its end, until the window closes', async () => {
  const token = await tokenOf('101', '1', { lifeSeconds: 20 })
  expect(await connect({ token })).toBe('in')
  ahead = 44 * MINUTE
  expect(await connect({ token })).toBe('in')
  expect(await connect({ token, database: 'warehouse' })).toBe('in')
  const fresh = await tokenOf('101')
  expect(await connect({ token: fresh })).toBe('in')
  ahead = 46 * MINUTE
  expect(await refused(connect({ token }))).toMatchObject({
    code: '28P01',
    message: expect.stringMatching(/^the token has expired and the job's window closed at /),
  })
  expect(await connect({ token: fresh })).toBe('in')

  const admissions = (await eventsOf(5, isOf('101', 'session.started'))).map(
    ({ pgusher }) => pgusher['admission'] as Record<string, unknown>,
  )
  const first = admissions[0]?.['window']
  expect(admissions.map(({ kind }) => kind)).toEqual(['token', 'window', 'window', 'token', 'token'])
  expect(first).toMatchObject({ connections: 0, opened_at: expect.any(String), closes_at: expect.any(String) })
  expect(admissions.slice(1)).toMatchObject([
    { window: { ...(first as object), connections: 1 } },
    { window: { ...(first as object), connections: 2 } },
    { window: { ...(first as object), connections: 2 } },
    {},
  ])
  expect(admissions[4]).toEqual({ kind: 'token' })
})

test('a token really ends without a window: the same one, by a rule that has none', async () => {
  const token = await stage.token('gitlab')
  expect(await connect({ token, user: 'shop_reader' })).toBe('in')
  ahead = 65 * MINUTE
  expect(await refused(connect({ token, user: 'shop_reader' }))).toMatchObject({ code: '28P01' })
})

test('a stolen copy from another address is refused and on record, while it is valid and afterwards', async () => {
  const token = await tokenOf('102')
  expect(await connect({ token })).toBe('in')
  const stolen = /^this token is in use from another address than this client has \[D-/
  expect(await refused(connectFrom('127.0.0.2', { token }))).toMatchObject({
    code: '28P01',
    message: expect.stringMatching(stolen),
  })
  expect(await refused(connectFrom('127.0.0.2', { token, database: 'warehouse' }))).toMatchObject({ code: '28P01' })
  ahead = 20 * MINUTE
  expect(await refused(connectFrom('127.0.0.2', { token }))).toMatchObject({ message: expect.stringMatching(stolen) })
  expect(await connect({ token })).toBe('in')
  const denials = await eventsOf(3, isOf('102', 'session.denied'))
  for (const denial of denials) {
    expect(denial).toMatchObject({
      pgusher: { decision: { code: 'address_mismatch' }, idp: { token_sha256: expect.any(String) } },
      client: { address: '127.0.0.2' },
      security_rule: { name: 'migrate-production' },
    })
  }
})

test("any_address and window_connections are the rule's", async () => {
  const job = { token: await stage.token('buildkite'), user: 'shop_reader', database: 'warehouse' }
  expect(await connect(job)).toBe('in')
  ahead = 20 * MINUTE
  expect(await connectFrom('127.0.0.2', job)).toBe('in')
  expect(await connect(job)).toBe('in')
  expect(await refused(connect(job))).toMatchObject({
    code: '53300',
    message: expect.stringContaining('this job has connected 2 times with an expired token'),
  })
})

test('a reload that no longer allows the job closes its window, and a later one does not bring it back', async () => {
  const token = await tokenOf('103')
  expect(await connect({ token })).toBe('in')
  ahead = 10 * MINUTE
  expect(await connect({ token })).toBe('in')
  expect(await stage.reload({ config: without })).toBe(true)
  expect(await refused(connect({ token }))).toMatchObject({ code: '42501' })
  expect(await stage.reload({ config: withWindows })).toBe(true)
  expect(await refused(connect({ token }))).toMatchObject({ code: '28P01' })
  expect(await connect({ token: await tokenOf('103') })).toBe('in')
})

test('a reload while a job looks for its token counts for its window', async () => {
  const token = await tokenOf('108')
  using client = await approach(stage)
  client.send(startupOf({ token }))
  expect(shown(await client.next())).toBe('R 3')
  expect(await stage.reload({ config: without })).toBe(true)
  client.send(passwordMessage(token))
  expect((await client.rest()).join()).toContain('the policy was changed and no longer allows it')
  expect(await stage.reload({ config: withWindows })).toBe(true)
  ahead = 10 * MINUTE
  expect(await refused(connect({ token }))).toMatchObject({ message: expect.stringMatching(/^the token expired/) })
})

test('kill ends the session, the window and the job attempt; another attempt is let in', async () => {
  const token = await tokenOf('104')
  const socket = join(stage.directory, 'control.sock')
  const killed = await stage.session({ token }, async (client) => {
    const gone = new Promise<Error>((resolve) => client.once('error', resolve))
    const listed = await runCli(['sessions', '--config', stage.configFile, '--format', 'json'])
    const { sessions, windows } = JSON.parse(listed.stdout) as Record<string, Record<string, unknown>[]>
    const mine = sessions?.find(({ run_id }) => run_id === '104')
    expect(mine).toMatchObject({ role: 'shop_migrator', database: 'shop-prod', busy: false, admission: 'token' })
    expect(windows?.find(({ run_id }) => run_id === '104')).toMatchObject({ rule: 'migrate-production' })
    const text = await runCli(['sessions', '--socket', socket])
    expect(text.stdout).toContain(`  ${mine?.['id']}  idle, 0 statements, for `)
    expect(text.stdout).toContain(`--job '${mine?.['job']}'`)
    const order = ['kill', '--socket', socket, '--session', String(mine?.['id']), '--reason', 'token in a public log']
    const result = await runCli(order, { SUDO_USER: 'dana' })
    expect(result).toMatchObject({ code: 0, stderr: '' })
    expect(result.stdout).toMatch(/^ended 1 session, closed 1 window, gave back 0 tickets\nbarred: https:.*runs\/104/)
    return gone
  })
  expect(killed).toMatchObject({
    code: '57P01',
    message: expect.stringMatching(/^session ended by the operator \(dana\): token in a public log$/),
  })
  const barred = {
    code: '42501',
    message: expect.stringMatching(/^the operator \(dana\) has ended this job: token in/),
  }
  expect(await refused(connect({ token }))).toMatchObject(barred)
  expect(await refused(connect({ token: await tokenOf('104') }))).toMatchObject(barred)
  ahead = 10 * MINUTE
  expect(await refused(connect({ token }))).toMatchObject(barred)
  expect(await connect({ token: await tokenOf('104', '2') })).toBe('in')

  const admin = { sudo_user: 'dana', user_source: 'told', reason: 'token in a public log' }
  expect(await stage.waitForEvent('session.killed')).toMatchObject({ pgusher: { admin }, session: {} })
  expect(await stage.waitForEvent('admin.command')).toMatchObject({
    pgusher: { admin: { ...admin, command: 'kill', sessions: 1, windows: 1 } },
    cicd: { pipeline: { run: { id: '104' } } },
  })
  const [ended] = await eventsOf(1, isOf('104', 'session.ended'))
  expect(ended?.pgusher['end_reason']).toBe('killed')
})

test('a run that is not connected is barred by its URL, with all of its jobs', async () => {
  const socket = join(stage.directory, 'control.sock')
  expect(await runCli(['kill', '--socket', socket, '--reason', 'leaked', '--run', '105'])).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('no session and no open window of run "105" is here'),
  })
  const url = 'https://github.com/acme/shop/actions/runs/105'
  expect(await killRun(url)).toMatchObject({ ok: true, jobs: [], sessions: 0 })
  expect(await refused(connect({ token: await tokenOf('105') }))).toMatchObject({ code: '42501' })
})

test('a kill in the middle of a login counts for it', async () => {
  let run = 1060
  await withClient(stage.server.superuserUrl, async (superuser) => {
    const killed = async () => {
      const token = await tokenOf(String(run))
      // CREATE ROLE waits for this, so that the login stands between decision and session.
      await superuser.query('BEGIN; LOCK TABLE pg_authid IN SHARE MODE')
      const login = refused(connect({ token }))
      const waits = async () => (await superuser.query('SELECT FROM pg_locks WHERE NOT granted')).rowCount === 1
      await Promise.race([login, eventually(waits)])
      expect(await killRun(String(run))).toMatchObject({ ok: true, sessions: 0, windows: 1 })
      await superuser.query('COMMIT')
      return login
    }
    const told = await withinLockTimeout(killed, async () => void run++)
    expect(told).toMatchObject({ code: '42501', message: expect.stringContaining('has ended this job: leaked') })
  })
})

test('a key that the issuer has withdrawn takes its tokens with it, window or not', async () => {
  const job = { token: await stage.token('jenkins'), user: 'shop_reader' }
  expect(await connect(job)).toBe('in')
  ahead = 15 * MINUTE
  expect(await connect(job)).toBe('in')
  await stage.issuer.rotateKeys('jenkins')
  // The next look at the issuer's keys is due; the answer may come behind the first connection that asks for it.
  ahead = 25 * MINUTE
  await eventually(async () => (await refused(connect(job))).message.includes('signature could not be verified'))
})

test('a restart closes the windows', async () => {
  const token = await tokenOf('107')
  expect(await connect({ token })).toBe('in')
  await stage.pgusher.stop()
  await stage.restart()
  ahead = 10 * MINUTE
  expect(await refused(connect({ token }))).toMatchObject({
    code: '28P01',
    message: expect.stringMatching(/^the token expired/),
  })
})
