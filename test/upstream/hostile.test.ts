import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import type { DatabaseConfig } from '../../src/config/schema.ts'
import { AccessError } from '../../src/errors.ts'
import { causes, connect, refusal } from './refusal.ts'
import {
  AUTHENTICATION_OK,
  acceptScram,
  afterLogin,
  afterStartup,
  closeScriptedUpstreams,
  error,
  frame,
  notice,
  type Peer,
  parameter,
  READY,
  SESSION,
  sasl,
  scriptedUpstream,
} from './scripted-upstream.ts'

afterEach(closeScriptedUpstreams)

describe('invariant 1: the answer of an upstream to the request for TLS', () => {
  const tls: Partial<DatabaseConfig> = { tls: { mode: 'require' } }

  test.each([
    ['bytes in the clear behind S', Buffer.concat([Buffer.from('S'), error({ M: 'injected' })]), 'bytes in the clear'],
    ['a second S', Buffer.from('SS'), 'bytes in the clear'],
    ['N', Buffer.from('N'), 'offers no TLS'],
    ['an error in the clear', error({ S: 'FATAL', C: '57P03', M: 'injected' }), 'bytes in the clear'],
    ['another protocol', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), 'not one of PostgreSQL'],
    ['another byte', Buffer.from('H'), 'not one of PostgreSQL'],
  ])('%s', async (_name, answer, reason) => {
    const thrown = await refusal(async (peer) => {
      await peer.read(8)
      peer.send(answer)
    }, tls)
    expect(thrown).toMatchObject({ code: 'upstream_unreachable', sqlstate: '08006' })
    expect(thrown.message).toContain('cannot connect to "shop": ')
    expect(thrown.message).toContain(reason)
    expect(causes(thrown)).not.toContain('injected')
  })

  test('an end', async () => {
    const thrown = await refusal(async (peer) => {
      await peer.read(8)
      peer.socket.end()
    }, tls)
    expect(thrown.message).toBe('cannot connect to "shop": it closed the connection on a request for TLS')
  })

  test('bytes that are no TLS behind S, a moment later', async () => {
    const thrown = await refusal(async (peer) => {
      await peer.read(8)
      peer.send(Buffer.from('S'))
      await peer.read(1)
      peer.send(error({ S: 'FATAL', C: '28000', M: 'injected' }))
    }, tls)
    expect(thrown.message).toMatch(/failed while negotiating TLS with 127\.0\.0\.1:\d+$/)
  })
})

describe('invariant 3: what comes before the login', () => {
  test('is told by its SQLSTATE and never by its text', async () => {
    const thrown = await refusal(afterStartup(error({ S: 'FATAL', C: '57P03', M: 'visit evil.example' })))
    expect(thrown).toMatchObject({ code: 'upstream_unreachable', sqlstate: '57P03' })
    expect(thrown.message).toBe('cannot connect to "shop": it is starting up, shutting down or recovering')
    expect(JSON.stringify([thrown.message, thrown.detail, thrown.hint])).not.toContain('evil')
    expect(causes(thrown)).toContain('visit evil.example')
  })

  test.each([
    ['53300', 'upstream_unreachable', '53300', 'no free connection slot'],
    ['28P01', 'upstream_auth', '08006', 'did not accept the credential'],
    ['28000', 'upstream_auth', '08006', 'did not accept the credential'],
    ['XX000', 'upstream_unreachable', '08006', 'SQLSTATE XX000'],
    ['00000', 'upstream_unreachable', '08006', 'SQLSTATE missing'],
    ['<b>', 'upstream_unreachable', '08006', 'SQLSTATE missing'],
  ])('SQLSTATE %s', async (sqlstate, code, shown, text) => {
    const thrown = await refusal(afterStartup(error({ S: 'FATAL', C: sqlstate, M: 'no' })))
    expect(thrown).toMatchObject({ code, sqlstate: shown })
    expect(thrown.message).toContain(text)
  })

  test('notices are dropped', async () => {
    const { port } = await scriptedUpstream(async (peer) => {
      peer.send(notice('injected'))
      await acceptScram(peer)
      peer.send(notice('injected too'), AUTHENTICATION_OK, SESSION)
    })
    const upstream = await connect(port)
    expect(upstream.notices).toEqual([])
    upstream.socket.destroy()
  })
})

