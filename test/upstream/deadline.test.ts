import { getEventListeners } from 'node:events'
import { afterEach, describe, expect, test } from 'vitest'
import type { DatabaseConfig } from '../../src/config/schema.ts'
import { AccessError } from '../../src/errors.ts'
import { AT_ONCE } from '../support/at-once.ts'
import { connect, refusal } from './refusal.ts'
import {
  AUTHENTICATION_OK,
  acceptScram,
  afterLogin,
  closeScriptedUpstreams,
  KEY,
  type Peer,
  parameter,
  SESSION,
  scriptedUpstream,
} from './scripted-upstream.ts'

afterEach(closeScriptedUpstreams)

describe('time', () => {
  const quick: Partial<DatabaseConfig> = { connect_timeout: 150 }
  /** Milliseconds; a busy machine may not get as far as the silence within the first. */
  const patience = [150, 600, 2_400]

  test.each<[string, Partial<DatabaseConfig>, (peer: Peer) => Promise<void>, string]>([
    [
      'says nothing to a request for TLS',
      { tls: { mode: 'require' } },
      async (peer) => void (await peer.read(8)),
      'negotiating TLS',
    ],
    [
      'stops in the TLS handshake',
      { tls: { mode: 'require' } },
      async (peer) => {
        await peer.read(8)
        peer.send(Buffer.from('S'))
        await peer.read(100_000)
      },
      'negotiating TLS',
    ],
    ['says nothing to the StartupMessage', {}, async (peer) => void (await peer.startup()), 'logging in'],
    ['stops after the login', {}, afterLogin(KEY), 'logging in'],
  ])('an upstream that %s is given up after connect_timeout', async (_name, change, script, stage) => {
    let message = ''
    let within = 0
    for (within of patience) {
      const thrown = await refusal(script, { connect_timeout: within, ...change })
      expect(thrown).toMatchObject({ code: 'upstream_unreachable', sqlstate: '08006' })
      message = thrown.message
      if (message.endsWith(stage)) break
    }
    expect(message).toMatch(
      new RegExp(`no answer from 127\\.0\\.0\\.1:\\d+ within ${within / 1_000} s, while ${stage}$`),
    )
  })

  test('invariant 7: an upstream that drips one byte at a time is given up after connect_timeout too', async () => {
    const thrown = await refusal(async (peer) => {
      await acceptScram(peer)
      peer.send(AUTHENTICATION_OK)
      while (peer.socket.writable) {
        for (const byte of parameter('a', 'b'))
          await new Promise((next) => peer.socket.write(Buffer.from([byte]), () => setTimeout(next, 5)))
      }
    }, quick)
    expect(thrown.message).toContain('within 0.15 s')
  })

  test('the caller gives up: its reason is the error, and the socket is closed', async () => {
    const controller = new AbortController()
    const draining = new AccessError('draining', 'pgusher is shutting down')
    const thrown = await refusal(
      async (peer) => {
        await peer.startup()
        controller.abort(draining)
      },
      {},
      { signal: controller.signal },
    )
    expect(thrown).toBe(draining)
  })

  test('a signal that is aborted already opens nothing', async () => {
    const upstream = await scriptedUpstream(async () => {})
    const signal = AbortSignal.abort(new Error('gone'))
    await expect(connect(upstream.port, {}, { signal })).rejects.toThrow('the attempt was given up')
    expect(upstream.connections()).toBe(0)
  })

  test('nothing of ours stays on a signal that lives on', async () => {
    const { signal } = new AbortController()
    const { port } = await scriptedUpstream(afterLogin(SESSION))
    const upstream = await connect(port, {}, { signal })
    upstream.socket.destroy()
    expect(getEventListeners(signal, 'abort')).toEqual([])
  })
})

describe('an upstream that is not there', () => {
  test('refuses', async () => {
    const upstream = await scriptedUpstream(async () => {})
    await upstream.close()
    await expect(connect(upstream.port)).rejects.toMatchObject({
      code: 'upstream_unreachable',
      message: `cannot connect to "shop": connection refused by 127.0.0.1:${upstream.port}`,
    })
  })

  test('has no name', async () => {
    const thrown = await connect(5432, { host: 'pg.invalid' }).catch((thrown: Error) => thrown)
    expect(thrown).toMatchObject({ code: 'upstream_unreachable' })
    expect((thrown as Error).message).toMatch(/the host name pg\.invalid (does not resolve|cannot be resolved now)/)
  })

  test('has no Unix socket', async () => {
    await expect(connect(5432, { host: '/nonexistent' })).rejects.toThrow(
      'cannot connect to "shop": there is no socket /nonexistent/.s.PGSQL.5432',
    )
  })

  test.each(['require', 'disable'] as const)('resets each connection at once (TLS: %s)', async (mode) => {
    const begun = performance.now()
    const thrown = await refusal(async (peer) => void peer.socket.resetAndDestroy(), { tls: { mode } })
    expect(thrown).toMatchObject({ code: 'upstream_unreachable', sqlstate: '08006' })
    expect(thrown.message).toMatch(/closed the connection/)
    expect(performance.now() - begun).toBeLessThan(AT_ONCE)
  })

  test('goes away in the middle of the login', async () => {
    const thrown = await refusal(async (peer) => {
      await peer.startup()
      peer.socket.end()
    })
    expect(thrown.message).toBe('cannot connect to "shop": it closed the connection during the login')
    const reset = await refusal(async (peer) => {
      await peer.startup()
      peer.socket.resetAndDestroy()
    })
    expect(reset.message).toMatch(/closed the connection while logging in$/)
  })
})
