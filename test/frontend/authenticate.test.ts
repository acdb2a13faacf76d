import { once } from 'node:events'
import type { Socket } from 'node:net'
import { describe, expect, test } from 'vitest'
import { AccessError, asAccessError } from '../../src/errors.ts'
import { type AuthenticateOptions, type Presented, requestToken } from '../../src/frontend/authenticate.ts'
import { ConnectionClosedError } from '../../src/frontend/message-reader.ts'
import { sendError } from '../../src/frontend/respond.ts'
import { authenticationOk } from '../../src/wire/backend.ts'
import { parseErrorFields } from '../../src/wire/error-response.ts'
import { passwordMessage, saslInitialResponse, saslResponse, startupMessage } from '../../src/wire/frontend.ts'
import { frame } from '../../src/wire/writer.ts'
import { type Listener, listen, read, readAll } from './listener.ts'

const REFUSED = new AccessError('token_expired', 'token expired 5 minutes ago', { detail: 'exp', hint: 'ask again' })
const OAUTH: AuthenticateOptions = {
  oauthbearer: true,
  challenge: { issuerUrl: 'https://ci.example', scope: 'openid' },
}
const PASSWORD: AuthenticateOptions = { oauthbearer: false, challenge: undefined }

/** Takes connections as a session would, refuses every token, and keeps what was presented. */
async function gate(options: AuthenticateOptions, plaintext: 'allow' | 'refuse' = 'refuse') {
  const presented: Presented[] = []
  const failures: unknown[] = []
  const listener = await listen(
    async (handshaken, stream) => {
      try {
        const result = await handshaken
        if (result.kind !== 'startup') throw new Error('a cancel')
        const shown = await requestToken(result, options)
        presented.push(shown)
        await shown.refuse(REFUSED, 'D-7Q2MK4')
      } catch (error) {
        failures.push(error)
        if (error instanceof ConnectionClosedError) stream().destroy()
        else await sendError(stream(), asAccessError(error))
      }
    },
    { plaintext },
  )
  return { listener, presented, failures }
}

async function start(listener: Listener): Promise<Socket> {
  const client = await listener.connectTls()
  client.write(startupMessage(new Map([['user', 'ci']])))
  return client
}

/** One message of the backend. */
async function message(client: Socket): Promise<{ type: string; body: Buffer }> {
  const header = await read(client, 5)
  const length = header.readInt32BE(1) - 4
  return { type: header.toString('latin1', 0, 1), body: length === 0 ? Buffer.alloc(0) : await read(client, length) }
}

async function errorOf(client: Socket): Promise<Map<string, string>> {
  const { type, body } = await message(client)
  expect(type).toBe('E')
  return parseErrorFields(body)
}

describe('password', () => {
  test('the token arrives trimmed at its end, and the client gets reason and denial id', async () => {
    const { listener, presented } = await gate(PASSWORD)
    await using _ = listener
    const client = await start(listener)
    expect(await message(client)).toEqual({ type: 'R', body: Buffer.from([0, 0, 0, 3]) })
    client.write(passwordMessage('aaa.bbb.ccc \t\r\n'))
    expect(Object.fromEntries(await errorOf(client))).toEqual({
      S: 'FATAL',
      V: 'FATAL',
      C: '28P01',
      M: 'token expired 5 minutes ago [D-7Q2MK4]',
      D: 'exp',
      H: 'ask again',
    })
    expect(presented).toMatchObject([{ token: 'aaa.bbb.ccc', mechanism: 'password' }])
    expect((await readAll(client)).ended).toBe(true)
  })

  test('a token of 64 KiB passes whole', async () => {
    const { listener, presented } = await gate(PASSWORD)
    await using _ = listener
    const client = await start(listener)
    await message(client)
    client.write(passwordMessage('x'.repeat(64 * 1024)))
    await errorOf(client)
    expect(presented[0]?.token).toHaveLength(64 * 1024)
  })

  test.each([
    ['empty', passwordMessage(''), 'token_missing', 'no token: the password of the connection string is empty'],
    [
      'white space',
      passwordMessage(' \n'),
      'token_missing',
      'no token: the password of the connection string is empty',
    ],
    ['too long', passwordMessage('x'.repeat(64 * 1024 + 1)), 'token_malformed', 'the token is longer than 65536 bytes'],
    ['not UTF-8', frame(0x70, Buffer.from('ff00', 'hex')), 'token_malformed', 'it is not valid UTF-8'],
    ['not terminated', frame(0x70, Buffer.from('abc')), 'protocol_violation', 'a string in it has no terminator'],
    ['without a body', frame(0x70), 'protocol_violation', 'a string in it has no terminator'],
    ['two strings', frame(0x70, Buffer.from('a\0b\0')), 'protocol_violation', 'bytes follow its terminator'],
    [
      'a Query instead',
      frame(0x51, Buffer.from('select 1\0')),
      'protocol_violation',
      "message type 'Q' is not allowed here",
    ],
  ])('%s is refused', async (_name, bytes, code, text) => {
    const { listener, presented, failures } = await gate(PASSWORD)
    await using _ = listener
    const client = await start(listener)
    await message(client)
    client.write(bytes)
    const fields = await errorOf(client)
    expect(fields.get('M')).toContain(text)
    expect(failures).toMatchObject([{ code, sqlstate: fields.get('C') }])
    expect(presented).toEqual([])
  })

  test('a missing token tells what the job has to do', async () => {
    const { listener } = await gate(PASSWORD)
    await using _ = listener
    const client = await start(listener)
    await message(client)
    client.write(passwordMessage(''))
    expect((await errorOf(client)).get('M')).toContain('permissions: id-token: write')
  })

  test('a client that closes at the password request, as psql without a password', async () => {
    const { listener, failures } = await gate(PASSWORD)
    await using _ = listener
    const client = await start(listener)
    await message(client)
    client.end()
    if (!client.closed) await once(client, 'close')
    expect(failures).toMatchObject([{ name: 'ConnectionClosedError', reason: 'eof', partial: false }])
  })
})

