/** The auditor's questions, asked of a log with jq alone. */
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openRecorder } from '../../src/audit/open.ts'
import type { SessionIdentity } from '../../src/audit/recorder.ts'
import { auditConfig, identity, statement, temporaryFolder } from './support.ts'

const jq = (path: string, filter: string): unknown[] =>
  execFileSync('jq', ['-c', filter, path], { encoding: 'utf8' })
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line))

const job = (runId: string, sessionId: string): SessionIdentity => {
  const { principal } = identity
  if (principal === undefined) throw new Error('the test identity has a principal')
  const runUrl = `https://github.com/acme/shop/actions/runs/${runId}`
  return { ...identity, sessionId, principal: { ...principal, job: { ...principal.job, runId, runUrl } } }
}

async function generatedLog(): Promise<string> {
  const path = join(temporaryFolder(), 'audit.jsonl')
  const recorder = await openRecorder(auditConfig(path), { instance: 'i', log: () => {}, classifyWithin: 20_000 })
  const first = recorder.session(job('123', 's1'), 'full')
  const second = recorder.session(job('456', 's2'), 'normalized')
  first.event({ event: 'session.started', outcome: 'success' })
  first.statement(statement('create table public.orders (id int)'))
  second.event({ event: 'session.started', outcome: 'success' })
  second.statement(statement("update public.customers set name = 'x'"))
  const batch = "insert into public.orders values (1); select '\u2028\n\"'"
  for (const batchIndex of [0, 1]) first.statement(statement(batch, { batchIndex, inBatch: true }))
  second.statement(statement('select * from orders'))
  recorder.event(
    {
      event: 'session.denied',
      outcome: 'denied',
      fields: {
        pgusher: {
          decision: {
            code: 'no_matching_rule',
            nearest: [{ rule: 'migrate', claim: 'ref', wanted: '"refs/heads/main"', got: 'refs/heads/fix-1' }],
          },
        },
      },
    },
    job('789', 's3'),
  )
  first.event({ event: 'session.ended', outcome: 'success' })
  second.event({ event: 'session.ended', outcome: 'success' })
  await recorder.close()
  return path
}

test('1: which jobs touched table X', async () => {
  const path = await generatedLog()
  const filter =
    'select(.event=="statement" and (.pgusher.query.tables//[]|index("public.orders")))|.cicd.pipeline.run.url.full'
  const url = 'https://github.com/acme/shop/actions/runs/123'
  expect(jq(path, filter)).toEqual([url, url])
  // A name without a schema is recorded as it was written, and the record says that it may not be all.
  const open =
    'select(.event=="statement" and .pgusher.query.tables_complete==false)|[.cicd.pipeline.run.id,.pgusher.query.tables]'
  expect(jq(path, open)).toEqual([['456', ['orders']]])
})

test('2: what did run 123 do, in order and without a join', async () => {
  const path = await generatedLog()
  expect(jq(path, 'select(.cicd.pipeline.run.id=="123")|[.event,.db.query.summary,.db.query.text]')).toEqual([
    ['session.started', null, null],
    ['statement', 'CREATE TABLE public.orders', 'create table public.orders (id int)'],
    ['statement', 'INSERT public.orders', 'insert into public.orders values (1)'],
    ['statement', 'SELECT', "select '\u2028\n\"'"],
    ['session.ended', null, null],
  ])
})

test('3: who was refused and why', async () => {
  const path = await generatedLog()
  const filter =
    'select(.pgusher.outcome=="denied")|[.time,.pgusher.idp.subject,.pgusher.decision.code,.pgusher.decision.nearest]'
  expect(jq(path, filter)).toEqual([
    [
      expect.stringMatching(/^\d{4}-/),
      'repo:acme/shop:environment:production',
      'no_matching_rule',
      [{ rule: 'migrate', claim: 'ref', wanted: '"refs/heads/main"', got: 'refs/heads/fix-1' }],
    ],
  ])
})

test('4, as far as a log without seals can tell: nothing is missing', async () => {
  const path = await generatedLog()
  const seqs = jq(path, '.pgusher.seq')
  expect(seqs).toEqual(seqs.map((_, n) => n + 1))
  expect(jq(path, 'select(.event=="audit.stopped")|.pgusher.audit.last_seq')).toEqual([seqs.length])
})
