/** A token whose job has a window open passes although it is over, and nothing else is forgiven for that. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { githubClaims, gitlabClaims } from '../../src/cli/demo/ci-claims.ts'
import type { IssuerConfig } from '../../src/config/schema.ts'
import { AccessError } from '../../src/errors.ts'
import type { Principal } from '../../src/identity/principal.ts'
import { createVerifier, type Verifier } from '../../src/identity/verifier.ts'
import { ISSUED, issuerConfig, registered, signingKey } from '../support/tokens.ts'

const GITHUB = 'https://token.actions.githubusercontent.com'
const HOUR = 3_600_000
const key = signingKey('k1')
let directory: string
let configs: Record<string, IssuerConfig>
let now = ISSUED * 1000

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'pgusher-outlive-'))
  const jwks_file = join(directory, 'keys.json')
  await writeFile(jwks_file, JSON.stringify({ keys: [key.jwk] }))
  const base = { jwks_file, algorithms: ['ES256' as const] }
  configs = { github: issuerConfig('github-actions', base), gitlab: issuerConfig('gitlab', base) }
})
afterAll(() => rm(directory, { recursive: true }))

function verifier(changes: Partial<IssuerConfig> = {}): Verifier {
  const changed = Object.entries(configs).map(([name, config]) => [name, { ...config, ...changes }] as const)
  return createVerifier(Object.fromEntries(changed), { now: () => now })
}

const github = (claims: Record<string, unknown> = {}) =>
  key.sign({ ...githubClaims(), ...registered(GITHUB), ...claims })

/** `in`, or the code of the refusal. */
async function verdict(subject: Verifier, token: string, mayOutlive: (signed: Principal) => boolean): Promise<string> {
  try {
    await subject.verify(token, { mayOutlive })
    return 'in'
  } catch (error) {
    if (error instanceof AccessError) return error.code
    throw error
  }
}

const yes = () => true
const no = () => false

test('expired or too old, kept or not: it passes where it may, each time anew', async () => {
  for (const token of [
    await github(),
    await key.sign({ ...gitlabClaims(), ...registered('https://gitlab.com', ISSUED, 3600) }),
  ]) {
    const subject = verifier()
    now = ISSUED * 1000
    expect(await verdict(subject, token, no)).toBe('in')
    now = ISSUED * 1000 + 2 * HOUR
    expect(await verdict(subject, token, yes)).toBe('in')
    expect(await verdict(subject, token, no)).toBe('token_expired')
    expect(await verdict(subject, token, yes)).toBe('in')
    expect(await verdict(subject, token, ({ tokenSha256 }) => tokenSha256 === 'another')).toBe('token_expired')
  }
})

test('it is asked only of a token that is over, and told whose that is', async () => {
  const asked: string[] = []
  const ask = ({ job }: Principal) => asked.push(job.runId ?? '') > 0
  now = ISSUED * 1000
  await verdict(verifier(), await github({ run_id: '7' }), ask)
  expect(asked).toEqual([])
  now += HOUR
  await verdict(verifier(), await github({ run_id: '7' }), ask)
  expect(asked).toEqual(['7'])
})

test.each([
  ['not valid yet', { nbf: ISSUED + 10 * 3600 }, {}, 'token_not_yet_valid'],
  ['of too long a life', {}, { max_token_life: 60_000 }, 'token_too_old'],
  ['for another audience', { aud: 'https://else.example' }, {}, 'audience_mismatch'],
  ['of an event that is not trusted', { event_name: 'pull_request_target' }, {}, 'denied_by_rule'],
] as const)('a token that is over and %s is refused', async (_name, claims, changes, code) => {
  now = ISSUED * 1000 + HOUR
  expect(await verdict(verifier(changes), await github(claims), yes)).toBe(code)
})

test('one that nobody signed is refused before anybody is asked', async () => {
  now = ISSUED * 1000 + HOUR
  const [header, payload, signature] = (await github()).split('.')
  const [, other] = (await github({ run_id: '8' })).split('.')
  let asked = false
  const forged = await verdict(verifier(), `${header}.${other}.${signature}`, () => (asked = true))
  expect([forged, asked, payload === other]).toEqual(['signature_invalid', false, false])
})