describe('OAUTHBEARER', () => {
  const initial = (auth: string) => saslInitialResponse('OAUTHBEARER', Buffer.from(`n,,\x01auth=${auth}\x01\x01`))
  const CHALLENGE = {
    status: 'invalid_token',
    'openid-configuration': 'https://ci.example/.well-known/openid-configuration',
    scope: 'openid',
  }

  async function offered(client: Socket): Promise<void> {
    expect(await message(client)).toEqual({ type: 'R', body: Buffer.from('\0\0\0\x0aOAUTHBEARER\0\0') })
  }

  async function challenged(client: Socket): Promise<void> {
    const { type, body } = await message(client)
    expect([type, body.readInt32BE()]).toEqual(['R', 11])
    expect(JSON.parse(body.toString('utf8', 4))).toEqual(CHALLENGE)
  }

  test('invariant 10: a refused token gets the challenge first and then the error', async () => {
    const { listener, presented } = await gate(OAUTH)
    await using _ = listener
    const client = await start(listener)
    await offered(client)
    client.write(initial('Bearer aaa.bbb.ccc'))
    await challenged(client)
    client.write(saslResponse(Buffer.from('\x01')))
    expect((await errorOf(client)).get('M')).toBe('token expired 5 minutes ago [D-7Q2MK4]')
    expect(presented).toMatchObject([{ token: 'aaa.bbb.ccc', mechanism: 'oauthbearer' }])
    expect((await readAll(client)).ended).toBe(true)
  })

  test('invariant 10: an empty token gets the challenge and an error, never AuthenticationOk', async () => {
    const { listener, presented, failures } = await gate(OAUTH)
    await using _ = listener
    const client = await start(listener)
    await offered(client)
    client.write(initial(''))
    await challenged(client)
    client.write(saslResponse(Buffer.from('\x01')))
    const { bytes } = await readAll(client)
    expect(bytes.toString('latin1', 0, 1)).toBe('E')
    expect(bytes.includes(authenticationOk())).toBe(false)
    expect(presented).toEqual([])
    expect(failures).toMatchObject([{ code: 'token_missing' }])
  })

  test('a client that answers the challenge by nonsense is refused for its token all the same', async () => {
    const { listener } = await gate(OAUTH)
    await using _ = listener
    const client = await start(listener)
    await offered(client)
    client.write(initial('Bearer x'))
    await challenged(client)
    client.write(saslResponse(Buffer.alloc(70_000)))
    expect((await errorOf(client)).get('M')).toBe('token expired 5 minutes ago [D-7Q2MK4]')
  })

  test('a client that does not answer the challenge gets the error after two seconds', async () => {
    const { listener } = await gate(OAUTH)
    await using _ = listener
    const client = await start(listener)
    await offered(client)
    client.write(initial('Bearer x'))
    await challenged(client)
    expect((await errorOf(client)).get('M')).toBe('token expired 5 minutes ago [D-7Q2MK4]')
    expect((await readAll(client)).ended).toBe(true)
  })

  test('without initial data the server asks for it by an empty challenge', async () => {
    const { listener, presented } = await gate(OAUTH)
    await using _ = listener
    const client = await start(listener)
    await offered(client)
    client.write(saslInitialResponse('OAUTHBEARER', undefined))
    expect(await message(client)).toEqual({ type: 'R', body: Buffer.from([0, 0, 0, 11]) })
    client.write(saslResponse(Buffer.from('n,,\x01auth=Bearer x\x01\x01')))
    await challenged(client)
    expect(presented).toMatchObject([{ token: 'x' }])
  })

  test.each([
    [
      'another mechanism',
      saslInitialResponse('SCRAM-SHA-256', Buffer.from('n,,')),
      'a SASL mechanism that was not offered',
    ],
    [
      'a length past the end',
      frame(0x70, Buffer.from('OAUTHBEARER\0\0\0\0\x09n,,')),
      'it ends in the middle of a field',
    ],
    [
      'a negative length',
      frame(0x70, Buffer.from('OAUTHBEARER\0'), Buffer.from('fffffffe', 'hex')),
      'it ends in the middle',
    ],
    ['bytes behind its data', frame(0x70, Buffer.from('OAUTHBEARER\0\0\0\0\x01nX')), 'it is too long'],
    ['a cleartext password', passwordMessage('aaa.bbb.ccc'), 'a SASL mechanism that was not offered'],
    ['no OAUTHBEARER message', saslInitialResponse('OAUTHBEARER', Buffer.from('hello')), 'its header is not n,,'],
  ])('%s is a protocol violation', async (_name, bytes, text) => {
    const { listener, failures } = await gate(OAUTH)
    await using _ = listener
    const client = await start(listener)
    await offered(client)
    client.write(bytes)
    expect((await errorOf(client)).get('M')).toContain(text)
    expect(failures).toMatchObject([{ code: 'protocol_violation' }])
  })

  test('invariant 10: is never offered without TLS', async () => {
    const { listener, failures } = await gate(OAUTH, 'allow')
    await using _ = listener
    const client = listener.connect()
    client.write(startupMessage(new Map([['user', 'ci']])))
    expect((await errorOf(client)).get('M')).toBe('OAUTHBEARER is only offered over TLS: use sslmode=verify-full')
    expect(failures).toMatchObject([{ code: 'tls_required' }])
  })
})
