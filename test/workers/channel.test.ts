import fc from 'fast-check'
import { expect, test } from 'vitest'
import { AccessError, DENIAL_SQLSTATE, type DenialCode } from '../../src/errors.ts'
import { createChannel } from '../../src/workers/channel.ts'
import { toError, toSent } from '../../src/workers/sent-error.ts'
import { portPair } from './ports.ts'

interface Calls {
  echo(value: unknown): unknown
  held(argument: undefined): string
  refuse(code: DenialCode): void
  bad(argument: undefined): unknown
  note(value: number): void
}

function connected() {
  const { ports, cut } = portPair()
  const { promise: held, resolve: release } = Promise.withResolvers<string>()
  const notes: number[] = []
  const failures: string[] = []
  createChannel<object, Calls>(
    ports[1],
    {
      echo: (value) => value,
      held: () => held,
      refuse(code) {
        throw new AccessError(code, 'no', { hint: 'do this', cause: new Error('secret of a driver') })
      },
      bad: () => () => {},
      note(value) {
        if (value < 0) throw new Error('negative')
        notes.push(value)
      },
    },
    (name, error) => failures.push(`${name}: ${(error as Error).message}`),
  )
  return { channel: createChannel<Calls, object>(ports[0], {}, () => {}), cut, release, notes, failures }
}

test('whatever is plain data comes back as it was, each answer to its question', async () => {
  const { channel } = connected()
  const value = fc.oneof(
    fc.jsonValue(),
    fc.uint8Array(),
    fc.array(fc.tuple(fc.string(), fc.string())).map((pairs) => new Map(pairs)),
    fc.constant(undefined),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(value, { maxLength: 8 }), async (values) => {
      expect(await Promise.all(values.map((one) => channel.call('echo', one)))).toEqual(values)
    }),
  )
})

test('an answer that takes longer is overtaken, and what is told arrives in order', async () => {
  const { channel, release, notes, failures } = connected()
  const slow = channel.call('held', undefined)
  for (const value of [1, -1, 2, 3]) channel.tell('note', value)
  expect(await channel.call('echo', 'quick')).toBe('quick')
  release('slow')
  expect(await slow).toBe('slow')
  expect(notes).toEqual([1, 2, 3])
  expect(failures).toEqual(['note: negative'])
})

test('a refusal is thrown on this side as it was on the other, with the cause for the log only', async () => {
  const { channel } = connected()
  const error = await channel.call('refuse', 'limit_sessions').catch((thrown: unknown) => thrown)
  expect(error).toBeInstanceOf(AccessError)
  expect(error).toMatchObject({ code: 'limit_sessions', sqlstate: '53300', message: 'no', hint: 'do this' })
  expect((error as AccessError).cause).toMatchObject({ name: 'Error', message: 'secret of a driver' })
})

test('an error survives the way, whatever is in it', () => {
  const text = fc.string()
  const optional = fc.option(text, { nil: undefined })
  const codes = fc.constantFrom(...(Object.keys(DENIAL_SQLSTATE) as DenialCode[]))
  fc.assert(
    fc.property(codes, text, optional, optional, optional, (code, message, detail, hint, cause) => {
      const error = new AccessError(code, message, {
        ...(detail === undefined ? {} : { detail }),
        ...(hint === undefined ? {} : { hint }),
        ...(cause === undefined ? {} : { cause: new Error(cause) }),
      })
      const copy = toError(structuredClone(toSent(error)))
      expect({ ...copy, message: copy.message }).toEqual({ ...error, message })
      expect(copy.cause === undefined).toBe(cause === undefined)
    }),
  )
})

test('what is no plain data costs its own call and nothing else', async () => {
  const { channel } = connected()
  const good = channel.call('echo', 1)
  await expect(channel.call('echo', () => {})).rejects.toThrow('could not be cloned')
  await expect(channel.call('bad', undefined)).rejects.toMatchObject({ code: 'internal_error' })
  expect(await good).toBe(1)
  expect(await channel.call('echo', 2)).toBe(2)
})

test('when the other side is gone, whoever waits is told, and whoever asks', async () => {
  const { channel, cut } = connected()
  const waiting = channel.call('held', undefined)
  cut()
  await expect(waiting).rejects.toMatchObject({ code: 'draining', sqlstate: '57P03' })
  await expect(channel.call('echo', 1)).rejects.toMatchObject({ code: 'draining' })
  channel.tell('note', 1)
})
