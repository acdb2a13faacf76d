/**
 * Random pipelines under a rule about statements, beside the same ones without a rule in which what is refused is replaced by what
 * fails: the job sees the same of both, PostgreSQL does the same, and nothing that was refused stands in PostgreSQL's log.
 */
import { readFile } from 'node:fs/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { RULES, type RuleInput, type Stage, type StageEvent, startStage } from '../support/pgusher.ts'
import { eventually } from '../support/postgres.ts'
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

const PIPELINES = 60

const ALLOWED = {
  ok: 'select 1',
  write: 'insert into TABLE values (ID)',
  err: 'select 1/0',
  begin: 'begin',
  commit: 'commit',
  rollback: 'rollback',
  save: 'savepoint s',
  back: 'rollback to s',
  copyin: 'copy TABLE from stdin',
  copyout: 'copy (select 1) to stdout',
  late: 'insert into late_TABLE values (1), (1)',
  prepare: 'prepare sqlp as select 3',
  execute: 'execute sqlp',
}
const REFUSED = {
  ddl: 'create table made ()',
  drop: 'drop table TABLE',
  code: 'do $$ begin delete from TABLE; end $$',
  bad: 'selekt 1',
  hidden: `select 'it''s', E'\\' --' || f(1)`,
  into: 'select 1 as a into made union select 2',
}
type Allowed = keyof typeof ALLOWED
type Refused = keyof typeof REFUSED
type Verb = Allowed | Refused

/** Makes a message of the texts of some statements; a refused one has its own place in a pipeline. */
type Maker = (text: (verbs: readonly Verb[]) => string) => Buffer

const COMMITS: [Maker[], number[]] = [[(text) => query(text(['write']))], [1_000_000]]

const allowed = fc.constantFrom<Allowed>('ok', 'ok', 'write', 'write', 'begin', ...(Object.keys(ALLOWED) as Allowed[]))
const verb: fc.Arbitrary<Verb> = fc.oneof(
  { weight: 3, arbitrary: allowed },
  { weight: 1, arbitrary: fc.constantFrom(...(Object.keys(REFUSED) as Refused[])) },
)
const name = fc.constantFrom('', '', 'a', 'b')
const fixed = (...bytes: readonly Buffer[]): fc.Arbitrary<Maker> =>
  fc.constantFrom(...bytes).map(
    (one): Maker =>
      () =>
        one,
  )
const message: fc.Arbitrary<Maker> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.array(verb, { minLength: 1, maxLength: 3 }).map(
      (verbs): Maker =>
        (text) =>
          query(text(verbs)),
    ),
  },
  {
    weight: 5,
    arbitrary: verb.map(
      (one): Maker =>
        (text) =>
          run(text([one])),
    ),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(name, verb).map(
      ([to, one]): Maker =>
        (text) =>
          parse(to, text([one])),
    ),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(name, name).map(
      ([to, from]): Maker =>
        () =>
          Buffer.concat([bind(to, from), execute(to)]),
    ),
  },
  { weight: 1, arbitrary: fixed(describe('S', 'a'), close('S', 'a'), close('P', '')) },
  { weight: 5, arbitrary: fixed(sync, sync, sync, flush) },
  { weight: 2, arbitrary: fixed(copyData('1\n'), copyData('no number\n'), copyDone, copyDone, copyFail('no')) },
)

const rule = (name: string, shape: number, allow: Partial<NonNullable<RuleInput['allow']>>): RuleInput => ({
  ...RULES[shape]!,
  name,
  allow: { database: 'shop-prod', role: 'shop_migrator', max_connections: 50, ...allow },
})

let stage: Stage
beforeAll(async () => {
  stage = await startStage({
    rules: [rule('limited', 0, { statements: ['READ', 'WRITE'] }), rule('free', 1, {})],
  })
  for (const table of ['ruled', 'plain']) {
    await stage.admin(
      `set role shop_migrator;
       create table public.${table} (n int);
       create table public.late_${table} (n int, constraint once_${table} unique (n) deferrable initially deferred);`,
      'shop',
    )
  }
  await stage.admin(`alter database shop set log_statement = 'all'`)
})
afterAll(async () => {
  await stage?.admin('alter database shop reset log_statement')
  await stage?.close()
})

interface Side {
  table: 'ruled' | 'plain'
  token: string
  client: RawClient
}

async function open(table: Side['table']): Promise<Side> {
  const token = await stage.token(table === 'ruled' ? 'github' : 'gitlab')
  return { table, token, client: await rawSession(stage, { token }) }
}

