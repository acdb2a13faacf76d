import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type ChannelBinding, createScramClient, deriveScramKeys, formatVerifier } from '../../src/sasl/scram.ts'
import { createScramServer } from './scram-server.ts'

const password = fc.string({
  unit: fc.integer({ min: 0x20, max: 0x7e }).map((c) => String.fromCharCode(c)),
  minLength: 1,
})
const salt = fc.uint8Array({ minLength: 1, maxLength: 32 }).map((bytes) => Buffer.from(bytes))
const iterations = fc.integer({ min: 1, max: 64 })
const channel = fc.uint8Array({ minLength: 16, maxLength: 64 }).map((bytes) => Buffer.from(bytes))

const secretOf = (of: { password: string; salt: Buffer; iterations: number }) => ({
  ...deriveScramKeys(of.password, of.salt, of.iterations),
  salt: of.salt,
  iterations: of.iterations,
})

/** RFC 7677, section 3. */
describe('the example of RFC 7677', () => {
  const vector = { password: 'pencil', salt: Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64'), iterations: 4096 }
  const serverFirst = 'r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096'
  const clientFor = () => createScramClient(secretOf(vector), { username: 'user', nonce: 'rOprNGfwEbeRWgbNEkqO' })

  test('gives the same messages, byte for byte', () => {
    const client = clientFor()
    expect(client.mechanism).toBe('SCRAM-SHA-256')
    expect(client.initialResponse()).toBe('n,,n=user,r=rOprNGfwEbeRWgbNEkqO')
    expect(client.continue(serverFirst)).toBe(
      'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=',
    )
    expect(() => client.finish('v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=')).not.toThrow()
  })

  test('a signature may have extensions behind it, and nothing else', () => {
    const signature = 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4='
    const finish = (message: string) => () => {
      const client = clientFor()
      client.initialResponse()
      client.continue(serverFirst)
      client.finish(message)
    }
    expect(finish(`${signature},x=1`)).not.toThrow()
    expect(finish(`${signature},`)).toThrow('malformed')
    expect(finish(`${signature},more`)).toThrow('malformed')
  })

  test.each(['v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=', 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=', 'v='])(
    'the server signature %s is refused',
    (signature) => {
      const client = clientFor()
      client.initialResponse()
      client.continue(serverFirst)
      expect(() => client.finish(signature)).toThrow('does not know the verifier')
    },
  )

  test('the verifier has the form of pg_authid.rolpassword', () => {
    expect(formatVerifier(secretOf(vector))).toBe(
      'SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=',
    )
  })
})

describe('against an independent server', () => {
  test('any password, salt and count log in, with and without channel binding', () => {
    fc.assert(
      fc.property(
        password,
        salt,
        iterations,
        fc.option(channel, { nil: undefined }),
        (password, salt, iterations, data) => {
          const binding: ChannelBinding = data && { type: 'tls-server-end-point', data }
          const server = createScramServer({ password, salt, iterations, ...(data && { channel: data }) })
          const client = createScramClient(secretOf({ password, salt, iterations }), { channelBinding: binding })
          client.finish(server.final(client.continue(server.first(client.initialResponse()))))
          expect(server.flag()).toBe(data ? 'p=tls-server-end-point' : 'n')
          expect(client.mechanism).toBe(data ? 'SCRAM-SHA-256-PLUS' : 'SCRAM-SHA-256')
        },
      ),
    )
  })

  test('a client that could bind says y where the server does not offer it, and a server that does notices', () => {
    const of = { password: 'x', salt: Buffer.from('salt'), iterations: 1 }
    const honest = createScramServer(of)
    const client = createScramClient(secretOf(of), { channelBinding: 'not-offered' })
    client.finish(honest.final(client.continue(honest.first(client.initialResponse()))))
    expect(honest.flag()).toBe('y')
    const stripped = createScramServer({ ...of, channel: Buffer.from('certificate hash') })
    const deceived = createScramClient(secretOf(of), { channelBinding: 'not-offered' })
    expect(() => stripped.first(deceived.initialResponse())).toThrow('downgrade')
  })

  test('another channel than the server sees is refused by the server', () => {
    const of = { password: 'x', salt: Buffer.from('salt'), iterations: 1 }
    const server = createScramServer({ ...of, channel: Buffer.from('certificate of the server') })
    const data = Buffer.from('certificate of somebody in between')
    const client = createScramClient(secretOf(of), { channelBinding: { type: 'tls-server-end-point', data } })
    expect(() => server.final(client.continue(server.first(client.initialResponse())))).toThrow('channel binding')
  })

  test('a server with another password is found out, whatever it signs', () => {
    fc.assert(
      fc.property(password, password, salt, iterations, (ours, theirs, salt, iterations) => {
        fc.pre(ours !== theirs)
        const client = createScramClient(secretOf({ password: ours, salt, iterations }))
        const server = createScramServer({ password: theirs, salt, iterations })
        const clientFinal = client.continue(server.first(client.initialResponse()))
        expect(() => server.final(clientFinal)).toThrow('wrong proof')
        expect(() => client.finish(`v=${Buffer.alloc(32, 7).toString('base64')}`)).toThrow('does not know the verifier')
      }),
    )
  })
})

describe('invariant 7: a hostile server-first-message is refused', () => {
  const secret = secretOf({ password: 'minted', salt: Buffer.from('0123456789abcdef'), iterations: 1 })
  const s = secret.salt.toString('base64')
  const ours = 'ournonce'
  const reply = (text: string) => {
    const client = createScramClient(secret, { nonce: ours })
    client.initialResponse()
    return () => client.continue(text)
  }

  test.each([
    ['a mandatory extension', `m=x,r=${ours}1,s=${s},i=1`, 'extension'],
    ['a nonce that is not ours', `r=other1234,s=${s},i=1`, 'does not extend'],
    ['our nonce given back', `r=${ours},s=${s},i=1`, 'does not extend'],
    ['an overlong nonce', `r=${ours}${'x'.repeat(600)},s=${s},i=1`, 'overlong'],
    ['an overlong message', `r=${ours}1,s=${s},i=1,${'x'.repeat(3000)}`, 'overlong'],
    ['a nonce of other characters', `r=${ours}\u00e9\n,s=${s},i=1`, 'malformed'],
    ['iterations that were not minted', `r=${ours}1,s=${s},i=4096`, 'iteration'],
    ['two thousand million iterations', `r=${ours}1,s=${s},i=2000000000`, 'iteration'],
    ['iterations written otherwise', `r=${ours}1,s=${s},i=01`, 'iteration'],
    ['another salt', `r=${ours}1,s=${Buffer.from('another salt').toString('base64')},i=1`, 'salt'],
    ['a missing attribute', `r=${ours}1,i=1`, 'attribute s'],
    ['nothing', '', 'attribute r'],
  ])('%s', (_name, message, reason) => {
    expect(reply(message)).toThrow(reason)
  })

  test('extension fields behind the known ones are let be', () => {
    expect(reply(`r=${ours}1,s=${s},i=1,x=later,y=too`)).not.toThrow()
  })

  test('no message of any kind gets anything but a ScramError', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 200 }), (text) => {
        expect(reply(text)).toThrow(expect.objectContaining({ name: 'ScramError' }))
      }),
    )
  })
})

test('the exchange ends where the server says that it refuses it', () => {
  const secret = secretOf({ password: 'x', salt: Buffer.from('salt'), iterations: 1 })
  const client = createScramClient(secret, { nonce: 'n' })
  client.initialResponse()
  client.continue(`r=n1,s=${secret.salt.toString('base64')},i=1`)
  expect(() => client.finish('e=invalid-proof')).toThrow('refused the SCRAM exchange')
})

test('steps out of order are refused', () => {
  const secret = secretOf({ password: 'x', salt: Buffer.from('salt'), iterations: 1 })
  const client = createScramClient(secret)
  expect(() => client.finish('v=')).toThrow('out of order')
  client.initialResponse()
  expect(() => client.initialResponse()).toThrow('out of order')
})

test('a password that would need SASLprep is refused and not shown', () => {
  expect(() => deriveScramKeys('pässword', Buffer.from('salt'), 1)).toThrow(
    /^a SCRAM password must be printable ASCII$/,
  )
})
