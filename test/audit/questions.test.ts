/** The auditor's questions, asked of a log with jq alone. */
import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openRecorder } from '../../src/audit/open.ts'
import type { SessionIdentity } from '../../src/audit/recorder.ts'
import { auditConfig, identity, type ReadEvent, readEvents, statement, temporaryFolder } from './support.ts'

const jqInstalled = spawnSync('jq', ['--version']).status === 0

/** The filter's results by jq where that is installed; `same` is the filter in JavaScript, for machines without it, and must agree. */
function ask(path: string, filter: string, same: (event: ReadEvent) => unknown[]): unknown[] {
  const ours = readEvents(path).flatMap(same)
  if (jqInstalled) {
    const lines = execFileSync('jq', ['-c', filter, path], { encoding: 'utf8' }).split('\n').slice(0, -1)
    expect(lines.map((line) => JSON.parse(line))).toEqual(ours)
  }
  return ours
}

const names = (event: ReadEvent): string[] => (event.at('pgusher.query.tables') as string[] | undefined) ?? []
/** jq's null for what is not there. */
const fields = (event: ReadEvent, ...paths: string[]): unknown[] => paths.map((path) => event.at(path) ?? null)

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
  const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')
  const [, touched = ''] = /^# Which runs touched a table\?.*\njq -r '([^']+)' audit\.jsonl/m.exec(readme) ?? []
  const url = (run: string) => `https://github.com/acme/shop/actions/runs/${run}`
  expect(
    ask(path, touched, (event) =>
      names(event).some((name) => name === 'orders' || name === 'public.orders')
        ? [event.at('cicd.pipeline.run.url.full')]
        : [],
    ),
  ).toEqual([url('123'), url('123'), url('456')])
  // A name without a schema is recorded as it was written, and the record says that it may not be all.
  const open =
    'select(.event=="statement" and .pgusher.query.tables_complete==false)|[.cicd.pipeline.run.id,.pgusher.query.tables]'
  expect(
    ask(path, open, (event) =>
      event.at('pgusher.query.tables_complete') === false
        ? [fields(event, 'cicd.pipeline.run.id', 'pgusher.query.tables')]
        : [],
    ),
  ).toEqual([['456', ['orders']]])
})

test('2: what did run 123 do, in order and without a join', async () => {
  const path = await generatedLog()
  const filter = 'select(.cicd.pipeline.run.id=="123")|[.event,.db.query.summary,.db.query.text]'
  expect(
    ask(path, filter, (event) =>
      event.at('cicd.pipeline.run.id') === '123' ? [fields(event, 'event', 'db.query.summary', 'db.query.text')] : [],
    ),
  ).toEqual([
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
  const paths = ['time', 'pgusher.idp.subject', 'pgusher.decision.code', 'pgusher.decision.nearest']
  expect(
    ask(path, filter, (event) => (event.at('pgusher.outcome') === 'denied' ? [fields(event, ...paths)] : [])),
  ).toEqual([
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
  const seqs = ask(path, '.pgusher.seq', (event) => [event.at('pgusher.seq')])
  expect(seqs).toEqual(seqs.map((_, n) => n + 1))
  const last = readEvents(path).at(-1)
  expect(last?.event).toBe('audit.stopped')
  expect(last?.at('pgusher.audit.last_seq')).toBe(seqs.length)
})

test.runIf(jqInstalled)('4, as the README asks it: of several logs in one, and where a line is missing', async () => {
  const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')
  const question = /^# Is a line missing\?.*\n(jq .+)$/m.exec(readme)?.[1] ?? ''
  const directory = temporaryFolder()
  const written: string[][] = []
  for (const instance of ['ci-proxy-1', 'ci-proxy-2']) {
    const path = join(directory, instance)
    // Each has been started twice.
    for (const runId of ['1', '2']) {
      const recorder = await openRecorder(auditConfig(path), { instance, log: () => {}, classifyWithin: 20_000 })
      const session = recorder.session(job(runId, `s${runId}`), 'full')
      for (let n = 0; n < 3; n++) session.statement(statement('select 1'))
      await recorder.close()
    }
    written.push(readFileSync(path, 'utf8').split('\n').slice(0, -1))
  }
  const [one = [], other = []] = written
  const together = one.flatMap((line, n) => [line, other[n] ?? ''])
  const answerOf = (lines: readonly string[]): string => {
    writeFileSync(join(directory, 'audit.jsonl'), lines.map((line) => `${line}\n`).join(''))
    return execFileSync('bash', ['-c', question], { cwd: directory, encoding: 'utf8' })
  }
  expect(answerOf(one)).toBe('')
  expect(answerOf(together)).toBe('')
  // Without the third line of the second log's first start.
  expect(answerOf(together.toSpliced(5, 1))).toBe('["ci-proxy-2",4]\n')
})

test.runIf(jqInstalled)(
  'what docs/audit.md asks is answered, of a rotated log and of one that a killed pgusher left',
  async () => {
    const directory = temporaryFolder()
    const path = join(directory, 'audit.jsonl')
    const recorder = await openRecorder(auditConfig(path), { instance: 'i', log: () => {}, classifyWithin: 20_000 })
    const late = job('18700000412', 's1')
    if (late.principal === undefined) throw new Error('the test identity has a principal')
    const session = recorder.session({ ...late, principal: { ...late.principal, expiresAt: 1_000 } }, 'full')
    const other = recorder.session(job('2', 's2'), 'full')
    for (const one of [session, other]) one.event({ event: 'session.started', outcome: 'success' })
    session.statement(statement('drop table public.orders'))
    session.statement(statement('drop owned by shop_migrator'))
    await recorder.rotate()
    session.statement(statement('select 1 from public.orders', { tx: 'failed' }))
    const decision = { code: 'no_matching_rule', nearest: [{ rule: 'migrate' }] }
    recorder.event({ event: 'session.denied', outcome: 'denied', fields: { pgusher: { decision } } }, job('3', 's3'))
    other.event({ event: 'session.ended', outcome: 'success' })
    await recorder.close()
    const docs = readFileSync(new URL('../../docs/audit.md', import.meta.url), 'utf8')
    const questions = [...docs.matchAll(/^jq .+$/gm)].map(([line]) =>
      line.replace('2026-11-17T10', '2000').replace('2026-11-17T11', '3000'),
    )
    const answers = questions.map((line) => execFileSync('bash', ['-c', line], { cwd: directory, encoding: 'utf8' }))
    expect(answers).toEqual([
      expect.stringMatching(/^\[[^\n]*"drop table public\.orders"\]\n$/),
      expect.stringMatching(/^\[[^\n]*"drop owned by shop_migrator"\]\n$/),
      expect.stringMatching(/^\[[^\n]*"session\.started"(?:[^\n]*\n){4}$/),
      expect.stringMatching(/^ *1 no_matching_rule\tmigrate-production\n$/),
      expect.stringMatching(/^\["s1",\d+,"select 1 from public\.orders"\]\n$/),
      's1\n',
      's1\n',
    ])
  },
)
