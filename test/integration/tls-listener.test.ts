/** What the listener answers to clients that begin wrong: the right SQLSTATE where one can be said, an event, and nothing left. */
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { connect as tlsConnect } from 'node:tls'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { gssencRequest, passwordMessage, sslRequest, startupMessage } from '../../src/wire/frontend.ts'
import { type Stage, type StageEvent, startStage } from '../support/pgusher.ts'
import { eventually, psqlAvailable } from '../support/postgres.ts'
import {
  approach,
  dial,
  query,
  type RawClient,
  rawSession,
  secure,
  startupOf,
  startupPacket,
} from '../support/raw-client.ts'

let stage: Stage
beforeAll(async () => {
  stage = await startStage({ listen: { handshake_timeout: '3s' } })
})
afterAll(async () => {
  // No backend, no role: `close` throws where one is left.
  await stage.close()
})

const denialOf = (port: number): Promise<StageEvent> =>
  stage.waitForEvent((event) => event.event === 'session.denied' && (event['client'] as { port: number }).port === port)

const codeOf = async (port: number): Promise<unknown> => {
  const { pgusher } = await denialOf(port)
  return (pgusher['decision'] as { code: string }).code
}

/** PostgreSQL's log says nothing of whom we refuse. */
const upstreamConnections = () =>
  stage.admin<{ n: number }>(`select count(*)::int as n from pg_stat_activity where usename like 'pgu\\_%'`)

async function everything(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => socket.end())
  if (!socket.closed) await once(socket, 'close')
  return Buffer.concat(chunks)
}

async function answered(client: RawClient, ...bytes: readonly Buffer[]): Promise<string[]> {
  client.send(...bytes)
  const told = await client.rest()
  client.socket.destroy()
  return told
}

describe('in the clear', () => {
  test('invariant 9: plain TCP is refused at the StartupMessage, with no password asked for', async () => {
    using client = await approach(stage, 'none')
    const [told, ...more] = await answered(client, startupOf({ token: '' }))
    expect(told).toMatch(/^E 28000 TLS is required: use sslmode=verify-full/)
    expect(more).toEqual([])
    expect(await codeOf(client.port)).toBe('tls_required')
  })

  test.each([
    ['a length of 0', Buffer.from([0, 0, 0, 0]), 'E 08P01 invalid length of the startup packet'],
    ['a negative length', Buffer.from([255, 0, 0, 8, 0, 3, 0, 0]), 'E 08P01 invalid length of the startup packet'],
    [
      'a length of a gigabyte',
      Buffer.from([0x40, 0, 0, 0, 0, 3, 0, 0]),
      'E 08P01 invalid length of the startup packet',
    ],
    [
      'HTTP',
      Buffer.from('GET / HTTP/1.1\r\nHost: pgusher\r\n\r\n'),
      'E 08P01 invalid length of the startup packet: "GET "',
    ],
    ['protocol 2.0', startupPacket(2 << 16, 'user'), 'E 0A000 unsupported frontend protocol 2.0'],
    ['no user', startupMessage(new Map()), 'E 28000 StartupMessage names no user'],
    [
      'a parameter twice',
      startupPacket(3 << 16, 'user', 'a', 'user', 'b', Buffer.of(0)),
      'E 08P01 StartupMessage names the parameter "user" twice',
    ],
    [
      'a string without end',
      startupPacket(3 << 16, 'user', Buffer.from('a')),
      'E 08P01 the startup packet is malformed',
    ],
    ['a user that is no UTF-8', startupPacket(3 << 16, 'user', Buffer.from([0xff, 0]), Buffer.of(0)), 'E 22021'],
    [
      'a cancel key of three bytes',
      startupPacket(80877102, Buffer.from([0, 0, 0, 1, 1, 2, 3])),
      'E 08P01 CancelRequest is malformed',
    ],
  ])('invariant 35: a beginning with %s leaves its event', async (_what, bytes, wanted) => {
    using client = await approach(stage, 'none')
    const told = await answered(client, bytes)
    expect(told).toHaveLength(1)
    expect(told[0]).toContain(wanted)
    expect(await codeOf(client.port)).toBe('protocol_violation')
  })

  test('invariant 2: each of SSLRequest and GSSENCRequest at most once', async () => {
    const gss = await dial(stage)
    gss.write(gssencRequest())
    await once(gss, 'readable')
    expect(gss.read(1)?.toString()).toBe('N')
    gss.write(gssencRequest())
    expect((await everything(gss)).toString('latin1')).toContain('a second GSSENCRequest on one connection')
    using inside = await approach(stage)
    expect((await answered(inside, sslRequest()))[0]).toContain(
      'E 08P01 SSLRequest on a connection that is encrypted already',
    )
    expect(await codeOf(inside.port)).toBe('protocol_violation')
  })

  test.each([
    ['a StartupMessage', startupMessage(new Map([['user', 'x']]))],
    ['a single byte', Buffer.of(0)],
  ])(
    'invariant 1: %s behind SSLRequest in the clear closes the connection without a word of ours',
    async (_what, more) => {
      const socket = await dial(stage)
      const port = socket.localPort ?? 0
      socket.write(Buffer.concat([sslRequest(), more]))
      expect((await everything(socket)).toString()).toMatch(/^S?$/)
      expect(await codeOf(port)).toBe('protocol_violation')
    },
  )
})