describe('invariant 7: malformed messages of an upstream', () => {
  test.each([
    ['a negative length', Buffer.from([0x45, 0xff, 0xff, 0xff, 0xff])],
    ['a length of 3', Buffer.from([0x45, 0, 0, 0, 3])],
    ['a giant error', Buffer.from([0x45, 0x3f, 0xff, 0xff, 0xff])],
    ['a giant authentication request', Buffer.from([0x52, 0, 1, 0, 0])],
    ['an error cut short', frame('E', 'SFATAL\0C57P03')],
    ['an error without its end', frame('E', 'SFATAL\0')],
    ['an error with bytes behind its end', frame('E', 'SFATAL\0\0x')],
    ['an empty error', frame('E')],
    ['a notice cut short', frame('N', 'M')],
    ['an empty authentication request', frame('R')],
    ['mechanisms without end', frame('R', 10, 'SCRAM-SHA-256\0')],
    ['no mechanisms', frame('R', 10)],
    ['twenty mechanisms', sasl(...Array.from({ length: 20 }, () => 'SCRAM-SHA-256'))],
    ['ReadyForQuery at once', READY],
    ['a parameter at once', parameter('a', 'b')],
    ['rows', frame('D', 0)],
    ['HTTP', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')],
  ])('%s', async (_name, bytes) => {
    const thrown = await refusal(afterStartup(bytes))
    expect(thrown).toMatchObject({ code: 'upstream_unreachable', sqlstate: '08006' })
    expect(thrown.message).toMatch(/^cannot connect to "shop": it sent a/)
  })

  test.each([
    ['a parameter of one string', frame('S', 'a\0')],
    ['a parameter of three', frame('S', 'a\0b\0c\0')],
    ['a short key', frame('K', 1)],
    ['a key of 300 bytes', frame('K', 1, Buffer.alloc(300))],
    ['ReadyForQuery without a status', frame('Z')],
    ['ReadyForQuery in a transaction', frame('Z', 'T')],
    ['a second request', sasl('SCRAM-SHA-256')],
    ['an authentication request of 4 KiB', Buffer.from([0x52, 0, 0, 0x20, 0])],
  ])('after the login: %s', async (_name, bytes) => {
    const thrown = await refusal(afterLogin(bytes, SESSION))
    expect(thrown).toMatchObject({ code: 'upstream_unreachable', sqlstate: '08006' })
  })

  test('invariant 39: any bytes of an upstream end in an error, at once, and leave nothing open', async () => {
    const junk = fc.uint8Array({ minLength: 1, maxLength: 300 })
    const typed = fc
      .tuple(fc.constantFrom('R', 'E', 'N', 'S', 'K', 'Z'), junk)
      .map(([type, body]) => frame(type, Buffer.from(body)))
    const stream = fc.array(fc.oneof(typed, junk.map(Buffer.from)), { minLength: 1, maxLength: 6 })
    const end = async (peer: Peer, chunks: Buffer[]) => {
      peer.send(...chunks)
      peer.socket.end()
    }
    let chunks: Buffer[] = []
    const [before, after] = await Promise.all([
      scriptedUpstream(async (peer) => {
        await peer.startup()
        await end(peer, chunks)
      }),
      scriptedUpstream(async (peer) => {
        await acceptScram(peer)
        await end(peer, [AUTHENTICATION_OK, ...chunks])
      }),
    ])
    await fc.assert(
      fc.asyncProperty(stream, async (bytes) => {
        chunks = bytes
        await expect(connect(before.port)).rejects.toBeInstanceOf(AccessError)
        await expect(connect(after.port)).rejects.toBeInstanceOf(AccessError)
      }),
      { numRuns: 150 },
    )
    await Promise.all([before.allClosed(), after.allClosed()])
  })
})
