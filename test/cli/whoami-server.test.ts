/** `pgusher whoami --server` against a server that answers by the script: what stands in for a pgusher, and one that refuses. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer as createPlainServer, type IncomingMessage } from 'node:http'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { ownClaims } from '../../src/client/token-text.ts'
import { createCa } from '../support/certificates.ts'
import { type CiIssuer, startCiIssuer } from '../support/ci/issuer.ts'
import { type SimulatedCi, simulateCi } from '../support/ci/simulate.ts'
import { AUDIENCE } from '../support/tokens.ts'
import type { CliResult } from './run-cli.ts'
import { runHere } from './run-here.ts'

let issuer: CiIssuer
let ci: SimulatedCi
let server: Server
let directory: string
let requests: { line: string; token: string; body: string }[] = []
let audience = AUDIENCE
let whoami: [number, unknown]

const IDENTITY = {
  provider: 'github-actions',
  issuer: 'https://token.actions.githubusercontent.com',
  subject: 'repo:acme/shop:ref:refs/heads/fix-1',
  claims: { ref: 'refs/heads/fix-1', repository_id: '784500001' },
  job: {
    repository_url: 'https://github.com/acme/shop',
    ref: 'refs/heads/fix-1',
    run_id: '18700000412',
    run_attempt: '1',
    actor: 'dana\u001b[31m',
  },
  expires_at: '2126-11-21T12:00:00.000Z',
}

beforeAll(async () => {
  const [ca, started] = await Promise.all([createCa(), startCiIssuer()])
  issuer = started
  ci = await simulateCi('github-actions', issuer)
  directory = await mkdtemp(join(tmpdir(), 'pgusher-whoami-'))
  await writeFile(join(directory, 'ca.crt'), ca.cert)
  server = createServer(
    { ...(await ca.issue({ cn: 'pgusher', ips: ['127.0.0.1'] })), ALPNProtocols: ['http/1.1'] },
    async (request: IncomingMessage, response) => {
      const body = await text(request)
      const line = `${request.method} ${request.url}`
      requests.push({ line, token: (request.headers.authorization ?? '').replace(/^Bearer /, ''), body })
      const audiences = [{ preset: 'github-actions', audience }]
      const [status, answer] = request.url?.startsWith('/v1/audience') ? [200, { audiences, tickets: false }] : whoami
      response.writeHead(status, { 'content-type': 'application/json' })
      response.end(typeof answer === 'string' ? answer : JSON.stringify(answer))
    },
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
})

afterAll(async () => {
  server.closeAllConnections()
  server.close()
  await Promise.all([ci.close(), issuer.close(), rm(directory, { recursive: true, force: true })])
})

function ask(...args: string[]): Promise<CliResult> {
  requests = []
  const { port } = server.address() as AddressInfo
  return runHere(['whoami', '-s', `127.0.0.1:${port}`, '--ca', join(directory, 'ca.crt'), ...args], ci.env)
}

test('the CI is asked for the audience that the server tells, and the token goes into a header', async () => {
  whoami = [200, { identity: IDENTITY }]
  const { code, stdout, stderr } = await ask()
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(requests.map(({ line }) => line)).toEqual(['GET /v1/audience?preset=github-actions', 'POST /v1/whoami'])
  expect(ownClaims(requests[1]?.token ?? '')['aud']).toBe(AUDIENCE)
  expect(requests[1]?.body).toBe('{}')
  expect(stdout).toMatch(
    /^This job, for pgusher at 127\.0\.0\.1:\d+:\n {2}provider +GitHub Actions \(github-actions\)\n/,
  )
  expect(stdout).toMatch(/^ {2}run +18700000412, attempt 1$/m)
  expect(stdout).toMatch(/^ {2}actor +dana\\u\{1b\}\[31m$/m)
  expect(stdout).toMatch(/^ {2}good until +2126-11-21 12:00:00 UTC, in \d+ h/m)
})

test('a database that lets the job in: by which rule; the role is ci where none is named', async () => {
  const decision = { allowed: true, rule: 'migrate-production', database: 'shop-prod', role: 'shop_migrator' }
  whoami = [200, { identity: IDENTITY, decision }]
  const { code, stdout } = await ask('-d', 'shop-prod')
  expect(code).toBe(0)
  expect(JSON.parse(requests[1]?.body ?? '')).toEqual({ database: 'shop-prod', user: 'ci' })
  expect(stdout).toMatch(/^Let in: role shop_migrator on database shop-prod, by rule migrate-production\.$/m)
})

test('a refusal shows what was wanted beside what the token has', async () => {
  const error = {
    code: 'no_matching_rule',
    sqlstate: '42501',
    message: 'access to "shop-prod" denied: claim ref is "refs/heads/fix-1"',
    detail: 'claim ref: wanted "refs/heads/main", got "refs/heads/fix-1"',
    hint: 'Ask #db-help.',
    id: 'D-7Q2MK4',
  }
  whoami = [200, { identity: IDENTITY, decision: { allowed: false, error } }]
  const shown = await ask('-d', 'shop-prod', '-u', 'shop_migrator')
  expect(shown.code).toBe(1)
  expect(shown.stdout).toMatch(/^pgusher: refused: role shop_migrator on database shop-prod \(SQLSTATE 42501\)$/m)
  expect(shown.stdout).toMatch(/^ {2}access to "shop-prod" denied: claim ref is "refs\/heads\/fix-1" \[D-7Q2MK4\]$/m)
  expect(shown.stdout).toMatch(/^ {2}ref +refs\/heads\/fix-1 +"refs\/heads\/main"$/m)
  expect(shown.stdout).toMatch(/^ {2}hint: Ask #db-help\.$/m)
  const json = await ask('-d', 'shop-prod', '--format', 'json')
  expect(json.code).toBe(1)
  expect(JSON.parse(json.stdout)).toMatchObject({ identity: IDENTITY, decision: { allowed: false, error } })
})

test("a token that is refused is shown with its own claims, and the server's words and id", async () => {
  const error = {
    code: 'audience_mismatch',
    sqlstate: '28P01',
    message: 'wrong audience',
    hint: 'Ask for x.',
    id: 'D-7Q2MK4',
  }
  whoami = [401, { error }]
  const { code, stdout, stderr } = await ask('--audience', 'of-somebody-else')
  expect({ code, stderr }).toEqual({ code: 1, stderr: '' })
  expect(stdout).toMatch(
    /^pgusher: refused \(SQLSTATE 28P01\)\n {2}wrong audience \[D-7Q2MK4\]\n {2}hint: Ask for x\.\n/,
  )
  expect(stdout).toMatch(/^ {2}aud +of-somebody-else$/m)
  expect(stdout).not.toContain(requests[0]?.token)
  const json = await ask('--audience', 'of-somebody-else', '--format', 'json')
  expect(json.code).toBe(1)
  expect(JSON.parse(json.stdout)).toMatchObject({ error })
})

test.each<[string, [number, unknown]]>([
  ['a page', [200, '<html></html>']],
  ['another answer', [200, { identity: { provider: 'x' } }]],
  ['not found', [404, { message: 'no such page' }]],
  ['an error of another kind', [500, 'oops']],
])('what is no pgusher is called that: %s', async (_name, answer) => {
  whoami = answer
  const { code, stdout, stderr } = await ask()
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toMatch(
    /^pgusher: 127\.0\.0\.1:\d+ cannot be asked who this job is \(.+\)\n {2}hint: It is an older pgusher/,
  )
})

test("a server that names a cloud's audience gets no token for it, unless the job itself says so", async () => {
  whoami = [200, { identity: IDENTITY }]
  const before = ci.asked.length
  for (audience of ['sts.amazonaws.com', 'api://AzureADTokenExchange', 'https://github.com/acme']) {
    const { code, stderr } = await ask()
    expect(code).toBe(1)
    expect(stderr).toMatch(/^pgusher: the server asks for a token with the audience ".+", which is of another service/)
  }
  audience = AUDIENCE
  expect(ci.asked).toHaveLength(before)
  expect((await ask('--audience', 'sts.amazonaws.com')).code).toBe(0)
})

test('a certificate of another CA gets no token', async () => {
  requests = []
  const { port } = server.address() as AddressInfo
  const { code, stderr } = await runHere(['whoami', '-s', `127.0.0.1:${port}`, '--audience', 'a'], ci.env)
  expect(code).toBe(1)
  expect(stderr).toMatch(
    /the certificate of 127\.0\.0\.1:\d+ comes from a CA that is not among the system's: name its file by --ca \(/,
  )
  expect(requests).toEqual([])
})

test('a port of another service is called that', async () => {
  const plain = createPlainServer((_request, response) => void response.end())
  await new Promise<void>((resolve) => plain.listen(0, '127.0.0.1', resolve))
  const { port } = plain.address() as AddressInfo
  const { code, stderr } = await runHere(['whoami', '-s', `127.0.0.1:${port}`, '--audience', 'a'], ci.env)
  plain.close()
  expect(code).toBe(1)
  expect(stderr).toMatch(
    /^pgusher: cannot connect to "127\.0\.0\.1:\d+": what answers there speaks no TLS\n {2}hint: .*--server/,
  )
})