describe('over TLS', () => {
  test('direct TLS with ALPN is a session as any other', async () => {
    using client = await rawSession(stage, { token: await stage.token() }, { tls: 'direct' })
    expect(await client.ask(query('select 1'))).toContain('D 1')
  })

  test('TLS 1.2 as well, TLS 1.1 not', async () => {
    const versionOf = async (version: 'TLSv1.1' | 'TLSv1.2' | 'TLSv1.3') => {
      const socket = await dial(stage)
      const secured = tlsConnect({
        ...{ socket, ca: stage.ca, servername: 'localhost', ALPNProtocols: ['postgresql'] },
        ...{ minVersion: version, maxVersion: version, ciphers: 'DEFAULT:@SECLEVEL=0' },
      })
      secured.on('error', () => {})
      const outcome = await new Promise((resolve) => {
        secured.once('secureConnect', () => resolve(secured.getProtocol())).once('close', () => resolve('closed'))
      })
      socket.destroy()
      return outcome
    }
    expect(await Promise.all([versionOf('TLSv1.1'), versionOf('TLSv1.2'), versionOf('TLSv1.3')])).toEqual([
      ...['closed', 'TLSv1.2', 'TLSv1.3'],
    ])
  })

  test('invariant 2: PostgreSQL over direct TLS without ALPN is closed', async () => {
    const socket = await dial(stage)
    const port = socket.localPort ?? 0
    const secured = tlsConnect({ socket, ca: stage.ca, servername: 'localhost' })
    secured.on('error', () => {})
    secured.write(startupOf({ token: '' }))
    expect((await everything(secured)).toString()).toMatch(/^HTTP\/1\.1 400 Bad Request\r\n/)
    expect(await codeOf(port)).toBe('protocol_violation')
  })

  test('something else than a password where one is due', async () => {
    using client = await approach(stage)
    const told = await answered(client, startupOf({ token: '' }), query('select 1'))
    expect(told[0]).toBe('R 3')
    expect(told[1]).toMatch(/^E 08P01 message type 'Q' is not allowed here/)
    expect(await codeOf(client.port)).toBe('protocol_violation')
  })

  test('tokens that are none: empty, too long, with a NUL', async () => {
    const tries = [
      [passwordMessage(''), 'E 28P01 no token', 'token_missing'],
      [passwordMessage('x'.repeat(70_000)), 'E 28P01 the token is longer than 65536 bytes', 'token_malformed'],
      [passwordMessage('not a token'), 'E 28P01', 'token_malformed'],
    ] as const
    await Promise.all(
      tries.map(async ([password, wanted, code]) => {
        using client = await approach(stage)
        expect((await answered(client, startupOf({ token: '' }), password))[1]).toContain(wanted)
        expect(await codeOf(client.port)).toBe(code)
      }),
    )
  })

  test.each([
    [{ role: 'postgres' }, '42501', 'role_not_allowed'],
    [{ options: '-c role=postgres' }, '42501', 'role_not_allowed'],
    [{ session_authorization: 'postgres' }, '42501', 'role_not_allowed'],
    [{ replication: 'database' }, '42501', 'statement_not_allowed'],
    [{ replication: 'perhaps' }, '22023', 'protocol_violation'],
    [{ user: 'x'.repeat(64) }, '42622', 'protocol_violation'],
  ])('invariant 5: startup parameters %j are refused', async (parameters, sqlstate, code) => {
    const token = await stage.token()
    using client = await approach(stage)
    client.send(startupOf({ token }, { parameters }), passwordMessage(token))
    const told = (await client.rest()).filter((text) => text.startsWith('E'))
    expect(told[0]?.slice(0, 7)).toBe(`E ${sqlstate}`)
    expect(await codeOf(client.port)).toBe(code)
  })

  test('nothing of all this reached PostgreSQL', async () => {
    expect(await upstreamConnections()).toEqual([{ n: 0 }])
    expect(await stage.mintedRoles()).toEqual([])
  })
})

