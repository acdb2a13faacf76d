import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AccessError } from '../../src/errors.ts'
import { cancelRequest, gssencRequest, sslRequest, startupMessage } from '../../src/wire/frontend.ts'
import { needsNegotiation, parseStartupPacket, type StartupMessage } from '../../src/wire/startup.ts'

/** The packet's body: what follows its length. */
const body = (packet: Buffer): Buffer => packet.subarray(4)

function startup(parameters: Record<string, string>, minor = 0): StartupMessage {
  const packet = parseStartupPacket(body(startupMessage(new Map(Object.entries(parameters)), minor)))
  if (packet.kind !== 'startup') throw new Error(`got ${packet.kind}`)
  return packet
}

function refusal(bytes: Buffer): AccessError {
  try {
    parseStartupPacket(bytes)
  } catch (error) {
    if (error instanceof AccessError) return error
    throw error
  }
  throw new Error('was taken')
}

/** A StartupMessage's body from raw text, with `|` for NUL. */
const raw = (text: string, version = 0x00030000): Buffer => {
  const code = Buffer.alloc(4)
  code.writeUInt32BE(version)
  return Buffer.concat([code, Buffer.from(text.replaceAll('|', '\0'), 'latin1')])
}

const text = fc.string({ unit: 'binary', minLength: 1, maxLength: 40 }).filter((value) => !value.includes('\0'))
const name = text.filter((value) => Buffer.byteLength(value) <= 63)

describe('StartupMessage', () => {
  test('what the encoder writes is what the parser reads', () => {
    const parameters = fc.dictionary(
      text.filter((key) => !key.startsWith('_pq_.') && key !== 'user' && key !== 'database'),
      text,
    )
    fc.assert(
      fc.property(parameters, name, fc.option(name), (others, user, database) => {
        const given = { ...others, user, ...(database === null ? {} : { database }) }
        expect(Object.fromEntries(startup(given).parameters)).toEqual({ ...given, database: database ?? user })
      }),
    )
  })

  test('random bytes are read or refused with a protocol violation, never anything else', () => {
    const anything = fc.oneof(
      fc.uint8Array({ maxLength: 200 }),
      fc.uint8Array({ maxLength: 200 }).map((rest) => Buffer.concat([raw('user|'), rest])),
    )
    fc.assert(
      fc.property(anything, (bytes) => {
        try {
          const packet = parseStartupPacket(Buffer.from(bytes))
          if (packet.kind === 'startup') expect(packet.parameters.get('user')).not.toBe('')
        } catch (error) {
          expect(error).toBeInstanceOf(AccessError)
          expect((error as AccessError).code).toBe('protocol_violation')
        }
      }),
      { numRuns: 1_000 },
    )
  })

  test('invariant 5: an absent or empty database is the name of the user', () => {
    expect(startup({ user: 'ci' }).parameters.get('database')).toBe('ci')
    expect(startup({ user: 'ci', database: '' }).parameters.get('database')).toBe('ci')
  })

  test.each([
    ['a second user', raw('user|a|user|b||'), 'StartupMessage names the parameter "user" twice', '08P01'],
    ['a second option', raw('user|a|_pq_.x|1|_pq_.x|2||'), 'names the parameter "_pq_.x" twice', '08P01'],
    ['no user', raw('database|a||'), 'StartupMessage names no user', '28000'],
    ['an empty user', raw('user|||'), 'StartupMessage names no user', '28000'],
    ['a long user', raw(`user|${'u'.repeat(64)}||`), 'the user name has 64 bytes', '42622'],
    ['a long database', raw(`user|u|database|${'d'.repeat(64)}||`), 'the database name has 64 bytes', '42622'],
    ['no terminator', raw('user|a|'), 'a string in it has no terminator', '08P01'],
    ['a name without a value', raw('user|a|database|'), 'a string in it has no terminator', '08P01'],
    ['bytes behind the terminator', raw('user|a||x'), 'StartupMessage is malformed: it is 1 bytes too long', '08P01'],
    ['invalid UTF-8', raw('user|\xff||'), 'is not valid UTF-8', '22021'],
    ['an overlong form', raw('user|\xc0\xaf||'), 'is not valid UTF-8', '22021'],
  ])('invariant 5: %s is refused', (_, bytes, message, sqlstate) => {
    const error = refusal(bytes)
    expect(error.code).toBe('protocol_violation')
    expect(error.message).toContain(message)
    expect(error.sqlstate).toBe(sqlstate)
  })

  test('a byte order mark is part of a name, not swallowed', () => {
    expect(startup({ user: '\ufeffci' }).parameters.get('user')).toBe('\ufeffci')
  })

  test('63 bytes are counted, not characters', () => {
    expect(startup({ user: 'ä'.repeat(31) }).parameters.get('user')).toHaveLength(31)
    expect(() => startup({ user: 'ä'.repeat(32) })).toThrow('64 bytes')
  })

  test.each([
    [0, 0, false],
    [1, 0, true],
    [2, 2, false],
    [3, 2, true],
    [9999, 2, true],
  ])('invariant 25: of minor version %i we speak %i', (requested, spoken, negotiated) => {
    const packet = startup({ user: 'ci' }, requested)
    expect(packet).toMatchObject({ minor: spoken, requestedMinor: requested })
    expect(needsNegotiation(packet)).toBe(negotiated)
  })

  test('invariant 25: options of the protocol are listed for NegotiateProtocolVersion and are no parameters', () => {
    const packet = startup({ user: 'ci', '_pq_.command_tag_format': 'fqn', '_pq_.': '' })
    expect(packet.unknownOptions).toEqual(['_pq_.command_tag_format', '_pq_.'])
    expect([...packet.parameters.keys()]).toEqual(['user', 'database'])
    expect(needsNegotiation(packet)).toBe(true)
  })

  test.each([2, 4, 0xffff])('protocol major version %i is refused with what we speak', (major) => {
    const error = refusal(raw('', major * 0x10000))
    expect(error).toMatchObject({ code: 'protocol_violation', sqlstate: '0A000' })
    expect(error.message).toBe(`unsupported frontend protocol ${major}.0: pgusher speaks 3.0 and 3.2`)
  })
})

describe('the requests without parameters', () => {
  test('SSLRequest and GSSENCRequest are eight bytes, no more', () => {
    expect(parseStartupPacket(body(sslRequest()))).toEqual({ kind: 'ssl' })
    expect(parseStartupPacket(body(gssencRequest()))).toEqual({ kind: 'gss' })
    expect(refusal(Buffer.concat([body(sslRequest()), Buffer.from([0])])).message).toContain('SSLRequest is malformed')
    expect(refusal(Buffer.concat([body(gssencRequest()), Buffer.from([0])])).message).toContain('GSSENCRequest is malf')
  })

  test('invariant 25: CancelRequest keeps process id and a key of 4 to 256 bytes', () => {
    fc.assert(
      fc.property(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), fc.uint8Array({ maxLength: 300 }), (pid, key) => {
        const bytes = body(cancelRequest(pid, Buffer.from(key)))
        if (key.length < 4 || key.length > 256)
          expect(refusal(bytes).message).toContain(`its key has ${key.length} bytes`)
        else expect(parseStartupPacket(bytes)).toEqual({ kind: 'cancel', processId: pid, key: Buffer.from(key) })
      }),
    )
  })

  test('a packet too short for a code is refused', () => {
    for (const length of [0, 1, 2, 3]) expect(refusal(Buffer.alloc(length)).message).toContain('ends in the middle')
  })
})
