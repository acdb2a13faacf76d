import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { eventLine } from '../../src/audit/event-line.ts'
import type { AuditEvent, SessionIdentity } from '../../src/audit/recorder.ts'
import { principalFromClaims } from '../../src/identity/principal-from-claims.ts'
import { evaluate } from '../../src/policy/evaluate.ts'
import { denialEvent } from '../../src/session/denial.ts'
import { HEAD, writeFiles } from '../config/write-config.ts'
import { GITHUB_JOB, NOW, policyOf } from '../policy/policy-of.ts'
import { runCli } from './run-cli.ts'

const RULES = `rules:
  - name: migrate
    issuer: github
    match: { repository_id: "784500001", ref: refs/heads/main, actor_id: { in: ["1", "2"] } }
    allow: { database: shop, role: migrator }
`
const STAMP = { time: '2026-11-21T12:00:00.000000Z', seq: 7, id: 'x', instance: 'one', sessionSeq: undefined }

/** A line of the audit as a refused job leaves it. */
async function lineOf(id: string, claims: Record<string, unknown> = {}): Promise<string> {
  const policy = await policyOf(HEAD + RULES)
  const issuer = policy.issuers.get('github')!
  const job = { ...GITHUB_JOB, ref: 'refs/heads/fix-1', actor: 'dana-dev', ...claims }
  const principal = principalFromClaims('github', issuer.config, job, { sha256: 'ab'.repeat(32) })
  const decision = evaluate(policy, principal, { database: 'shop', user: 'migrator' }, NOW)
  if (decision.allowed) throw new Error('allowed')
  const identity: SessionIdentity = {
    sessionId: 's',
    client: { address: '203.0.113.7', port: 51234 },
    tlsProtocol: 'TLSv1.3',
    principal,
    db: { alias: 'shop', role: 'migrator' },
  }
  const event: AuditEvent = denialEvent(decision.error, 'decide', id, 65_536)
  return eventLine(STAMP, event, identity, 65_536)
}

/** Sentences of a job about a denial: they mention the id and are no denial. */
const decoy = (id: string) => `{"event":"statement","db":{"query":{"text":"select \\"${id}\\" ","x":"${id}"}}}\n`

test('the whole trace, for an id as somebody reads it to the operator', async () => {
  const directory = await writeFiles({ 'audit.jsonl': decoy('D-7Q2M01') + (await lineOf('D-7Q2M01')) })
  const { code, stdout, stderr } = await runCli(['why', '7q2mOl', '--audit', join(directory, 'audit.jsonl')])
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout.replace(/^policy {6}\w+$/m, 'policy      …')).toBe(`denial      D-7Q2M01, 2026-11-21T12:00:00.000000Z
instance    one
client      203.0.113.7:51234, TLSv1.3
request     database "shop", user "migrator"
issuer      https://token.actions.githubusercontent.com (github-actions)
subject     "repo:acme/shop:ref:refs/heads/main"
repository  https://github.com/acme/shop, refs/heads/fix-1
run         https://github.com/acme/shop/actions/runs/18700000412
actor       dana-dev
stage       decide: the policy
code        no_matching_rule, SQLSTATE 42501

MESSAGE     access to "shop" denied: claim ref is "refs/heads/fix-1", rule "migrate" needs "refs/heads/main" (1 more condition does not hold) [D-7Q2M01]

policy      …

require of issuer https://token.actions.githubusercontent.com
  ✓ repository_owner_id  wanted "9100001", got "9100001"

allow rule migrate: does not match
  ✓ repository_id  wanted "784500001", got "784500001"
  ✗ ref            wanted "refs/heads/main", got "refs/heads/fix-1"
  ✗ actor_id       wanted one of "1" or "2", got nothing
`)
})

