/**
 * Sessions that pgusher ends while their client is behind in reading: megabytes are under way, and what PostgreSQL sent last ends in the
 * middle of a message. The client is told why behind that message, and nothing of the session is left.
 */
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { beforeAll, expect, test } from 'vitest'
import { ask } from '../../src/cli/control-client.ts'
import { KILL_PATH } from '../../src/http/control-request.ts'
import { AT_ONCE } from '../support/at-once.ts'
import { onEachPostgres } from '../support/each-postgres.ts'
import type { ConfigInput, RuleInput, Stage, StageEvent } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'
import { copyData, copyDone, query, type RawClient, rawSession, shown, terminate } from '../support/raw-client.ts'
import { statementsOf } from '../support/statement-events.ts'

const ruleOf = (name: string, repository_id: string, more: Partial<RuleInput['allow']> = {}): RuleInput => ({
  ...{ name, issuer: 'github', match: { repository_id } },
  allow: { database: 'shop-prod', role: 'shop_migrator', ...more },
})
const ORDINARY = ruleOf('ordinary', '784500001')
const REPLICATE = ruleOf('replicate', '784500002', { replication: true })
const BRIEFLY = ruleOf('briefly', '784500003', { replication: true, max_session: '3s' })

const withRules = (...rules: RuleInput[]) => ({
  config: (config: ConfigInput): ConfigInput => ({
    ...config,
    rules,
    listen: { ...config.listen, plaintext: 'allow' },
    // Relative to the configuration's directory, which is this user's alone.
    control: { socket: 'control.sock' },
    drain_timeout: '500ms',
  }),
})
const RULES = withRules(ORDINARY, REPLICATE, BRIEFLY)

let runs = 900
/** Of a job of its own, since a kill bars the job. */
function tokenOf(stage: Stage, { match }: RuleInput): Promise<string> {
  const run = String(runs++)
  return stage.token('github', { repository_id: match?.['repository_id'] as string, run_id: run, check_run_id: run })
}

const ofPort = (name: string, port: number) => (event: StageEvent) =>
  event.event === name && (event['client'] as { port: number }).port === port

async function kill(stage: Stage, port: number): Promise<void> {
  const started = await stage.waitForEvent(ofPort('session.started', port))
  const answer = await ask(join(stage.directory, 'control.sock'), KILL_PATH, {
    target: { by: 'session', value: (started['session'] as { id: string }).id },
    ...{ user: 'dana', reason: 'not hers' },
  })
  expect(answer).toMatchObject({ ok: true, sessions: 1, problems: [] })
}
const KILLED = 'E 57P01 session ended by the operator (dana): not hers'

/** How pgusher ends a replicating session, what the client is told, and after how many milliseconds from its begin, or from then on. */
const ENDS = {
  expired: {
    ...{ rule: BRIEFLY, after: 3_000, told: 'E 57P01 session ended: rule "briefly" allows 3 s (max_session)' },
    bring: async () => {},
  },
  policy: {
    ...{ rule: REPLICATE, after: 0, told: 'E 57P01 session ended: the policy was changed and no longer allows it' },
    bring: (stage: Stage) => stage.reload(withRules(ORDINARY, BRIEFLY)),
  },
  killed: { rule: REPLICATE, after: 0, told: KILLED, bring: kill },
  shutdown: {
    ...{ rule: REPLICATE, after: 500, told: 'E 57P01 session ended: pgusher is shutting down' },
    bring: (stage: Stage) => stage.pgusher.stop(),
  },
}

/** What a client was sent up to the end of its connection. */
interface Received {
  /** Bodies of CopyData and DataRow. */
  messages: number
  bytes: number
  /** All others, as `shown`; behind them how the connection ended. */
  told: string[]
}

/** A message now and then until `hurry`. */
async function readSlowly(client: RawClient, hurry: () => boolean): Promise<Received> {
  const received: Received = { messages: 0, bytes: 0, told: [] }
  const seeWal = walReader()
  for (;;) {
    const message = await client.next().catch((error: Error) => error.message)
    if (typeof message === 'string') {
      client.socket.end()
      received.told.push(message)
      return received
    }
    const { type, body } = message
    if (type === 'd' || type === 'D') {
      if (type === 'd') seeWal(body)
      received.messages++
      received.bytes += body.length
    } else received.told.push(shown(message))
    if (!hurry()) await delay(10)
  }
}

/** Of a physical stream: each XLogData (`w`, where it begins, where the log ends, when, data) begins where the one before it ended. */
function walReader(): (body: Buffer) => void {
  let next: bigint | undefined
  return (body) => {
    if (body[0] !== 'w'.charCodeAt(0)) return
    const at = body.readBigUInt64BE(1)
    expect(at).toBe(next ?? at)
    next = at + BigInt(body.length - 25)
  }
}

