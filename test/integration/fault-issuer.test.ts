/** An issuer that is down, slow, sends garbage or changes its keys: what the job sees, how soon, and that others do not notice. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DEFAULT_CLAIMS } from '../../src/cli/demo/ci-claims.ts'
import { AT_ONCE } from '../support/at-once.ts'
import { RULES, type Stage } from '../support/pgusher.ts'
import { query, type RawClient, rawSession, terminate } from '../support/raw-client.ts'
import {
  AUDIENCE,
  json,
  type KeyServer,
  registered,
  type SigningKey,
  signingKey,
  startKeyServer,
} from '../support/tokens.ts'
import { startWatchedStage, type WatchedStage } from '../support/watched-stage.ts'

const WAYS = ['down', 'slow', 'html', 'huge', 'empty', 'cut', 'rotating'] as const
type Way = (typeof WAYS)[number]

interface FaultyIssuer {
  key: SigningKey
  server: KeyServer
}

let watched: WatchedStage
let stage: Stage
const issuers = {} as Record<Way, FaultyIssuer>

/** Keys of which the answer is longer than is read. */
const HUGE = JSON.stringify({ keys: [], padding: 'x'.repeat(1024 * 1024) })

async function misbehave(way: Way, server: KeyServer): Promise<void> {
  if (way === 'down') await server.close()
  if (way === 'slow') server.instead = () => {}
  if (way === 'html') server.instead = (_, response) => void response.end('<html>Bad gateway</html>')
  if (way === 'huge') server.instead = (_, response) => void response.end(HUGE)
  if (way === 'empty')
    server.instead = ({ url }, response) => json(response, url === '/jwks' ? { keys: [] } : discovery(server))
  if (way === 'cut') {
    server.instead = (_, response) => {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': '500' })
      response.write('{"issuer":', () => response.destroy())
    }
  }
}

const discovery = ({ url, jwksUrl }: KeyServer) => ({ issuer: url, jwks_uri: jwksUrl })

beforeAll(async () => {
  // One for all: making an RSA key takes a tenth of a second.
  const key = signingKey('first', 'RS256')
  for (const way of WAYS) {
    const server = await startKeyServer([key.jwk])
    issuers[way] = { key, server }
    await misbehave(way, server)
  }
  const [, , , nightly] = RULES
  watched = await startWatchedStage({
    issuers: Object.fromEntries(
      WAYS.map((way) => [way, { preset: 'jenkins', url: issuers[way].server.url, audience: AUDIENCE }]),
    ),
    rules: [...RULES, ...WAYS.map((way) => ({ ...nightly!, name: `nightly-${way}`, issuer: way }))],
  })
  stage = watched.stage
})
afterAll(async () => {
  await watched[Symbol.asyncDispose]()
  await Promise.all(WAYS.map((way) => issuers[way].server.close()))
})

const tokenOf = (way: Way, key = issuers[way].key): Promise<string> =>
  key.sign({ ...DEFAULT_CLAIMS.jenkins(), ...registered(issuers[way].server.url, Math.floor(Date.now() / 1000)) })

const session = async (way: Way, key?: SigningKey): Promise<RawClient> =>
  rawSession(stage, { token: await tokenOf(way, key), user: 'shop_reader' })

async function refusal(way: Way, key?: SigningKey): Promise<{ told: string; after: number }> {
  const at = performance.now()
  const told = await session(way, key).then(
    () => 'let in',
    (error: Error) => error.message,
  )
  return { told, after: performance.now() - at }
}

// First: within the half minute behind the start.
test('keys that change: sessions go on, a new key within 30 s of the last fetch is refused and said why, the old one stays good', async () => {
  using running = await session('rotating')
  const { key: old, server } = issuers.rotating
  const next = signingKey('second', 'RS256')
  server.keys = [next.jwk]
  const fetches = server.requests.length
  const refused = await Promise.all(Array.from({ length: 20 }, () => refusal('rotating', next)))
  for (const { told } of refused) expect(told).toMatch(/^E 28P01 /)
  // Herds with keys that nobody knows cost one fetch in 30 s, and there was one at the start.
  expect(server.requests.length).toBe(fetches)
  expect(await running.ask(query('select 1'))).toContain('D 1')
  using again = await session('rotating', old)
  for (const client of [running, again]) {
    client.send(terminate)
    await client.rest()
  }
  await watched.nothingLeft()
})

test('down, slow or garbage: 57P03 for the jobs of this issuer alone, within the 5 s that a refresh has', async () => {
  const slow = refusal('slow')
  using others = await rawSession(stage, { token: await stage.token() })
  expect(await others.ask(query('select 1'))).toContain('D 1')
  for (const way of ['down', 'html', 'huge', 'empty', 'cut'] as const) {
    const { told, after } = await refusal(way)
    expect([way, told]).toEqual([way, expect.stringMatching(/^E 57P03 /)])
    expect(after).toBeLessThan(AT_ONCE)
  }
  const { told, after } = await slow
  expect(told).toMatch(/^E 57P03 /)
  expect(after).toBeLessThan(5_000 + AT_ONCE)
  others.send(terminate)
  await others.rest()
  await watched.nothingLeft()
})

test('down after its keys were fetched: new sessions go on with them', async () => {
  await issuers.rotating.server.close()
  const client = await session('rotating')
  client.send(terminate)
  await client.rest()
  await watched.nothingLeft()
})
