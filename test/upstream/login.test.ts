import { getEventListeners, once } from 'node:events'
import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import { connectUpstream, ignoreSocketError } from '../../src/upstream/connect.ts'
import { createCa } from '../support/certificates.ts'
import { causes, connect, refusal } from './refusal.ts'
import {
  AUTHENTICATION_OK,
  acceptScram,
  acceptTls,
  afterLogin,
  afterStartup,
  CREDENTIAL,
  closeScriptedUpstreams,
  databaseConfig,
  error,
  frame,
  KEY,
  notice,
  type Peer,
  parameter,
  READY,
  SESSION,
  sasl,
  scriptedUpstream,
} from './scripted-upstream.ts'

afterEach(closeScriptedUpstreams)

describe('a login', () => {
  test('yields what the upstream said, paused and with nothing of ours on the socket', async () => {
    const { port } = await scriptedUpstream(
      afterLogin(parameter('client_encoding', 'UTF8'), notice('hello'), KEY, READY, notice('behind')),
    )
    const upstream = await connect(port)
    expect(upstream.parameterStatus).toEqual(new Map([['client_encoding', 'UTF8']]))
    expect(upstream.backendKey).toEqual({ processId: 4711, secret: Buffer.from([0, 0, 0, 99]) })
    expect(upstream.transactionStatus).toBe('I')
    expect(upstream.notices).toEqual([notice('hello')])
    expect(upstream.rest).toEqual(notice('behind'))
    expect(upstream.address).toEqual({ host: '127.0.0.1', port })
    const { socket } = upstream
    expect(socket.isPaused()).toBe(true)
    expect(socket.listeners('error')).toEqual([ignoreSocketError])
    for (const event of ['data', 'readable', 'close', 'connect', 'timeout', 'drain']) {
      expect(getEventListeners(socket, event)).toEqual([])
    }
    socket.destroy()
  })

  test('works whatever chunks it arrives in', async () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 20 })
    const check = async (sizes: number[]) => {
      const { port, close } = await scriptedUpstream(async (peer) => {
        await acceptScram(peer)
        const bytes = Buffer.concat([AUTHENTICATION_OK, notice('n'), SESSION])
        for (let offset = 0, i = 0; offset < bytes.length; i++) {
          const size = sizes[i % sizes.length] ?? 1
          // A write each turn, so that chunks stay chunks.
          await new Promise((written) => peer.socket.write(bytes.subarray(offset, offset + size), written))
          offset += size
        }
      })
      const upstream = await connect(port)
      expect(upstream.parameterStatus.get('server_version')).toBe('18.0')
      expect(upstream.notices).toHaveLength(1)
      upstream.socket.destroy()
      await close()
    }
    await fc.assert(fc.asyncProperty(sizes, check), { numRuns: 15 })
  })

  test('invariant 5: sends one StartupMessage of protocol 3.0 with exactly the given parameters', async () => {
    let sent = ''
    const { port } = await scriptedUpstream(async (peer) => {
      sent = (await peer.startup()).toString('latin1')
      peer.send(error({ S: 'FATAL', C: '57P03', M: 'x' }))
    })
    const parameters = new Map([
      ['role', 'shop_migrator'],
      ['application_name', 'run 1'],
    ])
    const target = { alias: 'shop', config: databaseConfig(port), dbname: 'orders' }
    await connectUpstream(target, CREDENTIAL, parameters, { replication: 'database' }).catch(() => {})
    expect(sent).toBe(
      '\0\x03\0\0user\0pgu_test\0database\0orders\0replication\0database\0role\0shop_migrator\0application_name\0run 1\0\0',
    )
  })

  test.each([['user'], ['database'], ['replication'], ['']])(
    'a parameter %j is refused before anything is opened',
    async (name) => {
      const upstream = await scriptedUpstream(async () => {})
      const target = { alias: 'shop', config: databaseConfig(upstream.port), dbname: 'shop' }
      await expect(connectUpstream(target, CREDENTIAL, new Map([[name, 'x']]))).rejects.toMatchObject({
        code: 'internal_error',
      })
      await expect(connectUpstream(target, CREDENTIAL, new Map([['a', 'b\0user\0postgres']]))).rejects.toThrow('NUL')
      await expect(
        connectUpstream(target, CREDENTIAL, new Map([['options', 'x'.repeat(10_000)]])),
      ).rejects.toMatchObject({
        code: 'protocol_violation',
        sqlstate: '08P01',
      })
      expect(upstream.connections()).toBe(0)
    },
  )
})