/** What the job sees of one pipeline, errors of ours and those in their place as `E refused`. Undefined where the session ended. */
async function play(side: Side, parts: readonly Buffer[], end: string): Promise<string[] | undefined> {
  const { client } = side
  for (const part of parts) client.send(part)
  client.send(copyFail('end'), sync, query('rollback'), query('deallocate all'), query(`select '${end}'`))
  const seen: string[] = []
  try {
    while (!seen.includes(`D ${end}`)) seen.push(...(await client.until('Z')))
  } catch {
    side.client.socket.destroy()
    side.client = await rawSession(stage, { token: side.token })
    return undefined
  }
  return seen.map((text) =>
    /^E (?:42501 statement refused|42601 syntax error at or near "replaced")/.test(text)
      ? 'E refused'
      : text.replaceAll(side.table, 'TABLE'),
  )
}

/** @param sizes of the pieces, again and again */
function cut(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const parts: Buffer[] = []
  for (let at = 0, index = 0; at < bytes.length; index++) {
    const size = sizes[index % sizes.length]!
    parts.push(bytes.subarray(at, at + size))
    at += size
  }
  return parts
}

test('invariant 23: a pipeline does what it would do if what is refused failed', async () => {
  const sides = [await open('ruled'), await open('plain')] as const
  let next = 1
  /** Ids of statements in texts that were refused, by the pipeline. */
  const refused = new Map<number, number>()
  let sessions = 0
  const plan = fc.tuple(
    fc.array(message, { minLength: 3, maxLength: 12, size: 'max' }),
    fc.oneof(fc.constant([1_000_000]), fc.constant([1]), fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1 })),
  )
  for (const [index, [makers, sizes]] of [COMMITS, ...fc.sample(plan, PIPELINES)].entries()) {
    const first = next
    const seen = []
    for (const side of sides) {
      next = first
      const text = (verbs: readonly Verb[]): string => {
        const out = verbs.some((one) => one in REFUSED)
        const ids = verbs.map(() => next++)
        if (out) for (const id of ids) refused.set(id, index)
        if (out && side.table === 'plain') return 'replaced by what fails'
        const texts: Record<string, string> = { ...ALLOWED, ...REFUSED }
        return verbs
          .map((one, at) =>
            `${texts[one]} /*${ids[at]}*/`.replaceAll('TABLE', side.table).replaceAll('ID', `${ids[at]}`),
          )
          .join(';')
      }
      const bytes = Buffer.concat(makers.map((make) => make(text)))
      seen.push(await play(side, cut(bytes, sizes), `end ${index}`))
    }
    expect(seen[0]).toEqual(seen[1])
    if (seen[0] === undefined) {
      sessions++
      for (const [id, pipeline] of refused) if (pipeline === index) refused.set(id, -1)
    }
  }
  expect(sessions).toBeLessThan(PIPELINES / 3)
  const contents = await Promise.all(
    ['ruled', 'plain'].map((table) => stage.admin(`select n from public.${table} order by n`, 'shop')),
  )
  expect(contents[0]).toEqual(contents[1])
  // Whether one of the others commits something is chance.
  expect(contents[0]!.length).toBeGreaterThan(0)
  for (const { client } of sides) client.socket.destroy()
  await eventually(async () => (await stage.events('session.ended')).length === 2 * (sessions + 1))
  const denied = idsOf(await stage.events('statement.denied'))
  expect(new Set(denied).size).toBe(denied.length)
  const complete = [...refused].filter(([, pipeline]) => pipeline >= 0).map(([id]) => id)
  expect(complete.filter((id) => !denied.includes(id))).toEqual([])
  expect(denied.filter((id) => !refused.has(id))).toEqual([])
  const ran = idsOf(await stage.events(({ event, pgusher }) => event === 'statement' && pgusher.outcome === 'success'))
  expect(ran.filter((id) => refused.has(id))).toEqual([])
  const log = await readFile(stage.server.logFile, 'utf8')
  const logged = [...log.matchAll(/\/\*(\d+)\*\//g)].map(([, id]) => Number(id))
  expect(logged.length).toBeGreaterThan(PIPELINES)
  expect(logged.filter((id) => refused.has(id))).toEqual([])
})

function idsOf(events: readonly StageEvent[]): number[] {
  return events.flatMap((event) => {
    const { text = '' } = (event as unknown as { db: { query?: { text?: string } } }).db.query ?? {}
    return [...text.matchAll(/\/\*(\d+)\*\//g)].map(([, id]) => Number(id))
  })
}
