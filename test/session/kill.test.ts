/** Whom an order means, and what is done to them, with real windows and bars and sessions that only say so. */
import { expect, test } from 'vitest'
import type { AuditEvent, JobIdentity } from '../../src/audit/recorder.ts'
import { configSchema } from '../../src/config/schema.ts'
import type { Principal } from '../../src/identity/principal.ts'
import { createBars } from '../../src/session/bars.ts'
import { createJobWindows } from '../../src/session/job-windows.ts'
import { type KillContext, type KillResult, type KillTarget, kill } from '../../src/session/kill.ts'
import type { Snapshot } from '../../src/session/proxy-context.ts'
import { createRegistry, type LiveSession } from '../../src/session/registry.ts'
import { createLog } from '../../src/telemetry/log.ts'
import { grantOf, principalOf } from '../support/mint.ts'

const MINUTE = 60_000
const config = configSchema.parse({
  version: 1,
  listen: { address: '127.0.0.1:0' },
  issuers: { github: { preset: 'github-actions', audience: 'x' } },
  databases: {},
})

interface Stage {
  context: KillContext
  /** Ids of the sessions that were ended, with what their job was told. */
  ended: Map<string, string>
  events: { event: AuditEvent; identity: JobIdentity | undefined }[]
  given: string[]
  add(id: string, principal: Principal, rule?: string): void
  kill(by: KillTarget['by'], value: string): Promise<KillResult>
  barred(principal: Principal): boolean
}

function stageOf(giveBackJob: (jobKey: string) => Promise<number> = async () => 2): Stage {
  const registry = createRegistry()
  const windows = createJobWindows()
  const bars = createBars(() => 0)
  const ended = new Map<string, string>()
  const events: Stage['events'] = []
  const given: string[] = []
  const context: KillContext = {
    ...{ registry, windows, bars },
    current: () => ({ config }) as Snapshot,
    log: createLog({ level: 'info', destination: { write: () => {} } }),
    recorder: {
      event: (event: AuditEvent, identity?: JobIdentity) => void events.push({ event, identity }),
    } as KillContext['recorder'],
    tickets: {
      giveBackJob: (jobKey: string) => {
        given.push(jobKey)
        return giveBackJob(jobKey)
      },
      giveBackRun: async (runUrl: string) => {
        given.push(runUrl)
        return 3
      },
    } as NonNullable<KillContext['tickets']>,
  }
  return {
    ...{ context, ended, events, given },
    add(id, principal, rule = 'migrate-production') {
      const grant = grantOf({ rule, jobWindow: 45 * MINUTE })
      registry.add({
        ...{ id, principal, grant, ended: Promise.resolve() },
        record: (event: AuditEvent) => void events.push({ event, identity: undefined }),
        end: (_reason: string, error: Error) => void ended.set(id, error.message),
      } as unknown as LiveSession)
      windows.admit({ principal, grant, address: 'home', over: false }, 0)
    },
    kill: (by, value) => kill({ target: { by, value }, user: 'dana', reason: 'leaked' }, context, MINUTE),
    barred(principal) {
      try {
        bars.refuse(principal)
        return false
      } catch {
        return true
      }
    },
  }
}

const PAGE = 'https://ci.acme.example/shop/runs/1'
const job = (run: string, task = 'migrate', pipeline = 'shop'): Principal => ({
  ...principalOf(run),
  job: {
    runId: run,
    runUrl: `https://ci.acme.example/${pipeline}/runs/${run}`,
    repositoryUrl: `https://ci.acme.example/${pipeline}`,
  },
  jobKey: JSON.stringify(['https://ci.acme.example', pipeline, run, task]),
  tokenSha256: `${pipeline}/${run}/${task}`,
})

test('by a session: all sessions of its job, its windows and its tickets, and no other job', async () => {
  const stage = stageOf()
  stage.add('a', job('1'))
  stage.add('b', job('1'), 'report')
  stage.add('c', job('1', 'test'))
  const { jobKey } = job('1')
  expect(await stage.kill('session', 'a')).toMatchObject({
    ok: true,
    sessions: 2,
    windows: 2,
    tickets: 2,
    problems: [],
  })
  expect([...stage.ended.keys()]).toEqual(['a', 'b'])
  expect(stage.ended.get('a')).toBe('session ended by the operator (dana): leaked')
  expect(stage.given).toEqual([jobKey])
  expect([stage.barred(job('1')), stage.barred(job('1', 'test'))]).toEqual([true, false])
  expect(stage.context.windows.listOpen(MINUTE).map(({ principal }) => principal.jobKey)).toEqual([
    job('1', 'test').jobKey,
  ])
  expect(stage.events.map(({ event }) => event.event)).toEqual(['admin.command', 'session.killed', 'session.killed'])
  expect(stage.events[0]).toMatchObject({
    identity: { principal: { jobKey } },
    event: {
      fields: {
        pgusher: {
          admin: {
            command: 'kill',
            user: 'dana',
            user_source: 'told',
            target: { session: 'a' },
            reason: 'leaked',
            jobs: [jobKey],
            sessions: 2,
            windows: 2,
          },
        },
      },
    },
  })
})

