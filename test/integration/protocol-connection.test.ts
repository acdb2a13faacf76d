/** Versions of the protocol, and the ways in which either side's connection ends. */
import { expect, test } from 'vitest'
import { cancelRequest, passwordMessage, sslRequest } from '../../src/wire/frontend.ts'
import { AT_ONCE } from '../support/at-once.ts'
import { onEachPostgres } from '../support/each-postgres.ts'
import { eventually } from '../support/postgres.ts'
import {
  approach,
  copyData,
  dial,
  query,
  type RawClient,
  rawSession,
  run,
  secure,
  startupOf,
  sync,
  terminate,
} from '../support/raw-client.ts'
import { endOf, statementsOf } from '../support/statement-events.ts'

onEachPostgres((stage) => {
  const job = async () => ({ token: await stage().token() })
  const session = async (options = {}) => rawSession(stage(), await job(), options)
  const backends = async (what: string) =>
    stage().admin<{ pid: number }>(
      `select pid from pg_stat_activity where backend_type = 'client backend' and usename like 'pgu\\_%' and query like '%${what}%'`,
    )
  const runs = (what: string) => eventually(async () => (await backends(what))[0])
  const gone = (what: string) => eventually(async () => (await backends(what)).length === 0)

  test.each([
    { minor: 0, negotiated: [], key: 4 },
    { minor: 2, negotiated: [], key: 32 },
    { minor: 1, negotiated: ['v 0'], key: 4 },
    { minor: 9, negotiated: ['v 2'], key: 32 },
  ])('invariant 25: protocol 3.$minor', async ({ minor, negotiated, key }) => {
    using client = await session({ minor })
    expect(client.greeting.filter((text) => text.startsWith('v'))).toEqual(negotiated)
    expect(client.key.secret).toHaveLength(key)
    expect(await client.ask(query('select 1'))).toContain('D 1')
    expect(client.parameters.get('server_version')).toBeDefined()
  })

  test('options of the protocol that nobody knows are named, and refused softly', async () => {
    using client = await session({ parameters: { '_pq_.future': 'on', '_pq_.other': '' } })
    expect(client.greeting[0]).toBe('v 0 _pq_.future _pq_.other')
    expect(await client.ask(query('select 1'))).toContain('D 1')
  })

  test('invariant 26: Query and Terminate, then FIN: the answer still comes, whole', async () => {
    using client = await session()
    client.send(query(`select repeat('x', 3000000); select pg_sleep(0.3); select 'the end'`), terminate)
    client.finish()
    const told = await client.rest()
    expect(told.at(-3)).toBe('D the end')
    expect(told.slice(-2)).toEqual(['C SELECT 1', 'Z I'])
    expect((await endOf(stage(), client.port)).pgusher['end_reason']).toBe('client')
    expect((await statementsOf(stage(), client.port)).map(({ outcome }) => outcome)).toEqual(Array(3).fill('success'))
  })

  test('FIN without Terminate behind a pipeline: every answer comes', async () => {
    using client = await session()
    client.send(run('select 1'), run('select pg_sleep(0.2)'), run('select 3'), sync)
    client.finish()
    const told = await client.rest()
    expect(told.filter((text) => /^[DZ]/.test(text))).toEqual(['D 1', 'D', 'D 3', 'Z I'])
    expect(await statementsOf(stage(), client.port)).toHaveLength(3)
  })

  test('invariant 28: a client that vanishes, in mid statement, in mid COPY, while reading and while idle, takes its backends along', async () => {
    const vanish = async (mark: string, prepare: (client: RawClient) => Promise<void>, how: 'reset' | 'finish') => {
      const client = await session()
      await client.ask(query(`select '${mark}'`))
      await prepare(client)
      await runs(mark)
      const at = performance.now()
      if (how === 'reset') client.reset()
      else client.socket.end()
      await gone(mark)
      expect(performance.now() - at).toBeLessThan(5_000 + AT_ONCE)
      const ended = await endOf(stage(), client.port)
      expect(ended.pgusher['end_reason']).toBe('client')
      return (await statementsOf(stage(), client.port)).slice(1)
    }
    const sleeping = (mark: string) => async (client: RawClient) => client.send(query(`select pg_sleep(60), '${mark}'`))
    const copying = (mark: string) => async (client: RawClient) => {
      client.send(query(`create temp table t (a text); copy t from stdin -- ${mark}`))
      await client.until('G')
      client.send(copyData('half of it'))
    }
    const streaming = (mark: string) => async (client: RawClient) => {
      client.send(query(`select repeat('x', 1000), generate_series(1, 10000000) -- ${mark}`))
      await client.next()
    }
    const results = await Promise.all([
      vanish('sleeping-reset', sleeping('sleeping-reset'), 'reset'),
      vanish('sleeping-fin', sleeping('sleeping-fin'), 'finish'),
      vanish('copying-reset', copying('copying-reset'), 'reset'),
      vanish('copying-fin', copying('copying-fin'), 'finish'),
      vanish('streaming', streaming('streaming'), 'reset'),
      vanish('idle', async () => {}, 'reset'),
    ])
    const [reset, fin, copyReset, copyFin, stream, idle] = results
    for (const statements of [reset, fin, stream]) {
      expect(statements).toHaveLength(1)
      expect(statements?.[0]?.outcome).not.toBe('success')
    }
    for (const statements of [copyReset, copyFin]) {
      expect(statements?.map(({ protocol }) => protocol)).toEqual(['simple', 'copy_in'])
      expect(statements?.[1]?.outcome).not.toBe('success')
    }
    expect(idle).toEqual([])
  })

  test('a backend that is terminated: the client sees 57P01, and the end is the upstream’s', async () => {
    using idle = await session()
    using busy = await session()
    await idle.ask(query(`select 'terminated-idle'`))
    busy.send(query(`select pg_sleep(60), 'terminated-busy'`))
    await runs('terminated-busy')
    await stage().admin(
      `select pg_terminate_backend(pid) from pg_stat_activity where query like '%terminated-%' and pid <> pg_backend_pid()`,
    )
    for (const client of [idle, busy]) {
      expect((await client.rest()).filter((text) => !/^[TD]/.test(text))).toEqual([
        'E 57P01 terminating connection due to administrator command',
      ])
      expect((await endOf(stage(), client.port)).pgusher['end_reason']).toBe('upstream')
    }
    expect((await statementsOf(stage(), busy.port)).at(-1)).toMatchObject({ outcome: 'failure', code: '57P01' })
    expect(await statementsOf(stage(), idle.port)).toHaveLength(1)
  })

  test('invariant 18: Ctrl-C, a CancelRequest with our key, in the clear and over TLS, of 4 and of 32 bytes', async () => {
    for (const minor of [0, 2]) {
      for (const tls of [false, true]) {
        using client = await session({ minor })
        client.send(query(`select pg_sleep(60), 'cancel-${minor}-${tls}'`))
        await runs(`cancel-${minor}-${tls}`)
        const at = performance.now()
        await cancel(client.key.processId, client.key.secret, tls)
        expect((await client.until('Z')).slice(-2)).toEqual([
          ...['E 57014 canceling statement due to user request', 'Z I'],
        ])
        expect(performance.now() - at).toBeLessThan(AT_ONCE)
        client.send(terminate)
        await client.rest()
        expect(await statementsOf(stage(), client.port)).toMatchObject([{ outcome: 'failure', code: '57014' }])
        const events = await stage().events(({ event }) => event === 'session.cancel_requested')
        expect(events.map((event) => (event['client'] as { port: number }).port)).toContain(client.port)
      }
    }
  })

  test('invariant 18: a wrong key, or one of a session that is over, is answered by nothing and harms nobody', async () => {
    using client = await session()
    using over = await session()
    over.send(terminate)
    await over.rest()
    await endOf(stage(), over.port)
    const wrong = Buffer.from(client.key.secret.map((byte) => byte ^ 1))
    client.send(query('select pg_sleep(0.5)'))
    for (const [processId, key] of [
      [client.key.processId, wrong],
      [client.key.processId, Buffer.alloc(32)],
      [client.key.processId ^ 1, client.key.secret],
      [over.key.processId, over.key.secret],
    ] as const) {
      expect(await cancel(processId, key, false)).toEqual(Buffer.alloc(0))
    }
    expect(await client.until('Z')).toEqual(['T', 'D', 'C SELECT 1', 'Z I'])
    await eventually(async () => (await stage().events('protocol.violation')).length >= 4)
  })

  /** What the listener answers, which is nothing. */
  async function cancel(processId: number, key: Buffer, tls: boolean): Promise<Buffer> {
    let socket = await dial(stage())
    if (tls) {
      socket.write(sslRequest())
      await new Promise((resolve) => socket.once('readable', resolve))
      socket.read(1)
      socket = await secure(stage(), socket)
    }
    const chunks: Buffer[] = []
    socket.on('data', (chunk: Buffer) => chunks.push(chunk))
    socket.end(cancelRequest(processId, key))
    await new Promise((resolve) => socket.once('close', resolve))
    return Buffer.concat(chunks)
  }

  test('messages that come in single bytes, and many in one segment', async () => {
    const token = await stage().token()
    using client = await approach(stage())
    for (const byte of startupOf({ token })) client.socket.write(Buffer.of(byte))
    expect(await client.until('R')).toEqual(['R 3'])
    // The password and a first Query in one go.
    client.send(passwordMessage(token), query('select 1'))
    expect((await client.until('Z', 2)).slice(-4)).toEqual(['T', 'D 1', 'C SELECT 1', 'Z I'])
    for (const byte of Buffer.concat([run('select 2'), sync])) client.socket.write(Buffer.of(byte))
    expect(await client.until('Z')).toEqual(['1', '2', 'D 2', 'C SELECT 1', 'Z I'])
    client.send(terminate)
    await client.rest()
    expect(await statementsOf(stage(), client.port)).toMatchObject([{ sql: 'select 1' }, { sql: 'select 2' }])
  })
})
