import { execFileSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { overviewText } from '../../src/cli/sessions.ts'
import { runCli } from './run-cli.ts'

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'pgusher-cli-'))
})
afterAll(() => rm(directory, { recursive: true }))

const JOB = {
  job: '["https://ci.acme.example","784500001","1"]',
  issuer: 'github',
  run_id: '1',
  run_url: 'https://ci.acme.example/runs/1',
  repository: 'https://ci.acme.example/shop',
  actor: 'eve\u202e',
}

test('the list is for reading, and nothing in it acts on the terminal', () => {
  const now = Date.parse('2026-11-21T09:00:00Z')
  const session = {
    ...{ id: 'one', database: 'shop-prod', role: 'shop_migrator', rule: 'migrate', address: '10.0.0.9' },
    ...{ since: '2026-11-21T08:59:00Z', expires_at: '2026-11-21T09:30:00Z', admission: 'token' },
    ...{ busy: true, statements: 1, ...JOB },
  }
  const window = { ...JOB, rule: 'migrate', opened_at: '', closes_at: '2026-11-21T09:40:00Z', connections: 3 }
  expect(overviewText({ instance: 'a', sessions: [session], windows: [window], barred: 2 }, now)).toBe(
    `1 session:

  one  busy, 1 statement, for 60 s
    shop_migrator in shop-prod by rule migrate, from 10.0.0.9
    https://ci.acme.example/runs/1
    https://ci.acme.example/shop, started by eve\\u{202e}, issuer github
    --job '["https://ci.acme.example","784500001","1"]'

1 open window:

  rule migrate  closes at 2026-11-21T09:40:00Z, in 40 min; 3 connections with an expired token
    https://ci.acme.example/runs/1
    https://ci.acme.example/shop, started by eve\\u{202e}, issuer github
    --job '["https://ci.acme.example","784500001","1"]'

2 jobs or runs are barred by kill
`,
  )
  expect(overviewText({ instance: 'a', sessions: [], windows: [], barred: 0 }, now)).toBe(
    '0 sessions\n\n0 open windows\n',
  )
})

test('a job key is shown as a shell reads it, whatever somebody has named a branch', () => {
  const job = JSON.stringify(['https://ci.acme.example', "main'$(echo pwned)'`id`"])
  const window = { ...JOB, job, rule: 'migrate', opened_at: '', closes_at: '2026-11-21T09:40:00Z', connections: 3 }
  const text = overviewText({ instance: 'a', sessions: [], windows: [window], barred: 0 }, 0)
  const [, shown = ''] = /^ {4}--job (.*)$/m.exec(text) ?? []
  expect(execFileSync('sh', ['-c', `printf %s ${shown}`], { encoding: 'utf8' })).toBe(job)
})

test.each([
  ['nobody to ask', ['sessions']],
  ['nobody to end', ['kill', '--socket', 'a', '--reason', 'x']],
  ['no reason', ['kill', '--socket', 'a', '--run', '1', '--reason', ' ']],
  ['a reason of several lines', ['kill', '--socket', 'a', '--run', '1', '--reason', 'a\nb']],
  ['two to end', ['kill', '--socket', 'a', '--reason', 'x', '--run', '1', '--rule', 'r']],
])('%s is wrong usage', async (_name, args) => {
  expect(await runCli(args)).toMatchObject({ code: 2, stdout: '', stderr: expect.stringMatching(/^error: /) })
})

test('where no pgusher answers it says what that means', async () => {
  const missing = join(directory, 'none.sock')
  expect(await runCli(['sessions', '--socket', missing])).toMatchObject({
    code: 1,
    stderr: expect.stringMatching(
      /^pgusher: the control socket ".*" cannot be used: there is none: pgusher does not run/,
    ),
  })
})

test('the socket is found in a configuration whose passwords this shell does not have', async () => {
  const file = join(directory, 'pgusher.yaml')
  const config = (control: string) => `version: 1
listen: { address: 0.0.0.0:6432, tls: { cert: tls.crt, key: tls.key } }
audit: { stdout: true }
${control}
issuers: { github: { preset: github-actions, audience: https://pgusher.acme.example } }
databases:
  shop: { host: pg1, credentials: { kind: ephemeral-role, admin: { user: admin, password: "\${NOT_SET_HERE}" } } }
`
  await writeFile(file, config('control: { socket: control.sock }'))
  expect(await runCli(['sessions', '-c', file])).toMatchObject({
    code: 1,
    stderr: expect.stringContaining(`"${join(directory, 'control.sock')}" cannot be used: there is none`),
  })
  await writeFile(file, config(''))
  expect(await runCli(['sessions', '-c', file])).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('has no control.socket'),
  })
})