test('--config decides again for the same job, and names the log', async () => {
  const directory = await writeFiles({ 'audit.jsonl': await lineOf('D-7Q2MK4', { user_email: 'x' }) })
  const withLog = HEAD.replace('{ stdout: true }', `{ file: { path: ${join(directory, 'audit.jsonl')} } }`)
  const config = join(directory, 'pgusher.yaml')
  await writeFile(config, withLog + RULES.replace('ref: refs/heads/main, ', '').replace('["1", "2"]', '["1"]'))
  const denied = await runCli(['why', 'D-7Q2MK4', '--config', config])
  expect(denied.code).toBe(0)
  const [, today = ''] = denied.stdout.split(/^today {7}policy /m)
  expect(today).toMatch(/^\w{12}, for the claims on record; the token's time and audience are not looked at\n/)
  expect(today).toContain(`allow rule migrate (${config}:17): does not match`)
  expect(today).toMatch(/decision {2}denied: claim_missing\n\nFATAL: {2}42501: /)

  await writeFile(config, withLog + RULES.replace(/, ref: .*\}/, ' }'))
  const allowed = await runCli(['why', 'D-7Q2MK4', '--config', config, '--format', 'json'])
  expect(JSON.parse(allowed.stdout)).toMatchObject({
    id: 'D-7Q2MK4',
    denials: [
      {
        event: 'session.denied',
        client: { address: '203.0.113.7' },
        pgusher: { decision: { trace: { rules: [{ rule: 'migrate' }] } } },
      },
    ],
    today: { allowed: true, grant: { role: 'migrator' }, claims_not_on_record: [] },
  })
})

test('claims that a rule looks at and the audit does not keep are told', async () => {
  const directory = await writeFiles({ 'audit.jsonl': await lineOf('D-7Q2MK4') })
  const config = join(directory, 'pgusher.yaml')
  await writeFile(config, HEAD + RULES.replace('actor_id: { in: ["1", "2"] }', 'repo_property_tier: "1"'))
  const { stdout } = await runCli(['why', 'D-7Q2MK4', '-a', join(directory, 'audit.jsonl'), '-c', config])
  expect(stdout).toContain('not on record, and missing here: claim "repo_property_tier"')
})

test('rotated files are searched as well, newest first; what is not found says where it was looked for', async () => {
  const directory = await writeFiles({
    'audit.jsonl': decoy('D-7Q2MK4'),
    'audit.jsonl.20261120T000000.000Z-900': (await lineOf('D-7Q2MK4')).replace(
      '"instance":"one"',
      '"instance":"newer"',
    ),
    'audit.jsonl.20261119T000000.000Z-1': await lineOf('D-7Q2MK4'),
    'audit.jsonl.bak': await lineOf('D-000000'),
  })
  const file = join(directory, 'audit.jsonl')
  expect((await runCli(['why', 'D-7Q2MK4', '--audit', file])).stdout).toMatch(/^instance {4}newer$/m)
  const gone = await runCli(['why', 'D-000000', '--audit', join(directory, 'gone.jsonl'), file])
  expect({ code: gone.code, stdout: gone.stdout }).toEqual({ code: 1, stdout: '' })
  expect(gone.stderr.replaceAll(`${directory}/`, '')).toMatch(
    /^pgusher: gone\.jsonl cannot be read: no such file\npgusher: no denial D-000000 in audit\.jsonl, audit\.jsonl\.20261120\S+, audit\.jsonl\.20261119\S+\nEach replica/,
  )
})

test('text of an event does not act on the terminal, and a denial of a job without a token is told as that', async () => {
  const line = await lineOf('D-7Q2MK4')
  const odd = line.replaceAll('dana-dev', 'dana\\u001b[2J\\u202e')
  const unknown = eventLine(
    STAMP,
    {
      event: 'session.denied',
      outcome: 'denied',
      fields: { pgusher: { decision: { id: 'D-000000', stage: 'verify', code: 'token_malformed', message: 'm' } } },
    },
    { client: { address: '::1', port: 9 } },
    65_536,
  )
  // The last line has no end yet.
  const directory = await writeFiles({ 'audit.jsonl': `{"torn":"D-7Q2MK4\n${odd}${unknown.trimEnd()}` })
  const file = join(directory, 'audit.jsonl')
  expect((await runCli(['why', 'D-7Q2MK4', '--audit', file])).stdout).toContain('actor       dana\\u{1b}[2J\\u{202e}\n')
  const { stdout } = await runCli(['why', 'D-000000', '--audit', file])
  expect(stdout).toContain('client      [::1]:9\n')
  expect(stdout).toContain('job         not known, as no token was verified\n')
})
