import { once } from 'node:events'
import type { Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { describe, expect, test } from 'vitest'
import type { AccessError } from '../../src/errors.ts'
import type { HandshakeOptions, HandshakeResult } from '../../src/frontend/handshake.ts'
import { ConnectionClosedError } from '../../src/frontend/message-reader.ts'
import { cancelRequest, gssencRequest, sslRequest, startupMessage } from '../../src/wire/frontend.ts'
import { type Listener, listen, read, readAll } from './listener.ts'

const CI = startupMessage(new Map([['user', 'ci']]))

/** A listener whose handshakes are looked at one by one, in the order of their connections. */
async function handshakes(
  options: Partial<HandshakeOptions> = {},
): Promise<Listener & { next(): Promise<HandshakeResult>; refusal(): Promise<AccessError | ConnectionClosedError> }> {
  const settled: Promise<HandshakeResult>[] = []
  let wake = () => {}
  const listener = await listen(async (handshaken) => {
    settled.push(handshaken)
    wake()
    await handshaken.catch(() => {})
  }, options)
  async function next(): Promise<HandshakeResult> {
    for (;;) {
      const first = settled.shift()
      if (first !== undefined) return first
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
  }
  const refusal = () =>
    next().then(
      (result) => expect.unreachable(`was taken: ${result.kind}`),
      (error) => error,
    )
  return Object.assign(listener, { next, refusal })
}

async function startupOf(listener: { next(): Promise<HandshakeResult> }) {
  const result = await listener.next()
  if (result.kind !== 'startup') throw new Error(`got ${result.kind}`)
  return result
}

describe('TLS', () => {
  test.each(['TLSv1.2', 'TLSv1.3'] as const)('%s behind SSLRequest', async (version) => {
    await using listener = await handshakes()
    const client = await listener.connectTls({ minVersion: version, maxVersion: version })
    client.write(CI)
    const { startup, tlsProtocol, tlsSeconds, stream, reader } = await startupOf(listener)
    expect(startup.parameters).toEqual(new Map(Object.entries({ user: 'ci', database: 'ci' })))
    expect(tlsProtocol).toBe(version)
    expect(tlsSeconds).toBeGreaterThan(0)
    expect(client.authorized).toBe(true)
    client.end('rest')
    expect(reader.detach().toString() + (await text(stream))).toBe('rest')
  })

  test('ALPN is optional behind SSLRequest, and libpq 17 sends it', async () => {
    await using listener = await handshakes()
    const client = await listener.connectTls({ ALPNProtocols: ['postgresql'] })
    client.write(CI)
    await startupOf(listener)
    expect(client.alpnProtocol).toBe('postgresql')
  })

  test.each([false, true])('ALPN of another protocol is refused, direct: %s', async (direct) => {
    await using listener = await handshakes()
    await expect(listener.connectTls({ ALPNProtocols: ['h2'], direct })).rejects.toThrow(/no application protocol/)
    expect(await listener.refusal()).toMatchObject({
      code: 'protocol_violation',
      message: expect.stringMatching(/^TLS handshake failed: /),
    })
  })

  test('direct TLS: the first byte is part of the ClientHello', async () => {
    await using listener = await handshakes()
    const client = await listener.connectTls({ direct: true, ALPNProtocols: ['postgresql'] })
    client.write(CI)
    expect((await startupOf(listener)).tlsProtocol).toBe('TLSv1.3')
  })

  test.each([
    ['no ALPN', undefined],
    ['http/1.1', ['http/1.1']],
    ['what curl and browsers offer', ['h2', 'http/1.1']],
  ])('invariant 2: direct TLS with %s is HTTP, and never PostgreSQL', async (_, ALPNProtocols) => {
    await using listener = await handshakes()
    const client = await listener.connectTls({ direct: true, ...(ALPNProtocols && { ALPNProtocols }) })
    // A StartupMessage changes nothing: it stays unread for whoever speaks HTTP.
    client.write(CI)
    const { kind, stream } = await listener.next()
    expect(kind).toBe('http')
    expect(await read(stream, CI.length)).toEqual(CI)
  })

  test('direct TLS with both protocols is PostgreSQL', async () => {
    await using listener = await handshakes()
    const client = await listener.connectTls({ direct: true, ALPNProtocols: ['http/1.1', 'postgresql'] })
    client.write(CI)
    await startupOf(listener)
    expect(client.alpnProtocol).toBe('postgresql')
  })

  test('behind SSLRequest there is PostgreSQL only', async () => {
    await using listener = await handshakes()
    await expect(listener.connectTls({ ALPNProtocols: ['http/1.1'] })).rejects.toThrow(/no application protocol/)
    expect(await listener.refusal()).toMatchObject({ code: 'protocol_violation' })
    const client = await listener.connectTls()
    client.write('GET / HTTP/1.1\r\n\r\n')
    expect(await listener.refusal()).toMatchObject({ message: expect.stringContaining('invalid length') })
  })

  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'a client that closes because it does not trust the certificate, %s',
    async (maxVersion) => {
      await using listener = await handshakes()
      await expect(listener.connectTls({ ca: [], maxVersion })).rejects.toThrow('unable to verify')
      // Node's client checks the certificate late and closes without an alert: in TLS 1.2 the handshake is over by then.
      const error = await listener.refusal()
      if (error instanceof ConnectionClosedError) expect(error.partial).toBe(false)
      else expect(error.message).toBe('TLS handshake failed: the client broke it off')
    },
  )

  test('no TLS configured: SSLRequest is answered N, direct TLS is closed', async () => {
    await using listener = await handshakes({ secureContext: () => undefined, plaintext: 'allow' })
    const client = listener.connect()
    client.write(sslRequest())
    expect((await read(client, 1)).toString()).toBe('N')
    client.write(CI)
    expect((await startupOf(listener)).tlsProtocol).toBeUndefined()
    await expect(listener.connectTls({ direct: true, ALPNProtocols: ['postgresql'] })).rejects.toThrow()
    expect(await listener.refusal()).toMatchObject({ message: 'direct TLS on a listener without TLS' })
  })

  test('the certificate is asked for anew for each connection', async () => {
    let asked = 0
    const { secureContext } = await import('./listener.ts')
    await using listener = await handshakes({
      secureContext: () => {
        asked++
        return secureContext
      },
    })
    for (const count of [1, 2]) {
      const client = await listener.connectTls()
      client.write(CI)
      await startupOf(listener)
      expect(asked).toBe(count)
    }
  })

  test('a broken record after the handshake ends the stream instead of hanging it', async () => {
    await using listener = await handshakes()
    const raw = listener.connect()
    raw.write(sslRequest())
    await read(raw, 1)
    const { connect } = await import('node:tls')
    const client = connect({ socket: raw, ca: listener.ca.cert, servername: 'localhost' })
    client.on('error', () => {})
    await once(client, 'secureConnect')
    client.write(CI)
    const { reader, stream } = await startupOf(listener)
    const pending = reader.readMessage([0x70], 100)
    raw.write(Buffer.from(`1703030011${'00'.repeat(17)}`, 'hex'))
    await expect(pending).rejects.toBeInstanceOf(ConnectionClosedError)
    expect(stream.destroyed).toBe(true)
  })

  test('garbage in place of a ClientHello is refused', async () => {
    await using listener = await handshakes()
    const client = listener.connect()
    client.write(sslRequest())
    await read(client, 1)
    client.write('no TLS at all')
    expect(await listener.refusal()).toMatchObject({
      code: 'protocol_violation',
      message: expect.stringMatching(/^TLS handshake failed: /),
    })
  })
})

describe('invariant 1: bytes in front of the encrypted stream', () => {
  const smuggled = startupMessage(new Map([['user', 'postgres']]))
  test.each([
    ['SSLRequest', sslRequest(), smuggled],
    ['SSLRequest', sslRequest(), Buffer.from([0])],
    ['GSSENCRequest', gssencRequest(), smuggled],
    ['GSSENCRequest', gssencRequest(), sslRequest()],
  ])('behind %s close the connection without an answer', async (request, first, second) => {
    await using listener = await handshakes({ plaintext: 'allow' })
    const client = listener.connect()
    client.write(Buffer.concat([first, second]))
    expect(await listener.refusal()).toMatchObject({
      code: 'protocol_violation',
      message: `received unencrypted data after ${request}`,
    })
    expect((await readAll(client)).bytes).toHaveLength(0)
    expect(listener.open.size).toBe(0)
  })
})

describe('invariant 2: each request at most once', () => {
  test.each([
    ['SSLRequest', sslRequest()],
    ['GSSENCRequest', gssencRequest()],
  ])('a second %s in the clear', async (name, request) => {
    await using listener = await handshakes({ secureContext: () => undefined, plaintext: 'allow' })
    const client = listener.connect()
    client.write(request)
    expect((await read(client, 1)).toString()).toBe('N')
    client.write(request)
    expect(await listener.refusal()).toMatchObject({
      code: 'protocol_violation',
      message: `a second ${name} on one connection`,
    })
  })

  test.each([
    ['SSLRequest', false, sslRequest()],
    ['GSSENCRequest', false, gssencRequest()],
    ['SSLRequest', true, sslRequest()],
    ['GSSENCRequest', true, gssencRequest()],
  ])('%s inside TLS, direct: %s', async (name, direct, request) => {
    await using listener = await handshakes()
    const client = await listener.connectTls({ direct, ALPNProtocols: ['postgresql'] })
    client.write(request)
    expect(await listener.refusal()).toMatchObject({
      code: 'protocol_violation',
      message: `${name} on a connection that is encrypted already`,
    })
  })

  test('GSSENCRequest, then SSLRequest, as libpq with gssencmode=prefer', async () => {
    await using listener = await handshakes()
    const raw = listener.connect()
    raw.write(gssencRequest())
    expect((await read(raw, 1)).toString()).toBe('N')
    raw.write(sslRequest())
    expect((await read(raw, 1)).toString()).toBe('S')
    const { connect } = await import('node:tls')
    const client = connect({ socket: raw, ca: listener.ca.cert, servername: 'localhost' })
    client.write(CI)
    expect((await startupOf(listener)).tlsProtocol).toBe('TLSv1.3')
    client.destroy()
  })
})

describe('plain TCP', () => {
  test('invariant 9: the StartupMessage is refused, and the text says which error counts', async () => {
    await using listener = await handshakes()
    listener.connect().write(CI)
    const error = (await listener.refusal()) as AccessError
    expect(error).toMatchObject({ code: 'tls_required', sqlstate: '28000' })
    expect(error.message).toMatch(/^TLS is required: use sslmode=verify-full\. If another error came before this one/)
  })

  test('is taken where the listener allows it', async () => {
    await using listener = await handshakes({ plaintext: 'allow' })
    listener.connect().write(CI)
    expect(await startupOf(listener)).toMatchObject({ tlsProtocol: undefined, tlsSeconds: undefined })
  })

  test('a CancelRequest is taken: libpq 15 sends it in the clear', async () => {
    await using listener = await handshakes()
    const key = Buffer.from('0011223344556677', 'hex')
    listener.connect().write(cancelRequest(-5, key))
    expect(await listener.next()).toMatchObject({ kind: 'cancel', processId: -5, key })
  })

  test('a CancelRequest inside TLS is taken as well', async () => {
    await using listener = await handshakes()
    const client = await listener.connectTls()
    client.write(cancelRequest(7, Buffer.alloc(256, 1)))
    expect(await listener.next()).toMatchObject({ kind: 'cancel', processId: 7, stream: { encrypted: true } })
  })

  test('an HTTP request is told where it is', async () => {
    await using listener = await handshakes()
    listener.connect().write('GET / HTTP/1.1\r\n\r\n')
    expect(await listener.refusal()).toMatchObject({
      message: 'invalid length of the startup packet: "GET " is how another protocol begins',
    })
  })
})

describe('invariant 25: NegotiateProtocolVersion', () => {
  test('is sent for newer minor versions and unknown options, before anything else', async () => {
    await using listener = await handshakes({ plaintext: 'allow' })
    const client = listener.connect()
    const parameters = new Map(Object.entries({ user: 'ci', '_pq_.x': '1' }))
    client.write(startupMessage(parameters, 9))
    expect((await startupOf(listener)).startup.minor).toBe(2)
    const frame = await read(client, 20)
    expect(frame.toString('latin1')).toBe('v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0')
  })

  test('is not sent where client and pgusher agree', async () => {
    await using listener = await handshakes({ plaintext: 'allow' })
    const client = listener.connect()
    client.write(startupMessage(new Map([['user', 'ci']]), 2))
    const { stream } = await startupOf(listener)
    stream.end()
    expect((await readAll(client)).bytes).toHaveLength(0)
  })
})

describe('clients that stop or vanish', () => {
  /** Where a client can stop, as bytes sent in the clear. */
  const stops: [string, Buffer][] = [
    ['before the first byte', Buffer.alloc(0)],
    ['after 4 bytes', sslRequest().subarray(0, 4)],
    ['after 7 bytes', sslRequest().subarray(0, 7)],
    ['after S', sslRequest()],
    ['in the ClientHello', Buffer.concat([Buffer.from('16030102000100', 'hex')])],
  ]

  test.each(stops)('%s: the caller ends it by destroying the socket', async (_, bytes) => {
    const accepted: Socket[] = []
    const results: Promise<unknown>[] = []
    await using listener = await listen(async (handshaken, _stream, socket) => {
      accepted.push(socket)
      results.push(handshaken.catch((error: unknown) => error))
    })
    const client = listener.connect()
    client.write(bytes)
    if (bytes.length === 8) await read(client, 1)
    while (accepted.length === 0 || (accepted[0]?.bytesRead ?? 0) < bytes.length) await new Promise(setImmediate)
    accepted[0]?.destroy()
    expect(await results[0]).toBeInstanceOf(Error)
    expect(listener.open.size).toBeLessThanOrEqual(1)
    if (!client.closed) await once(client, 'close')
    expect(listener.open.size).toBe(0)
  })

  test.each(stops)('%s: a reset rejects and crashes nothing', async (_, bytes) => {
    const accepted: Socket[] = []
    const results: Promise<unknown>[] = []
    await using listener = await listen(async (handshaken, _stream, socket) => {
      accepted.push(socket)
      results.push(handshaken.catch((error: unknown) => error))
    })
    const client = listener.connect()
    client.write(bytes)
    if (bytes.length === 8) await read(client, 1)
    while (accepted.length === 0 || (accepted[0]?.bytesRead ?? 0) < bytes.length) await new Promise(setImmediate)
    client.resetAndDestroy()
    expect(await results[0]).toBeInstanceOf(Error)
  })

  test('invariant 8: two hundred of them are waited for by nobody', async () => {
    await using listener = await listen(async (handshaken) => {
      const result = await handshaken.catch(() => undefined)
      if (result?.kind === 'startup') result.stream.end('welcome')
    })
    const healthy = async (): Promise<void> => {
      const client = await listener.connectTls()
      client.write(CI)
      expect((await readAll(client)).bytes.toString()).toBe('welcome')
    }
    for (let index = 0; index < 170; index++) listener.connect().write(stops[index % stops.length]?.[1] ?? '')
    for (let index = 0; index < 30; index++) (await listener.connectTls()).write(CI.subarray(0, 10))
    while (listener.open.size < 200) await new Promise(setImmediate)
    await healthy()
    // It waited for none of them, who are all still there.
    expect(listener.open.size).toBeGreaterThanOrEqual(200)
  })
})