describe('the method of authentication', () => {
  test.each([
    ['cleartext', frame('R', 3), 'password (cleartext)'],
    ['md5', frame('R', 5, 'salt'), 'method md5'],
    ['GSS', frame('R', 7), 'method gss'],
    ['one that nobody knows', frame('R', 99), 'method number 99'],
    ['none (trust)', AUTHENTICATION_OK, 'trust'],
    ['SASL without SCRAM', sasl('OAUTHBEARER'), 'OAUTHBEARER'],
    ['SASL with channel binding only, without TLS', sasl('SCRAM-SHA-256-PLUS'), 'SCRAM-SHA-256-PLUS'],
  ])('%s is refused, with the reason for the operator alone', async (_name, request, reason) => {
    const thrown = await refusal(afterStartup(request, SESSION))
    expect(thrown).toMatchObject({ code: 'upstream_auth', sqlstate: '08006' })
    expect(thrown.message).toMatch(/"shop".*the operator finds the reason in the log/)
    expect(causes(thrown)).toContain(reason)
    expect(causes(thrown)).toContain('pg_hba.conf must say scram-sha-256')
  })

  test('no password is ever sent to an upstream that asks for one', async () => {
    let after = Buffer.alloc(0)
    await refusal(async (peer) => {
      await peer.startup()
      peer.socket.on('data', (chunk) => {
        after = Buffer.concat([after, chunk])
      })
      peer.send(frame('R', 3))
      await once(peer.socket, 'close')
    })
    expect(after).toHaveLength(0)
  })

  test('an upstream that skips its own proof is refused', async () => {
    const skipFinal = await refusal(async (peer) => {
      await peer.startup()
      peer.send(sasl('SCRAM-SHA-256'))
      await peer.message()
      peer.send(AUTHENTICATION_OK, SESSION)
    })
    expect(skipFinal.code).toBe('upstream_auth')
    const wrongProof = await refusal(async (peer) => {
      await peer.startup()
      peer.send(sasl('SCRAM-SHA-256'))
      const nonce = /r=([^,]+)/.exec((await peer.message()).toString())?.[1]
      const { salt, iterations } = CREDENTIAL.secret
      peer.send(frame('R', 11, `r=${nonce}x,s=${salt.toString('base64')},i=${iterations}`))
      await peer.message()
      peer.send(frame('R', 12, `v=${Buffer.alloc(32).toString('base64')}`), AUTHENTICATION_OK, SESSION)
    })
    expect(wrongProof.code).toBe('upstream_auth')
    expect(causes(wrongProof)).toContain('does not know the verifier')
  })

  test('parameters other than the minted ones are refused before a proof is sent', async () => {
    const thrown = await refusal(async (peer) => {
      await peer.startup()
      peer.send(sasl('SCRAM-SHA-256'))
      const nonce = /r=([^,]+)/.exec((await peer.message()).toString())?.[1]
      peer.send(frame('R', 11, `r=${nonce}x,s=${CREDENTIAL.secret.salt.toString('base64')},i=1999999999`))
    })
    expect(thrown.code).toBe('upstream_auth')
    expect(causes(thrown)).toContain('not the one that was minted')
  })

  test('channel binding is used inside TLS, and its absence is told to an upstream that does not offer it', async () => {
    const ca = await createCa()
    const tls = await ca.issue({ cn: 'pg', ips: ['127.0.0.1'] })
    const flags: string[] = []
    const script = (offer: boolean) => async (peer: Peer) => {
      const inside = await acceptTls(peer, tls)
      flags.push(await acceptScram(inside, offer ? tls : undefined))
      inside.send(AUTHENTICATION_OK, SESSION)
    }
    for (const offer of [true, false]) {
      const { port } = await scriptedUpstream(script(offer))
      const upstream = await connect(port, { tls: { mode: 'require' } })
      upstream.socket.destroy()
    }
    expect(flags).toEqual(['p=tls-server-end-point', 'y'])
  })
})

describe('after the login', () => {
  test("PostgreSQL's own refusal is passed on with its SQLSTATE", async () => {
    const denied = error({ S: 'FATAL', C: '42501', M: 'permission denied to set role "shop_migrator"' })
    const role = await refusal(afterLogin(denied))
    expect(role).toMatchObject({ code: 'upstream_auth', sqlstate: '42501' })
    expect(role.message).toBe('"shop" refused the session: permission denied to set role "shop_migrator"')
    const full = await refusal(
      afterLogin(error({ S: 'FATAL', C: '53300', M: 'too many connections for role "pgu_x"' })),
    )
    expect(full).toMatchObject({ code: 'upstream_unreachable', sqlstate: '53300' })
  })

  test('its text is bounded and has no control characters', async () => {
    const thrown = await refusal(afterLogin(error({ C: '3D000', M: `a\r\nb\u001b[2J${'x'.repeat(20_000)}` })))
    expect(thrown.sqlstate).toBe('3D000')
    expect(thrown.message.length).toBeLessThan(1100)
    expect(thrown.message).toContain('a b [2Jxxx')
  })

  test('invariant 7: a refusal without SQLSTATE or text is one as well', async () => {
    const thrown = await refusal(afterLogin(frame('E', '\0')))
    expect(thrown).toMatchObject({ code: 'upstream_unreachable', sqlstate: '08006' })
    expect(thrown.message).toBe('"shop" refused the session: without a reason')
  })

  test.each([
    ['notices', notice('again')],
    ['long notices', notice('x'.repeat(32_000))],
    ['parameters', parameter('same', 'again')],
  ])('%s without end are cut off', async (_name, message) => {
    const thrown = await refusal(async (peer) => {
      await acceptScram(peer)
      peer.send(AUTHENTICATION_OK)
      while (peer.socket.writable) {
        if (!peer.socket.write(message)) await once(peer.socket, 'drain')
      }
    })
    expect(thrown.message).toContain('without end')
  })

  test('invariant 7: different parameters without end are cut off', async () => {
    const many = Array.from({ length: 300 }, (_, i) => parameter(`p${i}`, 'v'))
    expect((await refusal(afterLogin(...many, SESSION))).message).toContain('parameters without end')
  })
})
