/** `serve --workers 2` as a whole: for a job, an operator and an auditor it is one pgusher. */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { Agent, request } from 'node:https'
import { join } from 'node:path'
import { connect as tlsConnect } from 'node:tls'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { ask } from '../../src/cli/control-client.ts'
import { KILL_PATH, OVERVIEW_PATH } from '../../src/http/control-request.ts'
import type { Overview } from '../../src/session/operator.ts'
import { cancelRequest } from '../../src/wire/frontend.ts'
import { runCli } from '../cli/run-cli.ts'
import { type ConfigInput, RULES, type Stage, type StageEvent, startStage } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'
import { approach, dial, query, type RawClient, rawSession, terminate } from '../support/raw-client.ts'

const WORKERS = 2

const shared = (config: ConfigInput): ConfigInput => ({
  ...config,
  control: { socket: 'control.sock' },
  tickets: { key: Buffer.alloc(32, 7).toString('base64') },
  rules: [
    { ...RULES[0]!, allow: { database: ['shop-prod', 'warehouse'], role: 'shop_migrator', ticket_life: '10m' } },
    { ...RULES[1]!, allow: { database: 'shop-prod', role: 'shop_reader', max_connections: 4 } },
    RULES[2]!,
  ],
})

let stage: Stage
const clients: RawClient[] = []
beforeAll(async () => {
  stage = await startStage({ workers: WORKERS, config: shared, listen: { max_unauthenticated_per_address: 40 } })
})
afterEach(async () => {
  for (const client of clients.splice(0)) client.socket.destroy()
  await stage.waitForNoRoles()
})
afterAll(() => stage.close())

let runs = 0
const tokenOf = (): Promise<string> => {
  const id = String(800_000 + runs++)
  return stage.token('github', { run_id: id, check_run_id: id })
}

async function session(token: string): Promise<RawClient> {
  const client = await rawSession(stage, { token })
  clients.push(client)
  return client
}

const portOf = (event: StageEvent): number => (event['client'] as { port: number }).port

/** Sessions of one job, at least one on each worker; by worker. */
async function everywhere(token: string): Promise<Map<string, RawClient>> {
  const found = new Map<string, RawClient>()
  while (found.size < WORKERS) {
    const client = await session(token)
    const { pgusher } = await stage.waitForEvent(
      (one) => one.event === 'session.started' && portOf(one) === client.port,
    )
    const worker = String(pgusher['instance'])
    if (found.has(worker)) {
      client.send(terminate)
      await client.rest()
    } else found.set(worker, client)
  }
  return found
}

const isSleeping = (mark: string) =>
  eventually(
    async () =>
      (await stage.admin(`select 1 from pg_stat_activity where query like '%${mark}%' and wait_event = 'PgSleep'`))
        .length > 0,
  )

test('invariant 33: a job has one role, whichever workers have its sessions, and each event says which', async () => {
  const found = await everywhere(await tokenOf())
  expect([...found.keys()].toSorted()).toEqual(['stage-1', 'stage-2'])
  const logins = await Promise.all([...found.values()].map((client) => client.ask(query('select session_user'))))
  expect(new Set(logins.map((told) => told.find((text) => text.startsWith('D ')))).size).toBe(1)
  expect(await stage.mintedRoles()).toHaveLength(1)
})

test('max_connections holds over all workers, and what is given back can be had again', async () => {
  const token = await stage.token('gitlab')
  const open = () =>
    Promise.allSettled(Array.from({ length: 12 }, () => rawSession(stage, { token, user: 'shop_reader' })))
  for (let round = 0; round < 2; round++) {
    const results = await open()
    const inside = results.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
    const refused = results.flatMap((one) => (one.status === 'rejected' ? [String(one.reason.message)] : []))
    expect(inside).toHaveLength(4)
    for (const text of refused)
      expect(text).toMatch(/^E 53300 this job holds 4 sessions, and rule "report" allows no more than 4/)
    for (const client of inside) {
      client.send(terminate)
      await client.rest()
    }
    await stage.waitForNoRoles()
  }
})

test('the cap on connections of an address that have not shown a token holds over all workers', async () => {
  // In the clear, which gets its answer at the StartupMessage: those who are let in wait for it.
  const dialled = await Promise.all(Array.from({ length: 60 }, () => approach(stage, 'none')))
  clients.push(...dialled)
  const refused: string[] = []
  for (const client of dialled) void client.rest().then((told) => refused.push(...told))
  await eventually(async () => refused.length >= 20)
  expect(refused).toHaveLength(20)
  for (const text of refused) expect(text).toMatch(/^E 53300 too many connections from 127.0.0.1 are waiting/)
})

test('invariant 18: a CancelRequest finds its session whichever worker it comes to, and a wrong key finds none', async () => {
  const found = [...(await everywhere(await tokenOf())).values()]
  for (let round = 0; round < 12; round++) {
    const client = found[round % WORKERS]!
    const mark = `cancel-round-${round}-`
    client.send(query(`select pg_sleep(60), '${mark}'`))
    await isSleeping(mark)
    for (const key of [Buffer.alloc(client.key.secret.length), client.key.secret]) {
      const socket = await dial(stage)
      socket.resume().end(cancelRequest(client.key.processId, key))
      await once(socket, 'close')
    }
    expect(await client.until('Z')).toEqual(['T', 'E 57014 canceling statement due to user request', 'Z I'])
  }
  const cancelled = await eventually(async () => {
    const events = await stage.events('session.cancel_requested')
    return events.length === 12 && events
  })
  expect(new Set(cancelled.map(({ pgusher }) => pgusher['instance'])).size).toBe(WORKERS)
  await eventually(async () => (await stage.events('protocol.violation')).length === 12)
})

