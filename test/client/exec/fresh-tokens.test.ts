/** Which token a connection gets: how often the CI is asked, and what happens when it fails. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createFreshTokens } from '../../../src/client/exec/fresh-tokens.ts'
import { choosePasswords } from '../../../src/client/exec/server-passwords.ts'
import { ApiUnavailable, type ServerApi } from '../../../src/client/server-api.ts'
import type { TokenSource } from '../../../src/client/token-source.ts'
import { AccessError } from '../../../src/errors.ts'
import { forged } from '../../support/tokens.ts'

const START = Date.UTC(2026, 10, 21, 9)
beforeEach(() => void vi.useFakeTimers({ toFake: ['Date'], now: START }))
afterEach(() => void vi.useRealTimers())
const later = (seconds: number): void => void vi.setSystemTime(Date.now() + seconds * 1_000)

/** Tokens `1`, `2` … of `life` seconds, told apart by their `jti`. */
function scene({ life = 300, refetchable = true } = {}) {
  let asked = 0
  let failure: Error | undefined
  const stale: string[] = []
  const source: TokenSource = {
    ...{ name: 'the test', preset: 'generic', refetchable, fixedAudience: false },
    async fetch(audience) {
      asked += 1
      await Promise.resolve()
      if (failure !== undefined) throw failure
      const iat = Date.now() / 1_000
      return forged({ alg: 'ES256' }, { iss: 'x', aud: audience, jti: String(asked), iat, exp: iat + life })
    },
  }
  const tokens = createFreshTokens({
    ...{ source, audience: 'a', signal: new AbortController().signal },
    onStale: ({ message }) => void stale.push(message),
  })
  const jti = async (): Promise<string> =>
    (
      JSON.parse(Buffer.from((await tokens.current()).text.split('.')[1] ?? '', 'base64url').toString()) as {
        jti: string
      }
    ).jti
  const fail = (error: Error | undefined): void => {
    failure = error
  }
  return { source, tokens, jti, stale, asked: () => asked, fail }
}

test('connections at the same time ask once', async () => {
  const { jti, asked } = scene()
  expect(await Promise.all([jti(), jti(), jti()])).toEqual(['1', '1', '1'])
  expect(asked()).toBe(1)
})

test.each([
  ['five minutes: a minute', 300, 59, 2],
  ['an hour: a minute', 3_600, 59, 2],
  ['twenty seconds: five', 20, 4, 2],
])('of a token that lives %s is for several connections', async (_name, life, within, beyond) => {
  const { jti } = scene({ life })
  await jti()
  later(within)
  expect(await jti()).toBe('1')
  later(beyond)
  expect(await jti()).toBe('2')
})

test('where the CI fails the last token is used while it lives, and that is said; then the command is told', async () => {
  const { jti, stale, fail } = scene()
  await jti()
  fail(new AccessError('token_missing', 'the CI is down'))
  later(120)
  expect(await jti()).toBe('1')
  expect(stale).toEqual(['the CI is down'])
  later(176)
  await expect(jti()).rejects.toMatchObject({ code: 'token_missing', message: 'the CI is down' })
  fail(new Error('ENOENT'))
  await expect(jti()).rejects.toMatchObject({ code: 'token_missing', message: 'no token from the test: ENOENT' })
  fail(undefined)
  expect(await jti()).not.toBe('1')
})

function apiOf(overrides: Partial<ServerApi> = {}) {
  const returned: string[] = []
  let given = 0
  const api: ServerApi = {
    audiences: async () => ({ audiences: [], tickets: true }),
    async exchange(_token, { database }) {
      given += 1
      const text = `pgut_${given}`
      return { text, expiresAt: Date.now() + 600_000, database, user: 'shop_migrator', rule: 'r' }
    },
    giveBack: async (ticket) => void returned.push(ticket),
    whoami: async () => Promise.reject(new Error('not asked')),
    ...overrides,
  }
  return { api, returned }
}

const wanted = { database: 'shop-prod', user: 'ci' }

test('a ticket is for one database and role; it is renewed while the token lives, and all are given back', async () => {
  const { source, tokens } = scene({ refetchable: false, life: 1_500 })
  const { api, returned } = apiOf()
  const passwords = await choosePasswords({ source, tokens, api, giveBack: api.giveBack, wanted })
  expect(passwords).toMatchObject({ kind: 'ticket', expiresAt: START + 600_000 })
  const shown = async (request = wanted) => await passwords.for(request)
  expect(await shown()).toBe('pgut_1')
  expect(await shown({ ...wanted, user: 'shop_migrator' })).toBe('pgut_1')
  const { text } = await tokens.current()
  expect(await shown({ ...wanted, user: 'shop_reader' })).toBe(text)
  expect(await shown({ ...wanted, database: 'warehouse' })).toBe(text)
  later(541)
  expect(await Promise.all([shown(), shown()])).toEqual(['pgut_2', 'pgut_2'])
  // The token is over now: the last ticket has to do.
  later(1_000)
  expect(await shown()).toBe('pgut_2')
  await passwords.close()
  expect(returned).toEqual(['pgut_1', 'pgut_2'])
})

test.each([
  ['an older server', new ApiUnavailable('it speaks no HTTP on this port'), 'it speaks no HTTP on this port'],
  ['a rule without them', new AccessError('ticket_scope', 'rule "r" gives no tickets'), 'rule "r" gives no tickets'],
  ['a refusal, which the connection will show', new AccessError('no_matching_rule', 'no'), undefined],
])('without a ticket the token is used: %s', async (_name, failure, why) => {
  const { source, tokens } = scene({ refetchable: false })
  const { api } = apiOf({ exchange: async () => Promise.reject(failure) })
  const passwords = await choosePasswords({ source, tokens, api, giveBack: api.giveBack, wanted })
  expect(passwords).toMatchObject({ kind: 'token', why })
  expect(await passwords.for(wanted)).toBe((await tokens.current()).text)
})

test('no exchange is tried where pgusher gives no tickets, since its refusal would be a denial in the audit', async () => {
  const { source, tokens } = scene({ refetchable: false })
  const { api } = apiOf({
    audiences: async () => ({ audiences: [], tickets: false }),
    exchange: async () => Promise.reject(new Error('asked all the same')),
  })
  const passwords = await choosePasswords({ source, tokens, api, giveBack: api.giveBack, wanted })
  expect(passwords).toMatchObject({ kind: 'token', why: 'this pgusher gives none' })
})

test('a server that cannot be reached ends it before the command runs', async () => {
  const { source, tokens } = scene({ refetchable: false })
  const failure = new AccessError('upstream_unreachable', 'connection refused')
  const { api } = apiOf({ audiences: async () => Promise.reject(failure) })
  await expect(choosePasswords({ source, tokens, api, giveBack: api.giveBack, wanted })).rejects.toBe(failure)
})
