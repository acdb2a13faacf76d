import { afterEach, expect, test } from 'vitest'
import { cancelUpstream } from '../../src/upstream/cancel.ts'
import { closeScriptedUpstreams, databaseConfig, scriptedUpstream } from './scripted-upstream.ts'

afterEach(closeScriptedUpstreams)

const KEY = { processId: 4711, secret: Buffer.from([1, 2, 3, 4]) }
const target = (port: number) => ({ alias: 'shop', config: databaseConfig(port) })

test('a CancelRequest is sent whole, and the end waited for', async () => {
  let ended = false
  let sent = ''
  const upstream = await scriptedUpstream(async (peer) => {
    sent = (await peer.startup()).toString('hex')
    ended = true
    peer.socket.end()
  })
  await cancelUpstream(target(upstream.port), KEY, 5_000)
  expect(ended).toBe(true)
  expect(sent).toBe('04d2162e0000126701020304')
  await upstream.allClosed()
})

test('an upstream that resets the connection has taken it too', async () => {
  const upstream = await scriptedUpstream(async (peer) => {
    await peer.startup()
    peer.socket.resetAndDestroy()
  })
  await cancelUpstream(target(upstream.port), KEY, 5_000)
})

test('an upstream that never closes is given up', async () => {
  const upstream = await scriptedUpstream(async (peer) => void (await peer.startup()))
  // On a busy machine a short time may be over while it connects.
  for (const within of [100, 1_000, 10_000]) {
    const given = await cancelUpstream(target(upstream.port), KEY, within).catch((error: unknown) => error)
    expect(given).toMatchObject({ code: 'upstream_unreachable' })
    const { message } = given as Error
    if (message.endsWith('while connecting') && within < 10_000) continue
    expect(message).toBe(
      `cannot connect to "shop": no answer from 127.0.0.1:${upstream.port} within ${within / 1_000} s, while cancelling`,
    )
    break
  }
  await upstream.allClosed()
})

test('nothing is sent where there is no key', async () => {
  const upstream = await scriptedUpstream(async () => {})
  await cancelUpstream(target(upstream.port), { processId: 0, secret: Buffer.alloc(0) }, 100)
  expect(upstream.connections()).toBe(0)
})