const seen = async (stage: Stage, sql: string): Promise<boolean> => (await stage.admin(sql)).length > 0
const backends = (stage: Stage) => seen(stage, `select from pg_stat_activity where usename like 'pgu\\_%'`)
const senders = (stage: Stage) => seen(stage, 'select from pg_stat_replication')
const WAITING = `select from pg_stat_activity a left join pg_stat_replication r using (pid) where a.usename like 'pgu\\_%'
  and (wait_event in ('ClientWrite', 'WalSenderWriteData') or (wait_event = 'WalSenderMain' and r.state = 'catchup'))`

/** It has more to send than anybody takes. While sockets fill it waits as well, for a moment each time. */
async function waits(stage: Stage): Promise<void> {
  let times = 0
  await eventually(async () => {
    times = (await seen(stage, WAITING)) ? times + 1 : 0
    return times === 5
  })
}

/** It reads what the client sends, and nothing else. */
const listens = (stage: Stage) =>
  eventually(() =>
    seen(stage, `select from pg_stat_activity where usename like 'pgu\\_%' and wait_event = 'ClientRead'`),
  )

/** Reads slowly until the backend is gone, and then what is left. */
async function readToTheEnd(stage: Stage, client: RawClient, bring: () => Promise<unknown>): Promise<Received> {
  let gone = false
  const reading = readSlowly(client, () => gone)
  await bring()
  await eventually(async () => !(await backends(stage)))
  gone = true
  return reading
}

interface Ending extends Received {
  port: number
  /** Milliseconds from the session's end by pgusher to the connection's. */
  took: number
}

/**
 * A client that takes nothing for 800 ms is cut off, and so is one that PostgreSQL sends nothing for as long. Where the machine stood
 * still meanwhile that was neither's doing, and it is tried again.
 */
async function unlessHeldUp(attempt: () => Promise<Ending>): Promise<Ending> {
  for (let left = 2; ; left--) {
    const ending = await attempt()
    if (left === 0 || ending.told.at(-1) === 'end' || ending.took < 700) return ending
  }
}

/** One event of the session's end and one of the statement that it was in, both with that reason; nothing in PostgreSQL. */
async function expectOver(stage: Stage, { port, took }: Ending, reason: string): Promise<void> {
  expect(took).toBeLessThan(AT_ONCE)
  const statements = (await statementsOf(stage, port)).filter(({ sql }) => !sql?.startsWith('CREATE_REPLICATION_SLOT'))
  expect(statements).toMatchObject([{ error: reason }])
  const ended = await stage.events(ofPort('session.ended', port))
  expect(ended.map(({ pgusher }) => [pgusher['end_reason'], pgusher.outcome])).toEqual([[reason, 'failure']])
  // PostgreSQL's process notices a moment later that its connection is gone.
  await eventually(async () => !(await senders(stage)))
  await stage.waitForNoRoles()
}

const MESSAGES = `proto_version '1', publication_names 'none', messages 'true'`
const WAL_BYTES = 64_000_000

