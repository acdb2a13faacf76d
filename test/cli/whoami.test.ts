/** `pgusher whoami --local` as a job calls it, and what is wrong usage of the command. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { moment } from '../../src/cli/whoami-text.ts'
import { type CiIssuer, startCiIssuer } from '../support/ci/issuer.ts'
import { type SimulatedCi, simulateCi } from '../support/ci/simulate.ts'
import { runCli } from './run-cli.ts'
import { runHere } from './run-here.ts'

let issuer: CiIssuer
let ci: SimulatedCi

beforeAll(async () => {
  issuer = await startCiIssuer()
  ci = await simulateCi('github-actions', issuer, { claims: { actor: 'dana\u001b[31m\u202e', run_id: 18700000412 } })
})

afterAll(async () => {
  await ci.close()
  await issuer.close()
})

test("--local prints the token's claims as unverified, and never the token", async () => {
  const { code, stdout, stderr } = await runCli(['whoami', '--local'], ci.env)
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout).toMatch(/^What the token of GitHub Actions says of this job; nobody has verified it:\n/)
  expect(stdout).toMatch(/^ {2}repository_id +784500001$/m)
  expect(stdout).toMatch(/^ {2}exp +\d+ \(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, in (5 min 0 s|4 min 5\d s)\)$/m)
  expect(stdout).toMatch(/^ {2}actor +dana\\u\{1b\}\[31m\\u\{202e\}$/m)
  expect(stdout).not.toContain('eyJ')
  // An audience of its own, so that this token is good for nothing.
  expect(ci.asked).toEqual(['pgusher-whoami-local'])
})

test('--local as JSON says that nothing is verified', async () => {
  const { code, stdout } = await runHere(['whoami', '--local', '--audience', 'a', '--format', 'json'], ci.env)
  expect(code).toBe(0)
  expect(JSON.parse(stdout)).toMatchObject({
    source: { name: 'GitHub Actions', preset: 'github-actions', refetchable: true },
    verified: false,
    claims: { iss: issuer.issuerUrl('github-actions'), aud: 'a', repository: 'acme/shop' },
  })
})

test('a job without a token is told what to add, on stderr; as JSON on stdout', async () => {
  const env = { GITHUB_ACTIONS: 'true' }
  const text = await runHere(['whoami', '--local'], env)
  expect({ code: text.code, stdout: text.stdout }).toEqual({ code: 1, stdout: '' })
  expect(text.stderr).toMatch(/^pgusher: GitHub Actions gives this job no token: add "permissions: .*\n {2}hint: .*\n$/)
  const json = await runHere(['whoami', '--local', '--format', 'json'], env)
  expect(json.code).toBe(1)
  expect(JSON.parse(json.stdout)).toMatchObject({ error: { code: 'token_missing', sqlstate: '28P01' } })
})

test('a ticket says nothing by itself', async () => {
  const env = { TICKET: `pgut_${'a'.repeat(60)}` }
  const { code, stderr } = await runHere(['whoami', '--local', '--token-env', 'TICKET'], env)
  expect(code).toBe(1)
  expect(stderr).toMatch(/^pgusher: this is a ticket, which says nothing by itself: ask pgusher, by --server$/m)
})

test.each([
  ['neither a server nor --local', []],
  ['both', ['--server', 'localhost', '--local']],
  ['a role without a database', ['--server', 'localhost', '--user', 'shop_reader']],
  ['a database without a server', ['--local', '--database', 'shop-prod']],
  ['two sources', ['--local', '--token-file', 'a', '--token-env', 'B']],
])('%s: wrong usage', async (_name, args) => {
  const { code, stdout, stderr } = await runHere(['whoami', ...args])
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).toMatch(/^error: /)
})

test('a moment is told with how far it is; what is no date is told as that', () => {
  const now = Date.parse('2026-11-21T12:00:00Z')
  expect(moment(now + 298_000, now)).toBe('2026-11-21 12:04:58 UTC, in 4 min 58 s')
  expect(moment(now - 3_600_000, now)).toBe('2026-11-21 11:00:00 UTC, 1 h 0 s ago')
  expect(moment(now + 59_600, now)).toBe('2026-11-21 12:00:59 UTC, in 1 min 0 s')
  expect(moment(1e300, now)).toBe('no time')
  expect(moment(Number.NaN, now)).toBe('no time')
})
