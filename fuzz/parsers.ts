/** What is parsed before anybody is known: startup packets, SASL both ways, the login of PostgreSQL, tokens. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DEFAULT_CLAIMS } from '../src/cli/demo/ci-claims.ts'
import { AccessError } from '../src/errors.ts'
import { sanitiseStartup } from '../src/frontend/sanitise-startup.ts'
import { createVerifier, type Verifier } from '../src/identity/verifier.ts'
import { parseInitialResponse } from '../src/sasl/oauthbearer.ts'
import { createScramClient, ScramError } from '../src/sasl/scram.ts'
import { UpstreamUnusable } from '../src/upstream/failure.ts'
import { decodeLoginMessage } from '../src/upstream/messages.ts'
import { parseErrorFields } from '../src/wire/error-response.ts'
import { parseStartupPacket } from '../src/wire/startup.ts'
import { createScramServer } from '../test/sasl/scram-server.ts'
import { AUDIENCE, issuerConfig, registered, signingKey } from '../test/support/tokens.ts'
import { CREDENTIAL } from '../test/upstream/scripted-upstream.ts'
import { flipBytes, mutateFrames, mutateText } from './mutate.ts'
import { type Budget, type Case, type Outcome, playCases } from './part.ts'
import type { Random } from './random.ts'
import { RECORDED } from './recordings.ts'

/** Runs `work`; the errors that it may throw are its answers, every other one is a crash. */
function refusing(work: () => unknown, ...allowed: readonly (new (...parts: never[]) => Error)[]): boolean {
  try {
    work()
    return true
  } catch (error) {
    if (allowed.some((kind) => error instanceof kind)) return false
    throw error
  }
}

const NAMES = [
  'user',
  'database',
  'options',
  'replication',
  'role',
  '_pq_.x',
  '-c',
  '--',
  'session_authorization',
  '\\ ',
]
const FORBIDDEN = ['role', 'session_authorization', 'is_superuser', 'user', 'database', 'options', 'replication']

function mutatedStartup(random: Random): Buffer {
  const { startup } = random.pick(RECORDED)
  if (random.chance(0.4)) return flipBytes(random, startup, 8)
  const text = mutateText(random, startup.subarray(4).toString('latin1'), NAMES)
  return Buffer.concat([startup.subarray(0, 4), Buffer.from(text, 'latin1')])
}

const playStartup: Case = (random, input) => {
  const packet = mutatedStartup(random)
  input(packet)
  refusing(() => {
    const parsed = parseStartupPacket(packet)
    if (parsed.kind !== 'startup') return
    const { settings } = sanitiseStartup(parsed.parameters, { replicationAllowed: random.chance(0.5) })
    const leaked = FORBIDDEN.find((name) => settings.has(name))
    if (leaked !== undefined) throw new Error(`the setting ${leaked} would go upstream`)
  }, AccessError)
}

const BEARER = 'n,,\x01host=pgusher\x01port=6432\x01auth=Bearer aaa.bbb.ccc\x01\x01'

const playSasl: Case = (random, input) => {
  const response = Buffer.from(mutateText(random, BEARER, ['\x01auth=', 'Bearer ', 'y,,', 'p=', '\x01\x01']), 'latin1')
  input(response)
  refusing(() => parseInitialResponse(response), AccessError)
  const { secret } = CREDENTIAL
  const server = createScramServer(secret)
  const client = createScramClient(secret, {})
  const first = server.first(client.initialResponse())
  const told = random.chance(0.5) ? first : mutateText(random, first, ['r=', 's=', 'i=', 'm=', ','])
  input(told)
  let answer = ''
  const goesOn = refusing(() => {
    answer = client.continue(told)
  }, ScramError)
  // What the client made of a damaged message is no answer to the one that the server sent.
  if (!goesOn || told !== first) return
  const final = server.final(answer)
  const shown = mutateText(random, final, ['v=', 'e='])
  input(shown)
  // Extensions may follow it.
  const same = shown === final || shown.startsWith(`${final},`)
  if (refusing(() => client.finish(shown), ScramError) && !same) {
    throw new Error('a signature was taken that the server did not make')
  }
}

const LOGIN = RECORDED.flatMap(({ login }) => login.down)
const ANY_DOWN = RECORDED.flatMap(({ session }) => session.down)

const playLogin: Case = (random, input) => {
  for (const bytes of mutateFrames(random, random.pick(RECORDED).login.down, [...LOGIN, ...ANY_DOWN])) {
    if (bytes.length < 5) continue
    input(bytes)
    refusing(() => decodeLoginMessage({ type: String.fromCharCode(bytes[0]!), bytes }), UpstreamUnusable, AccessError)
    parseErrorFields(bytes.subarray(5))
  }
}

const ISSUER = 'https://jenkins.fuzz.example'
const HEADERS = [
  '"alg":"none"',
  '"alg":"HS256"',
  '"crit":["x"]',
  '"kid":"first"',
  '"jku":"http://127.0.0.1/"',
  '"b64":false',
]

/** Segments decoded, damaged and encoded again, or the text itself. */
function mutatedToken(random: Random, token: string): string {
  if (random.chance(0.3)) return mutateText(random, token, ['.', '=', '..'])
  const segments = token.split('.')
  const at = random.below(2)
  const text = Buffer.from(segments[at] ?? '', 'base64url').toString()
  segments[at] = Buffer.from(mutateText(random, text, HEADERS)).toString('base64url')
  return segments.join('.')
}

const playToken =
  (verifier: Verifier, token: string): Case =>
  async (random, input) => {
    const presented = mutatedToken(random, token)
    input(presented)
    const taken = await verifier.verify(presented).then(
      () => true,
      (error: unknown) => {
        if (!(error instanceof AccessError) || error.code === 'internal_error') throw error
        if (error.message.includes(presented)) throw new Error('the token stands in its refusal')
        return false
      },
    )
    if (taken && presented !== token) throw new Error('a token was taken that nobody signed')
  }

async function fuzzTokens(budget: Budget, enough: (cases: number) => boolean): Promise<Outcome> {
  const directory = mkdtempSync(join(tmpdir(), 'pgusher-fuzz-'))
  try {
    const key = signingKey('first', 'RS256')
    const path = join(directory, 'jwks.json')
    writeFileSync(path, JSON.stringify({ keys: [key.jwk] }))
    const verifier = createVerifier({
      jenkins: issuerConfig('jenkins', { url: ISSUER, jwks_file: path, audience: AUDIENCE }),
    })
    const claims = { ...DEFAULT_CLAIMS.jenkins(), ...registered(ISSUER, Math.floor(Date.now() / 1000), 3_600) }
    const token = await key.sign(claims)
    await verifier.verify(token)
    const outcome = await playCases('tokens', budget, enough, playToken(verifier, token))
    verifier.close()
    return outcome
  } finally {
    rmSync(directory, { recursive: true })
  }
}

/** Each as often as a tenth of the frames. */
export const PARSERS: Readonly<Record<string, (budget: Budget) => Promise<Outcome>>> = {
  startup: (budget) => playCases('startup', budget, (cases) => cases >= budget.count / 10, playStartup),
  sasl: (budget) => playCases('sasl', budget, (cases) => cases >= budget.count / 10, playSasl),
  login: (budget) => playCases('login', budget, (cases) => cases >= budget.count / 10, playLogin),
  tokens: (budget) => fuzzTokens(budget, (cases) => cases >= budget.count / 10),
}
