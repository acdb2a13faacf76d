import { existsSync } from 'node:fs'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import pg from 'pg'
import { expect, test } from 'vitest'
import { createCa } from '../support/certificates.ts'
import { RULES, type Stage, type StageEvent, startStage } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'

async function get(stage: Stage, path: string): Promise<{ status: number; text: string }> {
  const { httpAddress: at } = stage.pgusher
  const response = await fetch(`http://127.0.0.1:${at.kind === 'tcp' ? at.port : 0}${path}`)
  return { status: response.status, text: await response.text() }
}

/** Whoever signed the certificate that the listener shows on a new connection. */
function issuerOfListener(stage: Stage): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  const socket = connectTls(
    { host: '127.0.0.1', port: stage.port, ALPNProtocols: ['postgresql'], rejectUnauthorized: false },
    () => {
      resolve(String(socket.getPeerCertificate().issuer.CN))
      socket.destroy()
    },
  )
  socket.once('error', reject)
  return promise
}

test('health, readiness and metrics tell what happens', async () => {
  await using stage = await startStage()
  expect((await get(stage, '/livez')).status).toBe(200)
  expect((await get(stage, '/readyz')).status).toBe(200)
  const token = await stage.token()
  await stage.session({ token }, async (client) => {
    await client.query('select 1')
    await expect(client.query('select 1/0')).rejects.toThrow()
    const { text } = await get(stage, '/metrics')
    expect(text).toContain('pgusher_sessions 1\n')
    expect(text).toContain('pgusher_credentials 1\n')
    expect(text).toContain('pgusher_connect_seconds_count{step="mint"} 1\n')
    expect(text).toContain('pgusher_statements_total{outcome="success"} 1\n')
    expect(text).toContain('pgusher_statements_total{outcome="failure"} 1\n')
  })
  await expect(stage.session({ token, database: 'nowhere' }, async () => {})).rejects.toThrow('"nowhere" is not known')
  await stage.waitForNoRoles()
  // The role is gone a moment before PostgreSQL's answer has said so.
  const text = await eventually(async () => {
    const { text: now } = await get(stage, '/metrics')
    return now.includes('pgusher_credentials 0\n') && now
  })
  expect(text).toContain('pgusher_denials_total{code="database_unknown"} 1\n')
  expect(text).toContain('pgusher_sessions 0\n')
  expect(text).toMatch(/pgusher_policy_info\{version="[0-9a-f]{64}"\} 1\n/)
  // The last event is counted when it is recorded and in the file a moment later.
  await eventually(async () => {
    const metrics = await get(stage, '/metrics')
    const recorded = (await stage.events()).length
    return metrics.text.includes(`pgusher_audit_events_total ${recorded}\n`) || undefined
  })
})

test('invariant 42: a bad file changes nothing and is loud; a good one applies at once', async () => {
  await using stage = await startStage()
  const token = await stage.token('github', { ref: 'refs/heads/release' })
  const tries = () => stage.session({ token }, async (client) => (await client.query('select 1')).rowCount)
  await expect(tries()).rejects.toMatchObject({ code: '42501' })

  const good = await readFile(stage.configFile, 'utf8')
  await writeFile(stage.configFile, good.replace('"shop-prod"', '"shop-prdo"').replace('"version"', '"versoin"'))
  expect(await stage.pgusher.reload()).toBe(false)
  const rejected = await stage.waitForEvent('policy.rejected')
  expect(JSON.stringify(rejected)).toContain('versoin')
  const log = await readFile(stage.logFile, 'utf8')
  expect(log).toContain('the last good one stays in force')
  expect(log).toMatch(
    /"level":"error",.*"column":\d+,"hint":"did you mean \\"version\\"\?","msg":"unknown key \\"versoin\\"/,
  )
  const main = await stage.token()
  await stage.session({ token: main }, async (client) => client.query('select 1'))

  const [first, ...others] = RULES
  expect(
    await stage.reload({ rules: [{ ...first!, match: { ...first!.match, ref: 'refs/heads/release' } }, ...others] }),
  ).toBe(true)
  expect(await tries()).toBe(1)
  await expect(stage.session({ token: main }, async () => {})).rejects.toMatchObject({ code: '42501' })
  await stage.waitForEvent(
    ({ event, pgusher }) =>
      event === 'policy.loaded' && JSON.stringify(pgusher['policy']).includes('"changed":["migrate-production"]'),
  )
})

test('a reload ends the sessions that the policy no longer allows, and no others', async () => {
  await using stage = await startStage()
  const reader = await stage.token('gitlab')
  await stage.session({ token: reader, user: 'shop_reader' }, async (kept) => {
    await stage.session({ token: await stage.token() }, async (ended) => {
      const gone = new Promise<{ code?: string }>((resolve) => ended.once('error', resolve))
      expect(await stage.reload({ rules: RULES.slice(1) })).toBe(true)
      expect(await gone).toMatchObject({ code: '57P01', message: expect.stringContaining('the policy was changed') })
    })
    expect((await kept.query('select 1')).rowCount).toBe(1)
  })
  const ended = await stage.waitForEvent(
    (event) => event.event === 'session.ended' && event.pgusher['end_reason'] === 'policy',
  )
  expect(ended['security_rule']).toMatchObject({ name: 'migrate-production' })
})