function replication(stageOf: () => Stage, version: number): void {
  let from = ''
  beforeAll(async () => {
    const stage = stageOf()
    // To make roles that may replicate.
    await stage.admin(`alter role pgusher_admin ${version >= 16 ? 'replication' : 'superuser'}`)
    from = (await stage.admin<{ lsn: string }>('select pg_current_wal_lsn()::text as lsn'))[0]?.lsn ?? ''
    await stage.admin(
      `select pg_logical_emit_message(true, 'bulk', repeat('x', 1000000)) from generate_series(1, ${WAL_BYTES / 1_000_000})`,
    )
  })

  /** A stream of much that is there already. */
  async function stream(rule: RuleInput): Promise<RawClient> {
    const token = await tokenOf(stageOf(), rule)
    const client = await rawSession(stageOf(), { token }, { parameters: { replication: 'true' } })
    client.send(query(`START_REPLICATION PHYSICAL ${from}`))
    expect(await client.until('W')).toEqual(['W'])
    return client
  }

  /** A stream whose next message is larger than what the sockets hold, and the walsender has the rest of it. */
  async function streamOfOne(...behind: readonly Buffer[]): Promise<RawClient> {
    const stage = stageOf()
    const client = await rawSession(
      stage,
      { token: await tokenOf(stage, REPLICATE) },
      { tls: 'none', parameters: { replication: 'database' } },
    )
    await client.ask(query('CREATE_REPLICATION_SLOT one TEMPORARY LOGICAL pgoutput'))
    client.send(query(`START_REPLICATION SLOT one LOGICAL 0/0 (${MESSAGES})`))
    expect(await client.until('W')).toEqual(['W'])
    await stage.admin(
      `select pg_logical_emit_message(false, 'one', repeat('x', ${LARGE})); select pg_switch_wal()`,
      'shop',
    )
    await waits(stage)
    client.send(...behind)
    return client
  }
  const LARGE = 24_000_000

  async function endStream(reason: keyof typeof ENDS, before?: (client: RawClient) => Promise<void>): Promise<Ending> {
    const stage = stageOf()
    const { rule, after, bring } = ENDS[reason]
    let at = performance.now()
    using client = await stream(rule)
    const received = await readToTheEnd(stage, client, async () => {
      if (reason === 'expired') return
      await waits(stage)
      await before?.(client)
      at = performance.now()
      await bring(stage, client.port)
    })
    const took = performance.now() - at - after
    if (reason === 'policy') await stage.reload(RULES)
    if (reason === 'shutdown') await stage.restart()
    return { ...received, port: client.port, took }
  }

  test.each(Object.keys(ENDS) as (keyof typeof ENDS)[])('a stream of the write-ahead log: %s', async (reason) => {
    const ending = await unlessHeldUp(() => endStream(reason))
    expect(ending.told).toEqual([ENDS[reason].told, 'end'])
    expect(ending.messages).toBeGreaterThan(0)
    expect(ending.bytes).toBeLessThan(WAL_BYTES)
    await expectOver(stageOf(), ending, reason)
  })

  test.each(['physical', 'logical'])(
    'a %s stream that its client ends is one statement that succeeded',
    async (kind) => {
      const stage = stageOf()
      const token = await tokenOf(stage, REPLICATE)
      using client = await rawSession(stage, { token }, { parameters: { replication: 'database' } })
      const how = kind === 'physical' ? `PHYSICAL ${from}` : `SLOT own LOGICAL 0/0 (${MESSAGES})`
      if (kind === 'logical') await client.ask(query('CREATE_REPLICATION_SLOT own TEMPORARY LOGICAL pgoutput'))
      client.send(query(`START_REPLICATION ${how}`))
      await client.until('W')
      client.send(copyDone)
      await client.skipUntil('Z')
      expect(await client.ask(query('IDENTIFY_SYSTEM'))).toContain('C IDENTIFY_SYSTEM')
      client.send(terminate)
      const succeeded = (sql: string) => ({ sql: expect.stringContaining(sql), outcome: 'success', batch: 0 })
      expect((await statementsOf(stage, client.port)).slice(-2)).toMatchObject(
        ['START_REPLICATION', 'IDENTIFY_SYSTEM'].map(succeeded),
      )
      expect(await statementsOf(stage, client.port)).toHaveLength(kind === 'logical' ? 3 : 2)
    },
  )

  test('a client that is in the middle of a message of its own is told as well', async () => {
    const speaks = async (client: RawClient): Promise<void> => {
      client.send(HALF)
      await listens(stageOf())
    }
    const ending = await unlessHeldUp(() => endStream('killed', speaks))
    expect(ending.told).toEqual([KILLED, 'end'])
    await expectOver(stageOf(), ending, 'killed')
  })

  test('a message that is larger than what the sockets hold comes whole before the reason', async () => {
    const stage = stageOf()
    const ending = await unlessHeldUp(async () => {
      using client = await streamOfOne()
      const at = performance.now()
      const killed = kill(stage, client.port)
      await stage.waitForEvent(ofPort('session.killed', client.port))
      const received = await readSlowly(client, () => true)
      const took = performance.now() - at
      await killed
      return { ...received, port: client.port, took }
    })
    expect(ending.told).toEqual([KILLED, 'end'])
    expect(ending.bytes).toBeGreaterThan(LARGE)
    await expectOver(stage, ending, 'killed')
  })

  test.each([
    ['reads nothing', []],
    ['keeps PostgreSQL waiting for the rest of a message of its own', [HALF]],
    ['ended the stream before', [copyDone]],
  ])('in the middle of such a message a client that %s is cut off, and nothing is left', async (_what, behind) => {
    const stage = stageOf()
    using client = await streamOfOne(...behind)
    const at = performance.now()
    await kill(stage, client.port)
    const took = performance.now() - at
    await expectOver(stage, { messages: 0, bytes: 0, told: [], port: client.port, took }, 'killed')
  })
}
const HALF = copyData('r'.repeat(34)).subarray(0, 20)

function results(stageOf: () => Stage): void {
  const endResult = async (tls: 'request' | 'none'): Promise<Ending> => {
    const stage = stageOf()
    using client = await rawSession(stage, { token: await tokenOf(stage, ORDINARY) }, { tls })
    client.send(query(`select repeat('x', 100000) from generate_series(1, 100000)`))
    expect(await client.until('T')).toEqual(['T'])
    let at = 0
    const received = await readToTheEnd(stage, client, async () => {
      await waits(stage)
      at = performance.now()
      await kill(stage, client.port)
    })
    return { ...received, port: client.port, took: performance.now() - at }
  }

  test.each([
    ['TLS', 'request'],
    ['in the clear', 'none'],
  ] as const)('a result of megabytes, and the operator kills the session, %s', async (_name, tls) => {
    const ending = await unlessHeldUp(() => endResult(tls))
    expect(ending.told).toEqual([KILLED, 'end'])
    expect(ending.messages).toBeGreaterThan(0)
    await expectOver(stageOf(), ending, 'killed')
  })
}

onEachPostgres(
  (stage, version) => {
    replication(stage, version)
    results(stage)
  },
  RULES,
  { settings: { wal_level: 'logical', wal_keep_size: '256MB' } },
)