test.each(['1', 'https://ci.acme.example/shop/runs/1', 'https://ci.acme.example/shop/runs/1/'])(
  'by run %s: all of its jobs, also those to come',
  async (run) => {
    const stage = stageOf()
    stage.add('a', job('1'))
    stage.add('b', job('1', 'test'))
    stage.add('c', job('11'))
    expect(await stage.kill('run', run)).toMatchObject({ sessions: 2 })
    expect(stage.barred(job('1', 'later'))).toBe(true)
    expect(stage.barred(job('11'))).toBe(false)
    // By its page too, for those that are not here.
    expect(stage.given).toEqual([job('1').jobKey, job('1', 'test').jobKey, run.startsWith('http') ? run : PAGE])
    expect(stage.events[0]?.identity).toBeUndefined()
  },
)

test('by the id of a run that several pipelines have: nobody, until it is said which', async () => {
  const stage = stageOf()
  stage.add('a', job('7'))
  stage.add('b', job('7', 'migrate', 'billing'))
  expect(await stage.kill('run', '7')).toEqual({
    ok: false,
    code: 'ambiguous',
    message:
      'several pipelines have a run of that id: "https://ci.acme.example/shop/runs/7" and "https://ci.acme.example/billing/runs/7". Give the run\'s URL, or --job',
  })
  expect([stage.ended.size, stage.events.length, stage.context.bars.size]).toEqual([0, 0, 0])
  expect(await stage.kill('run', 'https://ci.acme.example/billing/runs/7')).toMatchObject({ sessions: 1 })
  expect([...stage.ended.keys()]).toEqual(['b'])
})

test('by a rule: every job that it has let in, with what that job holds by other rules', async () => {
  const stage = stageOf()
  stage.add('a', job('1'), 'one')
  stage.add('b', job('2'), 'one')
  stage.add('c', job('2'), 'two')
  stage.add('d', job('3'), 'two')
  expect(await stage.kill('rule', 'one')).toMatchObject({ sessions: 3, jobs: [{ run_id: '1' }, { run_id: '2' }] })
  expect([...stage.ended.keys()]).toEqual(['a', 'b', 'c'])
})

test('by a job key, as it is shown or with spaces, connected or not', async () => {
  const stage = stageOf()
  stage.add('a', job('1'))
  const spaced = JSON.stringify(JSON.parse(job('1').jobKey), null, 1)
  expect(await stage.kill('job', spaced)).toMatchObject({ ok: true, sessions: 1 })
  expect(await stage.kill('job', job('2').jobKey)).toMatchObject({ ok: true, sessions: 0, jobs: [] })
  expect([stage.barred(job('1')), stage.barred(job('2')), stage.barred(job('3'))]).toEqual([true, true, false])
  expect(await stage.kill('job', 'migrate')).toMatchObject({ ok: false, code: 'malformed' })
})

test('by the URL of a run that is not here: its tickets, wherever they were given, and its jobs are barred', async () => {
  const stage = stageOf()
  stage.add('a', job('11'))
  expect(await stage.kill('run', PAGE)).toMatchObject({ ok: true, sessions: 0, tickets: 3, jobs: [], problems: [] })
  expect(stage.given).toEqual([PAGE])
  expect([stage.barred(job('1')), stage.barred(job('11'))]).toEqual([true, false])
})

test.each([
  ['session', 'x', 'no session "x" runs here'],
  ['run', '9', 'To bar a run that is not connected now, give its URL, or --job'],
  ['rule', 'x', 'change the policy and reload'],
] as const)('by a %s that is not there: nobody, and what to do', async (by, value, message) => {
  const stage = stageOf()
  stage.add('a', job('1'))
  expect(await stage.kill(by, value)).toMatchObject({ ok: false, message: expect.stringContaining(message) })
  expect([stage.ended.size, stage.context.bars.size]).toEqual([0, 0])
})

test('tickets that could not be given back are a problem that is told, and everything else is done', async () => {
  const stage = stageOf(() => Promise.reject(new Error('no database')))
  stage.add('a', job('1'))
  expect(await stage.kill('session', 'a')).toMatchObject({
    ok: true,
    sessions: 1,
    tickets: 0,
    problems: [expect.stringContaining('tickets could not be given back')],
  })
  expect(stage.barred(job('1'))).toBe(true)
})