test('SIGHUP serves a renewed certificate to the next connection; running sessions go on', async () => {
  await using stage = await startStage()
  await stage.session({ token: await stage.token() }, async (client) => {
    const before = await issuerOfListener(stage)
    const ca = await createCa('the new one')
    const { cert, key } = await ca.issue({ cn: 'pgusher', dns: ['localhost'], ips: ['127.0.0.1'] })
    await writeFile(join(stage.directory, 'tls.crt'), cert)
    await writeFile(join(stage.directory, 'tls.key'), key)
    expect(await issuerOfListener(stage)).toBe(before)
    expect(await stage.pgusher.reload()).toBe(true)
    expect(await issuerOfListener(stage)).toBe('the new one')
    expect((await client.query('select 1')).rowCount).toBe(1)
    // Certificate and key that do not belong together are a bad file.
    await writeFile(join(stage.directory, 'tls.key'), (await ca.issue({ cn: 'other' })).key)
    expect(await stage.pgusher.reload()).toBe(false)
    expect(await issuerOfListener(stage)).toBe('the new one')
  })
})

test('invariant 41: SIGTERM ends idle sessions with 57P01, lets a running statement finish, and leaves nothing', async () => {
  await using stage = await startStage({ spawn: true, config: (config) => ({ ...config, drain_timeout: '30s' }) })
  const { child } = stage.pgusher
  const exited = new Promise<number | null>((resolve) => child?.once('exit', resolve))
  const token = await stage.token()
  await stage.session({ token }, async (idle) => {
    await stage.session({ token }, async (busy) => {
      const told = new Promise<{ code?: string }>((resolve) => idle.once('error', resolve))
      const running = busy.query('select pg_sleep(4), 7 as answer')
      await eventually(async () => {
        const [row] = await stage.admin<{ count: string }>(
          "select count(*) from pg_stat_activity where query like 'select pg_sleep(4)%' and state = 'active'",
        )
        return row?.count === '1' ? true : undefined
      })
      const toldLater = new Promise<{ code?: string }>((resolve) => busy.once('error', resolve))
      child?.kill('SIGTERM')
      expect(await told).toMatchObject({ code: '57P01', message: expect.stringContaining('shutting down') })
      expect((await running).rows[0].answer).toBe(7)
      expect(await toldLater).toMatchObject({ code: '57P01' })
    })
  })
  expect(await exited).toBe(0)
  expect(await stage.mintedRoles()).toEqual([])
  const events = await stage.events()
  expect(events.at(-1)?.event).toBe('audit.stopped')
  expect(events.filter((event) => event.event === 'session.ended').map((event) => event.pgusher['end_reason'])).toEqual(
    ['shutdown', 'shutdown'],
  )
})

test('SIGUSR2 begins a new audit file; no event is lost or torn', async () => {
  await using stage = await startStage({ spawn: true })
  const token = await stage.token()
  const isSecond = (event: StageEvent) => event.event === 'statement' && JSON.stringify(event).includes('select 2')
  await stage.session({ token }, async (client) => {
    await client.query('select 1')
    await stage.waitForEvent('statement')
    stage.pgusher.child?.kill('SIGUSR2')
    await stage.waitForEvent('audit.rotated')
    await client.query('select 2')
    await stage.waitForEvent(isSecond)
  })
  const [rotated, ...others] = (await readdir(stage.directory)).filter((name) => name.startsWith('audit.jsonl.'))
  expect(others).toEqual([])
  const before = await readFile(join(stage.directory, rotated!), 'utf8')
  const seqs = before
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line).pgusher.seq)
  const after = (await stage.events()).map((event) => event.pgusher.seq)
  expect([...seqs, ...after]).toEqual([...seqs, ...after].map((_, index) => index + 1))
  expect(before).toContain('select 1')
})

test('a Unix socket: a stale one is taken over, and it is gone afterwards', async () => {
  await using stage = await startStage()
  const path = join(stage.directory, '.s.PGSQL.6432')
  const listen = { address: `unix:${path}`, plaintext: 'allow' as const }
  await using other = await startStage({ listen, spawn: true })
  const token = await other.token()
  expect(existsSync(path)).toBe(true)
  other.pgusher.child?.kill('SIGKILL')
  await new Promise((resolve) => other.pgusher.child?.once('exit', resolve))
  expect(existsSync(path)).toBe(true)
  await other.restart()
  const job = {
    host: stage.directory,
    port: 6432,
    user: 'shop_migrator',
    database: 'shop-prod',
    password: token,
    ssl: false,
  }
  const client = new pg.Client(job)
  await client.connect()
  expect((await client.query('select current_user')).rows[0].current_user).toBe('shop_migrator')
  await client.end()
  await other.pgusher.stop()
  expect(existsSync(path)).toBe(false)
})
