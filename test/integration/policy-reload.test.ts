import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { withinLockTimeout } from '../support/lock-timeout.ts'
import { type ConfigInput, RULES, startStage } from '../support/pgusher.ts'
import { eventually, withClient } from '../support/postgres.ts'
import { query, rawSession } from '../support/raw-client.ts'
import { endOf } from '../support/statement-events.ts'

test('invariant 42: a reload during a login counts for it', async () => {
  await using stage = await startStage()
  const token = await stage.token()
  await withClient(stage.server.superuserUrl, async (superuser) => {
    const reloaded = async (): Promise<{ code: string; message: string }> => {
      // CREATE ROLE waits for this, so that the login stands between decision and session.
      await superuser.query('BEGIN; LOCK TABLE pg_authid IN SHARE MODE')
      const login = stage.session({ token }, async () => 'let in').catch((error) => error)
      const waits = async () => (await superuser.query('SELECT FROM pg_locks WHERE NOT granted')).rowCount === 1
      await Promise.race([login, eventually(waits)])
      expect(await stage.reload({ rules: RULES.slice(1) })).toBe(true)
      await superuser.query('COMMIT')
      return login
    }
    const told = await withinLockTimeout(reloaded, async () => void (await stage.reload()))
    expect(told).toMatchObject({ code: '57P01', message: expect.stringContaining('the policy was changed') })
  })
  await stage.waitForEvent(
    ({ event, pgusher }) =>
      event === 'session.denied' && (pgusher['decision'] as { code: string }).code === 'session_policy',
  )
  await stage.waitForNoRoles()
})

test('invariant 42: an event that the issuer no longer allows ends its sessions', async () => {
  const events = (...allowed: string[]) => ({
    config: (config: ConfigInput): ConfigInput => ({
      ...config,
      issuers: { ...config.issuers, github: { ...config.issuers['github']!, allow_events: allowed } },
      rules: [{ ...RULES[0]!, match: { repository_id: '784500001', ref: 'refs/heads/main' } }],
    }),
  })
  await using stage = await startStage(events('workflow_run'))
  const token = await stage.token('github', { event_name: 'workflow_run' })
  await stage.session({ token }, async (client) => {
    const gone = new Promise<unknown>((resolve) => client.once('error', resolve))
    expect(await stage.reload(events())).toBe(true)
    expect(await gone).toMatchObject({ code: '57P01' })
  })
})

test.each(['replication', 'function_call'])(
  'invariant 42: a reload that takes %s away ends the sessions that have it, one that gives it ends none',
  async (right) => {
    const rules = (given: boolean) => {
      const { allow } = RULES[0]!
      return { rules: [{ ...RULES[0]!, allow: { ...allow!, [right]: given } }] }
    }
    await using stage = await startStage(rules(false))
    // To make roles that may replicate.
    await stage.admin('alter role pgusher_admin replication')
    const token = await stage.token()
    using without = await rawSession(stage, { token })
    expect(await stage.reload(rules(true))).toBe(true)
    const parameters = right === 'replication' ? { replication: 'database' } : {}
    using having = await rawSession(stage, { token }, { parameters })
    expect(await stage.reload(rules(false))).toBe(true)
    expect(await having.rest()).toEqual(['E 57P01 session ended: the policy was changed and no longer allows it'])
    expect((await endOf(stage, having.port)).pgusher).toMatchObject({ end_reason: 'policy' })
    expect(await without.ask(query('select 1'))).toContain('D 1')
  },
)

test('a reload takes a database away: its sessions end, and what was made there is taken back', async () => {
  await using stage = await startStage()
  const token = await stage.token()
  await stage.session({ token }, async (client) => {
    const gone = new Promise<unknown>((resolve) => client.once('error', resolve))
    const without = (config: ConfigInput): ConfigInput => ({
      ...config,
      databases: { warehouse: config.databases['warehouse']! },
      rules: [{ ...RULES[0]!, allow: { database: 'warehouse', role: 'shop_migrator' } }],
    })
    expect(await stage.reload({ config: without })).toBe(true)
    expect(await gone).toMatchObject({ code: '57P01' })
  })
  await stage.waitForNoRoles()
})

test('a reload says what needs a restart as long as it does, and not where all is as it was at the start', async () => {
  await using stage = await startStage()
  const told = async (instance?: string): Promise<string[]> => {
    const before = (await readFile(stage.logFile, 'utf8')).length
    await stage.reload(instance === undefined ? {} : { config: (config) => ({ ...config, instance }) })
    const lines = await eventually(async () => {
      const text = (await readFile(stage.logFile, 'utf8')).slice(before)
      return text.includes('"configuration reloaded"') && text.trimEnd().split('\n')
    })
    return lines.map((line) => JSON.parse(line).setting).filter((setting) => setting !== undefined)
  }
  expect(await told()).toEqual([])
  expect(await told('another')).toEqual(['instance'])
  expect(await told('another')).toEqual(['instance'])
  expect(await told()).toEqual([])
})
