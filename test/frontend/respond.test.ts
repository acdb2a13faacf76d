import { describe, expect, test } from 'vitest'
import { AccessError } from '../../src/errors.ts'
import { errorFrame, sendError } from '../../src/frontend/respond.ts'
import { parseErrorFields } from '../../src/wire/error-response.ts'
import { startupMessage } from '../../src/wire/frontend.ts'
import { listen, readAll } from './listener.ts'

const DENIED = new AccessError('no_matching_rule', 'access to "shop" denied', { detail: 'a', hint: 'b' })
const CI = startupMessage(new Map([['user', 'ci']]))

const refusing = () =>
  listen(
    async (handshaken, stream) => {
      await handshaken
      await sendError(stream(), DENIED, 'D-7Q2MK4')
      expect(stream().destroyed).toBe(true)
    },
    { plaintext: 'allow' },
  )

test('MESSAGE carries reason and denial id, DETAIL and HINT what the error has', () => {
  const fields = (error: AccessError, id?: string) =>
    Object.fromEntries(parseErrorFields(errorFrame(error, id).subarray(5)))
  expect(fields(DENIED, 'D-7Q2MK4')).toEqual({
    S: 'FATAL',
    V: 'FATAL',
    C: '42501',
    M: 'access to "shop" denied [D-7Q2MK4]',
    D: 'a',
    H: 'b',
  })
  const cause = new Error('password=secret')
  expect(fields(new AccessError('internal_error', 'oops', { cause }))).toEqual({
    S: 'FATAL',
    V: 'FATAL',
    C: 'XX000',
    M: 'oops',
  })
})

describe('invariant 26: the error arrives, and then FIN and no RST', () => {
  const whole = errorFrame(DENIED, 'D-7Q2MK4')

  test.each([0, 100, 200_000])('in the clear, while the client has sent %i bytes that nobody reads', async (ahead) => {
    await using listener = await refusing()
    const client = listener.connect()
    client.write(Buffer.concat([CI, Buffer.alloc(ahead)]))
    expect(await readAll(client)).toEqual({ bytes: whole, ended: true })
  })

  test.each([0, 100, 200_000])('in TLS, while the client has sent %i bytes that nobody reads', async (ahead) => {
    await using listener = await refusing()
    const client = await listener.connectTls()
    client.write(Buffer.concat([CI, Buffer.alloc(ahead)]))
    expect(await readAll(client)).toEqual({ bytes: whole, ended: true })
  })

  test.each([false, true])('to a client that has closed its own side already, in TLS: %s', async (tls) => {
    await using listener = await refusing()
    const client = tls ? await listener.connectTls() : listener.connect()
    client.end(CI)
    expect(await readAll(client)).toEqual({ bytes: whole, ended: true })
  })
})

describe('clients that do not listen', () => {
  test('one that goes on sending is cut off after a megabyte', async () => {
    const settled = Promise.withResolvers<void>()
    await using listener = await listen(
      async (handshaken, stream) => {
        await handshaken
        await sendError(stream(), DENIED)
        settled.resolve()
      },
      { plaintext: 'allow' },
    )
    const client = listener.connect()
    client.write(Buffer.concat([CI, Buffer.alloc(8 * 1024 * 1024)]))
    await settled.promise
    expect(client.bytesWritten).toBeGreaterThan(1024 * 1024)
    expect(listener.open.size).toBe(0)
  })

  test('one that never closes is cut off after two seconds', async () => {
    const settled = Promise.withResolvers<number>()
    await using listener = await listen(
      async (handshaken, stream) => {
        await handshaken
        const started = performance.now()
        await sendError(stream(), DENIED)
        settled.resolve(performance.now() - started)
      },
      { plaintext: 'allow' },
    )
    const client = listener.connect()
    client.write(CI)
    expect(await settled.promise).toBeGreaterThan(1_500)
  })

  test('a stream that is destroyed already is left alone', async () => {
    await using listener = await listen(
      async (handshaken, stream) => {
        await handshaken
        stream().destroy()
        await sendError(stream(), DENIED)
        await sendError(stream(), DENIED, undefined, 'ERROR')
      },
      { plaintext: 'allow' },
    )
    const client = listener.connect()
    client.write(CI)
    expect((await readAll(client)).bytes).toHaveLength(0)
  })
})

test('an ERROR leaves the stream open', async () => {
  await using listener = await listen(
    async (handshaken, stream) => {
      await handshaken
      await sendError(stream(), DENIED, 'D-7Q2MK4', 'ERROR')
      stream().end('more')
    },
    { plaintext: 'allow' },
  )
  const client = listener.connect()
  client.write(CI)
  const { bytes } = await readAll(client)
  const frame = errorFrame(DENIED, 'D-7Q2MK4', 'ERROR')
  expect(bytes).toEqual(Buffer.concat([frame, Buffer.from('more')]))
})