describe('invariant 8: handshakes that stall', () => {
  test('sixty of them at every point are gone after the deadline, with an event', async () => {
    const served = async () => stage.session({ token: await stage.token() }, (client) => client.query('select 1'))
    const stall = async (kind: number): Promise<{ port: number | undefined; socket: Socket }> => {
      const socket = await dial(stage)
      const port = socket.localPort
      if (kind === 1) socket.write(Buffer.from([0, 0, 0, 8]))
      if (kind === 2) socket.write(sslRequest().subarray(0, 7))
      if (kind === 3) socket.write(sslRequest())
      if (kind === 4) socket.write(Buffer.from([0x16, 3, 1, 2, 0]))
      if (kind === 5) {
        socket.write(sslRequest())
        await once(socket, 'readable')
        socket.read(1)
        const secured = await secure(stage, socket)
        secured.write(startupOf({ token: '' }))
        return { port, socket: secured }
      }
      return { port, socket }
    }
    const stalled = await Promise.all(Array.from({ length: 60 }, (_, i) => stall(i % 6)))
    await served()
    const ports = new Set(stalled.map(({ port }) => port))
    await Promise.all(stalled.map(({ socket }) => everything(socket)))
    await served()
    const denied = await eventually(async () => {
      const events = await stage.events(
        ({ event, client }) => event === 'session.denied' && ports.has((client as { port?: number }).port),
      )
      // One that never sent a byte is a port check.
      return events.length >= 50 && events
    })
    expect(denied).toHaveLength(50)
    const reasons = denied.map(({ pgusher }) => (pgusher['decision'] as { message: string }).message)
    expect(new Set(reasons)).toEqual(
      new Set(['the client did not go on with its login within 3 s (handshake_timeout)']),
    )
  })
})

if (await psqlAvailable()) {
  test('invariant 9: psql with sslmode=prefer and a token that is refused: it shows both errors, and sends no token in the clear', async () => {
    const token = await stage.token('github', { ref: 'refs/heads/fix-1' })
    const shownByPsql = await new Promise<string>((resolve) => {
      const connection = `host=127.0.0.1 port=${stage.port} user=shop_migrator dbname=shop-prod sslmode=prefer`
      const env = { PATH: process.env['PATH'] ?? '', PGPASSWORD: token }
      execFile('timeout', ['60', 'psql', '-w', '-c', 'select 1', connection], { env }, (_error, _out, err) =>
        resolve(err),
      )
    })
    expect(shownByPsql).toContain('claim ref is "refs/heads/fix-1"')
    expect(shownByPsql.indexOf('TLS is required')).toBeGreaterThan(shownByPsql.indexOf('claim ref is'))
  })
}
