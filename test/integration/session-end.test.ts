/** Sessions that pgusher ends: by their time, by the policy, by a failing audit, at shutdown. Each with 57P01 and a reason. */
import { execFileSync } from 'node:child_process'
import { constants, openSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { AT_ONCE } from '../support/at-once.ts'
import { RULES, type RuleInput, type Stage, startStage } from '../support/pgusher.ts'
import { eventually, setupShop, startPostgres } from '../support/postgres.ts'
import { copyData, flush, query, type RawClient, rawSession, run } from '../support/raw-client.ts'
import { endOf, statementsOf } from '../support/statement-events.ts'

const EXPIRED = 'E 57P01 session ended: rule "short" allows 2 s (max_session)'
const SHORT: RuleInput = {
  name: 'short',
  issuer: 'buildkite',
  match: { pipeline_id: '7ddd6920-d6cb-492b-9a36-e6482a2e780b', build_branch: 'main' },
  allow: { database: 'shop-prod', role: 'shop_migrator', max_session: '2s', max_connections: 50 },
}

describe('max_session', () => {
  let stage: Stage
  beforeAll(async () => {
    stage = await startStage({ rules: [...RULES, SHORT] })
  })
  afterAll(() => stage.close())

  /** What the client sees until its end, which comes within a second of the session's time. */
  async function expire(client: RawClient, startedAt: number, read = () => client.rest()): Promise<string[]> {
    const told = await read()
    const lasted = performance.now() - startedAt
    expect(lasted).toBeGreaterThan(1_900)
    expect(lasted).toBeLessThan(2_000 + AT_ONCE)
    expect((await endOf(stage, client.port)).pgusher).toMatchObject({ end_reason: 'expired', outcome: 'failure' })
    return told
  }
  const session = async () => {
    const token = await stage.token('buildkite')
    const startedAt = performance.now()
    return { client: await rawSession(stage, { token }), startedAt }
  }
  const run2 = async (work: (client: RawClient) => Promise<void>, read?: (client: RawClient) => Promise<string[]>) => {
    const { client, startedAt } = await session()
    await work(client)
    const told = await expire(client, startedAt, read && (() => read(client)))
    client.socket.destroy()
    return { told, statements: await statementsOf(stage, client.port) }
  }

  test('invariant 17: idle, in mid statement, in a transaction, in mid COPY both ways, in a stream of rows, in a pipeline, unread', async () => {
    // Rows that are long: what is on its way when the time is over has to be read within a second, by this thread.
    const stream = `select repeat('x', 8000), generate_series(1, 100000000)`
    const readAll = async (client: RawClient): Promise<string[]> => {
      const { counts } = await client.skipUntil('E')
      expect(counts['D'] ?? counts['d']).toBeGreaterThan(100)
      return [EXPIRED]
    }
    const [idle, statement, transaction, copyIn, copyOut, rows, pipeline] = await Promise.all([
      run2(async () => {}),
      run2(async (client) => client.send(query('select pg_sleep(60)'))),
      run2(async (client) => void (await client.ask(query('begin; create table public.never (a int)')))),
      run2(async (client) => {
        client.send(query('create temp table t (a text); copy t from stdin'))
        await client.until('G')
        client.send(copyData('half'))
      }),
      run2(async (client) => client.send(query(`copy (${stream}) to stdout`)), readAll),
      run2(async (client) => client.send(query(stream)), readAll),
      run2(async (client) => client.send(run('select 1'), flush, run('select pg_sleep(60)'), run('select 3'))),
    ])
    for (const { told } of [idle, statement, transaction, copyIn, copyOut, rows, pipeline]) {
      expect(told.at(-1)).toBe(EXPIRED)
      expect(told.filter((text) => text.startsWith('E'))).toHaveLength(1)
    }
    expect(idle.statements).toEqual([])
    for (const { statements } of [statement, copyOut, rows]) {
      expect(statements).toHaveLength(1)
      expect(statements[0]).toMatchObject({ error: 'expired' })
      expect(statements[0]?.outcome).not.toBe('success')
    }
    expect(transaction.statements.map(({ outcome }) => outcome)).toEqual(['success', 'success'])
    expect(copyIn.statements.map(({ protocol, error }) => [protocol, error])).toEqual([
      ...[
        ['simple', undefined],
        ['copy_in', 'expired'],
      ],
    ])
    expect(pipeline.statements.map(({ sql, error }) => [sql, error])).toEqual([
      ...[
        ['select 1', undefined],
        ['select pg_sleep(60)', 'expired'],
        // By whether PostgreSQL came to answer the cancel within the session's last second.
        ['select 3', expect.stringMatching(/^(not_executed|expired)$/)],
      ],
    ])
    expect(await stage.admin(`select to_regclass('public.never') as t`, 'shop')).toEqual([{ t: null }])
    await stage.waitForNoRoles()
  })

  test('a client that does not read is cut off all the same, and its backend is gone', async () => {
    const { client, startedAt } = await session()
    client.send(query(`select repeat('x', 1000), generate_series(1, 100000000)`))
    await endOf(stage, client.port)
    expect(performance.now() - startedAt).toBeLessThan(2_000 + AT_ONCE)
    await stage.waitForNoRoles()
    client.socket.destroy()
  })

  test('a reload that takes the rule away ends its session, in mid statement too, and says so', async () => {
    using client = await rawSession(stage, { token: await stage.token() })
    client.send(query('select pg_sleep(60)'))
    await stage.reload({ rules: [SHORT] })
    expect((await client.rest()).at(-1)).toBe('E 57P01 session ended: the policy was changed and no longer allows it')
    expect((await endOf(stage, client.port)).pgusher).toMatchObject({ end_reason: 'policy' })
    expect(await statementsOf(stage, client.port)).toMatchObject([{ error: 'policy' }])
    await stage.reload({ rules: [...RULES, SHORT] })
  })
})

test('shutdown: what runs longer than drain_timeout is ended with 57P01, and nothing is left', async () => {
  const stage = await startStage({ config: (config) => ({ ...config, drain_timeout: '500ms' }) })
  using busy = await rawSession(stage, { token: await stage.token() })
  using writing = await rawSession(stage, { token: await stage.token() })
  busy.send(query('select pg_sleep(60)'))
  await writing.ask(query('begin'))
  const at = performance.now()
  const [clean, ...told] = await Promise.all([stage.pgusher.stop(), busy.rest(), writing.rest()])
  expect(performance.now() - at).toBeLessThan(500 + AT_ONCE)
  expect(clean).toBe(true)
  for (const messages of told) expect(messages).toEqual(['E 57P01 session ended: pgusher is shutting down'])
  expect((await statementsOf(stage, busy.port))[0]?.outcome).not.toBe('success')
  await stage.close()
})

test('an upstream that crashes: the client is told, the statement has no outcome, and pgusher serves on', async () => {
  const server = await startPostgres()
  const stage = await startStage({ upstream: { server, shop: await setupShop(server) } })
  try {
    using client = await rawSession(stage, { token: await stage.token() })
    client.send(query('select pg_sleep(60)'))
    const pid = await eventually(
      async () =>
        (await stage.admin<{ pid: number }>(`select pid from pg_stat_activity where query like '%pg_sleep(60)'`))[0]
          ?.pid,
    )
    process.kill(pid, 'SIGKILL')
    const told = await client.rest()
    expect(told.at(-1)).toMatch(/^E (08006 session ended: PostgreSQL closed the connection|57P0)/)
    expect((await endOf(stage, client.port)).pgusher).toMatchObject({ end_reason: 'upstream' })
    expect(await statementsOf(stage, client.port)).toHaveLength(1)
    // PostgreSQL restarts by itself after a crash.
    const token = await stage.token()
    const again = await eventually(() => rawSession(stage, { token }).catch(() => undefined), 15_000)
    expect(await again.ask(query('select 1'))).toContain('D 1')
    again.socket.destroy()
  } finally {
    await stage.close()
    await server.stop()
  }
})

describe('invariant 36: an audit that does not take records', () => {
  test('new sessions get 57P03, running ones end at their next statement, and it resumes by itself', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'pgusher-fifo-'))
    const path = join(directory, 'audit.fifo')
    execFileSync('mkfifo', [path])
    // Open for writing as well, so that the pipe has a reader whatever the sink does.
    const reader = new Socket({ fd: openSync(path, constants.O_RDWR | constants.O_NONBLOCK), writable: false })
    let lines = ''
    reader.setEncoding('utf8').on('data', (chunk) => {
      lines += chunk
    })
    const stage = await startStage({ audit: { file: { path } } })
    try {
      const session = async () => rawSession(stage, { token: await stage.token() })
      using idle = await session()
      using filling = await session()
      reader.pause()
      // A pipe holds 64 KiB, the stream about as much.
      const long = `select 1 -- ${'x'.repeat(10_000)}`
      const told = await (async () => {
        for (;;) {
          const answer = await filling.ask(query(long)).catch((error: Error) => error.message)
          if (typeof answer === 'string') return answer
        }
      })()
      expect(told).toBe('end')
      await expect(session()).rejects.toThrow('E 57P03 no session can start: the audit log cannot be written')
      idle.send(query('delete from public.orders'))
      expect(await idle.rest()).toEqual([
        'E 57P03 session ended: the audit log cannot be written, and no statement runs without it',
      ])
      expect(await stage.admin('select count(*)::int as n from public.orders', 'shop')).toEqual([{ n: 3 }])
      reader.resume()
      using again = await eventually(() => session().catch(() => undefined))
      expect(await again.ask(query('select 1'))).toContain('D 1')
      const mine = () =>
        lines
          .split('\n')
          .slice(0, -1)
          .map((line) => JSON.parse(line))
      await eventually(async () => mine().some(({ pgusher }) => pgusher.end_reason === 'audit'))
      await eventually(async () => mine().some(({ db }) => db?.query?.text === 'select 1'))
      expect(mine().map(({ pgusher }) => pgusher.seq)).toEqual(mine().map((_, index) => index + 1))
      expect(mine().filter(({ pgusher }) => pgusher.decision?.code === 'audit_unavailable').length).toBeGreaterThan(0)
    } finally {
      await stage.close()
      reader.destroy()
      await rm(directory, { recursive: true })
    }
  })
})
