/**
 * Random pipelines on real PostgreSQL, whose own log says what ran: nothing may be missing in the audit, nothing may be a success that
 * did not run, and SQLSTATEs agree.
 */
import { readFile } from 'node:fs/promises'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type Stage, type StageEvent, startStage } from '../support/pgusher.ts'
import { eventually, setupShop, startPostgres } from '../support/postgres.ts'
import {
  bind,
  close,
  copyData,
  copyDone,
  copyFail,
  describe,
  execute,
  flush,
  parse,
  query,
  type RawClient,
  rawSession,
  run,
  sync,
} from '../support/raw-client.ts'
import { wasExecuted } from '../support/statement-events.ts'

const PIPELINES = 300

/** Each statement carries an id, by which its record and PostgreSQL's log are compared. */
const SQL = {
  ok: 'select 1',
  rows: 'select generate_series(1, 5)',
  write: 'insert into numbers values (1)',
  err: 'select 1/0',
  missing: 'select * from nowhere',
  begin: 'begin',
  commit: 'commit',
  rollback: 'rollback',
  save: 'savepoint s',
  copyin: 'copy numbers from stdin',
  copyout: 'copy numbers to stdout',
  copybad: 'copy guarded from stdin',
  declare: 'declare a cursor for select 1',
  late: 'insert into late values (1), (1)',
}
type Verb = keyof typeof SQL

const names = fc.constantFrom('', '', 'a', 'b')
const verb = fc.constantFrom<Verb>('ok', 'ok', 'rows', 'write', 'err', ...(Object.keys(SQL) as Verb[]))
const of = fc.tuple(fc.constantFrom('S' as const, 'P' as const), names)
type Maker = (text: (verb: Verb) => string) => Buffer
const message: fc.Arbitrary<Maker> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.array(verb, { minLength: 1, maxLength: 3 }).map(
      (all): Maker =>
        (text) =>
          query(all.map((each) => text(each)).join(';')),
    ),
  },
  {
    weight: 3,
    arbitrary: verb.map(
      (word): Maker =>
        (text) =>
          run(text(word)),
    ),
  },
  { weight: 1, arbitrary: fc.constant<Maker>((text) => Buffer.concat([run(text('late')), sync])) },
  {
    weight: 2,
    arbitrary: fc.tuple(names, verb).map(
      ([name, word]): Maker =>
        (text) =>
          parse(name, text(word)),
    ),
  },
  { weight: 1, arbitrary: fc.constant<Maker>((text) => parse('', `selekt ${text('ok')}`)) },
  {
    weight: 2,
    arbitrary: fc.tuple(names, names).map(
      ([to, from]): Maker =>
        () =>
          bind(to, from),
    ),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(names, fc.nat(2)).map(
      ([portal, most]): Maker =>
        () =>
          execute(portal, most),
    ),
  },
  {
    weight: 1,
    arbitrary: of.map(
      (which): Maker =>
        () =>
          describe(...which),
    ),
  },
  {
    weight: 1,
    arbitrary: of.map(
      (which): Maker =>
        () =>
          close(...which),
    ),
  },
  {
    weight: 4,
    arbitrary: fc.constantFrom(sync, sync, sync, flush).map(
      (bytes): Maker =>
        () =>
          bytes,
    ),
  },
  {
    weight: 3,
    arbitrary: fc.constantFrom(copyData('1\n'), copyData('no number\n'), copyDone, copyDone, copyFail('no')).map(
      (bytes): Maker =>
        () =>
          bytes,
    ),
  },
)

interface Outcome {
  /** Of the statements in it: of all of a Query in PostgreSQL's log. */
  ids: string[]
  /** SQLSTATE, '' for success. */
  code: string
}

