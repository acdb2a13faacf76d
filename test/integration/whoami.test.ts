/** `pgusher whoami` as a job of GitHub Actions, with a real pgusher and an issuer. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CliResult } from '../cli/run-cli.ts'
import { runHere } from '../cli/run-here.ts'
import { type Stage, startStage } from '../support/pgusher.ts'

let stage: Stage

beforeAll(async () => {
  stage = await startStage()
})
afterAll(() => stage.close())

function whoami(args: readonly string[], env: Readonly<Record<string, string>>): Promise<CliResult> {
  return runHere(['whoami', '--server', `localhost:${stage.port}`, '--ca', stage.caFile, ...args], env)
}

const gitHub = (): Record<string, string> => ({
  GITHUB_ACTIONS: 'true',
  ACTIONS_ID_TOKEN_REQUEST_URL: stage.issuer.actions.requestUrl,
  ACTIONS_ID_TOKEN_REQUEST_TOKEN: stage.issuer.actions.requestToken,
})

test('a job learns who it is and that it would be let in, and nothing has connected', async () => {
  const { code, stdout, stderr } = await whoami(['--database', 'shop-prod'], gitHub())
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout).toMatch(/^This job, for pgusher at localhost:\d+:\n {2}provider +GitHub Actions \(github-actions\)$/m)
  expect(stdout).toMatch(/^ {2}repository +https:\/\/github\.com\/acme\/shop$/m)
  expect(stdout).toMatch(/^ {2}run url +https:\/\/github\.com\/acme\/shop\/actions\/runs\/18700000412\/attempts\/1$/m)
  expect(stdout).toMatch(/^Let in: role shop_migrator on database shop-prod, by rule migrate-production\.$/m)
  expect(await stage.mintedRoles()).toEqual([])
})

test('without a database it is known, and nothing is decided', async () => {
  const { code, stdout } = await whoami(['--format', 'json'], gitHub())
  expect(code).toBe(0)
  const { identity, decision } = JSON.parse(stdout) as Record<string, Record<string, unknown> | undefined>
  expect(identity).toMatchObject({ provider: 'github-actions', job: { ref: 'refs/heads/main', actor: 'dana-dev' } })
  expect(decision).toBeUndefined()
})

test('a job that would be refused sees the refusal as it would look, with wanted and got', async () => {
  const env = { TOKEN: await stage.token('github', { ref: 'refs/heads/fix-1' }) }
  const { code, stdout } = await whoami(['-d', 'shop-prod', '-u', 'shop_migrator', '--token-env', 'TOKEN'], env)
  expect(code).toBe(1)
  expect(stdout).toMatch(/^pgusher: refused: role shop_migrator on database shop-prod \(SQLSTATE 42501\)$/m)
  expect(stdout).toMatch(/claim ref is "refs\/heads\/fix-1", rule "migrate-production" needs "refs\/heads\/main"/)
  expect(stdout).toMatch(/^ {2}ref +refs\/heads\/fix-1 +"refs\/heads\/main"$/m)
  expect(stdout).not.toContain(env.TOKEN)
})

test("a token that is over is refused with its own claims beside the server's words", async () => {
  const env = { TOKEN: await stage.token('github', {}, { lifeSeconds: -60 }) }
  const { code, stdout } = await whoami(['--token-env', 'TOKEN', '--format', 'text'], env)
  expect(code).toBe(1)
  expect(stdout).toMatch(/^pgusher: refused \(SQLSTATE 28P01\)\n {2}.*expired/)
  expect(stdout).toMatch(/^ {2}exp +\d+ \(.* UTC, (1 min \d+ s|\d+ s) ago\)$/m)
})