test('a TLS session of one worker is resumed by all', async () => {
  const visit = (old?: Buffer) =>
    new Promise<{ reused: boolean; session: Buffer | undefined }>((resolve, reject) => {
      const options = { port: stage.port, host: '127.0.0.1', servername: 'localhost', ca: stage.ca }
      const socket = tlsConnect({ ...options, ...(old && { session: old }), ALPNProtocols: ['http/1.1'] })
      let [session, reused]: [Buffer | undefined, boolean] = [undefined, false]
      socket.on('session', (made: Buffer) => {
        session = made
      })
      socket.on('error', reject).on('secureConnect', () => {
        reused = socket.isSessionReused()
        socket.write('GET /v1/audience HTTP/1.1\r\nhost: localhost\r\n\r\n')
      })
      socket.resume().once('close', () => resolve({ reused, session }))
    })
  const { session: first } = await visit()
  const results = await Promise.all(Array.from({ length: 16 }, () => visit(first)))
  expect(results.map(({ reused }) => reused)).toEqual(Array(16).fill(true))
})

test('a ticket that one worker gives is good at all of them, until it is given back', async () => {
  const asked = (method: string, bearer: string) =>
    new Promise<string>((resolve, reject) => {
      const agent = new Agent({ ca: stage.ca })
      const headers = { authorization: `Bearer ${bearer}` }
      request(
        { host: 'localhost', port: stage.port, family: 4, method, path: '/v1/token', headers, agent },
        (response) => response.toArray().then((chunks) => resolve(Buffer.concat(chunks).toString()), reject),
      )
        .on('error', reject)
        .end(method === 'POST' ? '{"database":"shop-prod"}' : '')
    })
  const { ticket } = JSON.parse(await asked('POST', await tokenOf())) as { ticket: string }
  const found = await everywhere(ticket)
  expect(found.size).toBe(WORKERS)
  await asked('DELETE', ticket)
  for (let attempt = 0; attempt < 6; attempt++)
    await expect(session(ticket)).rejects.toThrow('E 28P01 this ticket is not known any more')
})

test('sessions and kill see every worker; whom they end is let in by none', async () => {
  const socket = join(stage.directory, 'control.sock')
  const token = await tokenOf()
  const found = await everywhere(token)
  const other = await session(await tokenOf())
  const { sessions } = (await ask(socket, OVERVIEW_PATH)) as Overview
  expect(sessions).toHaveLength(WORKERS + 1)
  const [value = ''] = sessions.map(({ run_id }) => run_id).filter((id, index, all) => all.indexOf(id) < index)
  const order = { target: { by: 'run', value }, user: 'ops', reason: 'token in a public log' }
  expect(await ask(socket, KILL_PATH, order)).toMatchObject({ sessions: WORKERS, windows: 0, problems: [] })
  for (const client of found.values())
    expect((await client.rest()).at(-1)).toMatch(/^E 57P01 session ended by the operator .*token in a public log/)
  for (let attempt = 0; attempt < 8; attempt++) await expect(session(token)).rejects.toThrow('E 42501 the operator')
  expect(await other.ask(query('select 1'))).toContain('D 1')
})

test('health and metrics are of the whole: one answer, each series with its worker', async () => {
  const { httpAddress } = stage.pgusher
  const base = httpAddress.kind === 'tcp' ? `http://127.0.0.1:${httpAddress.port}` : ''
  const found = await everywhere(await tokenOf())
  const text = await (await fetch(`${base}/metrics`)).text()
  const value = (name: string, worker: string): number =>
    Number(new RegExp(`^${name}\\{(?:[^}]*,)?worker="${worker}"\\} (.*)$`, 'm').exec(text)?.[1])
  const workers = ['1', '2']
  expect(workers.map((worker) => value('pgusher_sessions', worker))).toEqual([1, 1])
  expect(value('pgusher_workers', 'primary')).toBe(WORKERS)
  expect(value('pgusher_credentials', 'primary')).toBe(1)
  expect(workers.every((worker) => value('process_start_time_seconds', worker) > 0)).toBe(true)
  expect(text.match(/^# TYPE pgusher_connections_total /gm)).toHaveLength(1)
  expect((await fetch(`${base}/readyz`)).status).toBe(200)
  expect(found.size).toBe(WORKERS)
})

test('a denial is found in the log of the worker that said it', async () => {
  const token = await stage.token('github', { ref: 'refs/heads/fix-1' })
  const message = await session(token).then(String, ({ message: text }: Error) => text)
  const [, id = message] = /\[(D-\w+)\]/.exec(message) ?? []
  await stage.waitForEvent(({ pgusher }) => (pgusher['decision'] as { id?: string } | undefined)?.id === id)
  expect((await runCli(['why', id, '--config', stage.configFile])).stdout).toMatch(/^instance +stage-[12]$/m)
})

test('invariant 37: each log is numbered without a gap, and the primary has the credentials', async () => {
  const events = await stage.events()
  for (const writer of ['stage', 'stage-1', 'stage-2']) {
    const own = events.filter(({ pgusher }) => pgusher['instance'] === writer)
    expect(own.map(({ pgusher }) => pgusher.seq)).toEqual(own.map((_event, index) => index + 1))
  }
  const issued = events.filter(({ event }) => event === 'credential.issued')
  expect(issued.length).toBeGreaterThan(0)
  expect(new Set(issued.map(({ pgusher }) => pgusher['instance']))).toEqual(new Set(['stage']))
  expect(await readFile(stage.logFile, 'utf8')).not.toContain('"level":"error"')
})