const idsOf = (text: string): string[] => [...text.matchAll(/\/\*(\d+)\*\//g)].map(([, id]) => id ?? '')

/** What PostgreSQL says it ran, in order, by backend. */
function fromLog(log: string): Map<string, Outcome[]> {
  const backends = new Map<string, Outcome[]>()
  const failed = new Map<string, Outcome>()
  for (const line of log.split('\n')) {
    const [, pid, code = '', kind, text = ''] = /^(\d+) (\w{5}) (\w+): {2}(.*)$/.exec(line) ?? []
    if (pid === undefined) continue
    const told = backends.get(pid) ?? []
    backends.set(pid, told)
    if (kind === 'LOG' && /^duration: \S+ ms {2}(statement|execute [^:]*): /.test(text)) {
      told.push({ ids: idsOf(text), code: '' })
    } else if (kind === 'ERROR') {
      const outcome = { ids: [], code }
      failed.set(pid, outcome)
      told.push(outcome)
    } else if (kind === 'STATEMENT') failed.get(pid)?.ids.push(...idsOf(text))
  }
  return backends
}

/** The same of the audit, by session. A Parse or Bind that failed alone, and an execution that carries its error, stand for it. */
function fromAudit(events: readonly StageEvent[]): Map<string, Outcome[]> {
  const sessions = new Map<string, Outcome[]>()
  for (const event of events) {
    const { session, db, error } = event as unknown as {
      session: { id: string }
      db: { query?: { text?: string }; response: { status_code?: string } }
      error?: { type: string }
    }
    if (error?.type === 'not_executed' || !wasExecuted(event)) continue
    // An Execute of an empty portal runs nothing, and PostgreSQL's log is silent about it.
    if (event.pgusher['protocol'] === 'extended' && db.query?.text === '') continue
    const told = sessions.get(session.id) ?? []
    sessions.set(session.id, told)
    const { outcome, batch_index } = event.pgusher
    const code = outcome === 'success' ? '' : (db.response.status_code ?? outcome)
    const last = told.at(-1)
    // The statements of one Query as one outcome, which is that of the last.
    if (batch_index !== 0 && last !== undefined) last.code = code
    else told.push({ ids: idsOf(db.query?.text ?? ''), code })
  }
  return sessions
}

async function prepare(): Promise<Stage> {
  const server = await startPostgres({
    settings: { log_min_duration_statement: '0', log_line_prefix: '%p %e ', log_error_verbosity: 'terse' },
  })
  const stage = await startStage({ upstream: { server, shop: await setupShop(server) } })
  await stage.admin(
    `set role shop_migrator;
     create table public.numbers (n int);
     create table public.late (n int, constraint once unique (n) deferrable initially deferred);
     create function public.refuse() returns trigger language plpgsql as 'begin raise exception $$no$$; end';
     create table public.guarded (n int);
     create trigger guard before insert on public.guarded for each statement execute function public.refuse();`,
    'shop',
  )
  return stage
}

/** Runs one pipeline to its end. False where the session ended with it. */
async function play(client: RawClient, bytes: Buffer, end: string): Promise<boolean> {
  client.send(bytes, copyFail('end'), sync, query('rollback /*0*/'), query(`select '${end}' /*0*/`))
  try {
    while (!(await client.until('Z')).includes(`D ${end}`));
    return true
  } catch {
    return false
  }
}

test('invariant 35: the audit and the log of PostgreSQL agree on random pipelines', async () => {
  const stage = await prepare()
  let next = 1
  const text = (word: Verb): string => `${SQL[word]} /*${next++}*/`
  const pipelines = fc.sample(fc.array(message, { minLength: 3, maxLength: 15, size: 'max' }), PIPELINES)
  const token = await stage.token()
  let client = await rawSession(stage, { token })
  let sessions = 1
  for (const [index, makers] of pipelines.entries()) {
    if (await play(client, Buffer.concat(makers.map((make) => make(text))), `end ${index}`)) continue
    client.socket.destroy()
    client = await rawSession(stage, { token })
    sessions++
  }
  client.socket.destroy()
  await eventually(async () => (await stage.events('session.ended')).length === sessions)
  const events = await stage.events(({ event }) => event === 'statement')
  await stage.close()
  const log = fromLog(await readFile(stage.server.logFile, 'utf8'))
  await stage.server.stop()
  const audit = fromAudit(events)
  let [labelled, all] = [0, 0]
  expect(sessions).toBeLessThan(PIPELINES / 4)
  for (const told of audit.values()) {
    const own = new Set(
      told
        .filter(isNamed)
        .flatMap(({ ids }) => ids)
        .filter((id) => id !== '0'),
    )
    if (own.size === 0) continue
    const ran = [...log.values()].find((all) => all.some(({ ids }) => ids.some((id) => own.has(id)))) ?? []
    const [left, right] = [withCommits(told).filter(isNamed), withCommits(ran).filter(isNamed)]
    // Where the session ended in the middle, what has no outcome may have run or not.
    const known = left.findIndex(({ code }) => code === 'unknown')
    const count = known >= 0 ? known : Math.max(left.length, right.length)
    expect(left.slice(0, count).map((outcome, index) => shown(outcome, right[index]))).toEqual(
      right.slice(0, count).map((outcome, index) => shown(outcome, left[index])),
    )
    labelled += left.filter(({ ids }) => ids.length > 0).length
    all += left.length
  }
  expect(labelled / all).toBeGreaterThan(0.95)
})

/**
 * A name that is not there, a transaction that has failed, "unexpected state STARTED" (of PostgreSQL itself, behind a Query within a
 * pipeline): nothing ran, and of a Describe or Close that met it there is no record.
 */
const NAMELESS = ['26000', '34000', '25P02', 'XX000']
const isNamed = ({ code }: Outcome): boolean => !NAMELESS.includes(code)
/** A label that one side is not sure of is not compared. */
const shown = ({ ids, code }: Outcome, other: Outcome | undefined): string =>
  `${other?.ids.length === 0 ? undefined : ids[0]} ${code}`

/** An error without a statement is that of a commit at Sync: it belongs to what was executed before it. */
function withCommits(ran: readonly Outcome[]): Outcome[] {
  const folded: Outcome[] = []
  for (const { ids, code } of ran) {
    const last = folded.at(-1)
    if (ids.length === 0 && code !== '' && !NAMELESS.includes(code) && last?.code === '') last.code = code
    else folded.push({ ids, code })
  }
  return folded
}
