/** Faults that take more than a test may: a herd, readers that do not read, no descriptors, and SIGKILL. Each is told with its time. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile } from 'node:fs/promises'
import { availableParallelism, loadavg } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { leftNow, missingInLog, readAudit, readMetrics } from '../test/support/nothing-left.ts'
import { query, type RawClient, rawSession, terminate } from '../test/support/raw-client.ts'
import { eventually } from '../test/support/shop.ts'
import type { Standalone } from '../test/support/standalone.ts'

const MiB = 1024 * 1024

export interface HeavyOutcome {
  fault: string
  /** What a client sees, with figures. */
  seen: string
  violations: string[]
}

interface Attempt {
  /** SQLSTATE, `served`, or how the connection ended. */
  outcome: string
  /** Milliseconds. */
  after: number
}

async function attempt(stage: Standalone, token: string): Promise<Attempt> {
  const at = performance.now()
  const outcome = await rawSession(stage, { token }).then(
    async (client) => {
      const answer = await client.ask(query('select 1')).catch((error: Error) => [error.message])
      client.send(terminate)
      await client.rest()
      return answer.includes('D 1') ? 'served' : String(answer)
    },
    ({ message }: Error) => /^E (\w{5})/.exec(message)?.[1] ?? message,
  )
  return { outcome, after: performance.now() - at }
}

function countsOf(attempts: readonly Attempt[]): string {
  const counts = Map.groupBy(attempts, ({ outcome }) => outcome)
  return [...counts].map(([outcome, all]) => `${all.length} ${outcome}`).join(', ')
}

const slowest = (attempts: readonly Attempt[]): number => Math.max(...attempts.map(({ after }) => after))
const seconds = (milliseconds: number): string => `${(milliseconds / 1_000).toFixed(1)} s`

/** Jobs of 50 connections each, which their rule allows; PostgreSQL has 200 in all. */
async function herd(stage: Standalone): Promise<HeavyOutcome> {
  const tokens = await Promise.all(
    Array.from({ length: 20 }, (_, job) => stage.issuer.token('github', { run_id: `${6_000 + job}` })),
  )
  // On a machine whose cores are taken by others, logins end with their deadline: 08006 and 57P03.
  const busy = (loadavg()[0] ?? 0) > 1.5 * availableParallelism()
  const fetches = stage.issuer.requests.github.jwks
  const attempts: Promise<Attempt>[] = []
  for (let tenth = 0; tenth < 10; tenth++) {
    for (let one = 0; one < 100; one++) attempts.push(attempt(stage, tokens[one % tokens.length]!))
    await delay(100)
  }
  const done = await Promise.all(attempts)
  const keys = stage.issuer.requests.github.jwks - fetches
  const violations: string[] = []
  const told = busy ? ['served', '53300', '08006', '57P03'] : ['served', '53300']
  if (slowest(done) > (busy ? 20_000 : 15_000)) violations.push(`herd: one waited ${seconds(slowest(done))}`)
  if (done.some(({ outcome }) => !told.includes(outcome))) violations.push(`herd: ${countsOf(done)}`)
  if (keys > 1) violations.push(`herd: ${keys} fetches of keys`)
  return {
    fault: '1,000 connects in a second',
    seen: `${countsOf(done)}, the last after ${seconds(slowest(done))}${busy ? ', on a busy machine' : ''}`,
    violations,
  }
}

async function resident({ pid }: Standalone): Promise<number> {
  return Number(/VmRSS:\s+(\d+) kB/.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
}

async function readers(stage: Standalone): Promise<HeavyOutcome> {
  const count = 100
  const clients: RawClient[] = []
  for (let job = 0; clients.length < count; job++) {
    const token = await stage.issuer.token('github', { run_id: `${7_000 + job}` })
    clients.push(...(await Promise.all(Array.from({ length: 25 }, () => rawSession(stage, { token })))))
  }
  const before = await resident(stage)
  // A gigabyte each, of which nobody reads a byte.
  for (const client of clients) client.send(query(`select repeat('x', 1000), generate_series(1, 1000000)`))
  await eventually(async () => {
    const waiting = await stage.admin(
      `select 1 from pg_stat_activity where usename like 'pgu\\_%' and wait_event = 'ClientWrite'`,
    )
    return waiting.length === count
  }, 60_000)
  await delay(1_000)
  const each = ((await resident(stage)) - before) / count / MiB
  const healthy = await attempt(stage, await stage.issuer.token('github'))
  for (const client of clients) client.reset()
  const violations = each < 2 ? [] : [`readers: ${each.toFixed(2)} MiB each`]
  if (healthy.outcome !== 'served') violations.push(`readers: another job got ${healthy.outcome}`)
  return {
    fault: '100 readers of 1 GB that do not read',
    seen: `${each.toFixed(2)} MiB each; another job is served in ${seconds(healthy.after)}`,
    violations,
  }
}

async function descriptors(stage: Standalone): Promise<HeavyOutcome> {
  const open = (await readdir(`/proc/${stage.pid}/fd`)).length
  const limit = (count: number): void =>
    void execFileSync('prlimit', [`--nofile=${count}:`, '--pid', String(stage.pid)], { stdio: 'ignore' })
  const [, usual] = /Max open files\s+(\d+)/.exec(await readFile(`/proc/${stage.pid}/limits`, 'utf8')) ?? []
  const token = await stage.issuer.token('github')
  using running = await rawSession(stage, { token })
  limit(open + 12)
  const attempts = await Promise.all(Array.from({ length: 40 }, () => attempt(stage, token)))
  const [answer] = (await running.ask(query('select 1'))).slice(1)
  limit(Number(usual))
  const again = await eventually(async () => {
    const next = await attempt(stage, token)
    return next.outcome === 'served' && next
  })
  running.send(terminate)
  await running.rest()
  const violations = answer === 'D 1' ? [] : ['descriptors: a running session broke']
  if (stage.pgusher.child?.exitCode !== null) violations.push('descriptors: pgusher ended')
  return {
    fault: 'file descriptors used up',
    seen: `${countsOf(attempts)}, within ${seconds(slowest(attempts))}; running sessions go on; served again ${seconds(again.after)} after there were some`,
    violations,
  }
}

/** The last one: what the process counted is gone with it. */
export async function killed(stage: Standalone): Promise<HeavyOutcome> {
  const client = await rawSession(stage, { token: await stage.issuer.token('github') })
  client.send(query('select pg_sleep(600)'))
  const backends = () => stage.admin(`select 1 from pg_stat_activity where usename like 'pgu\\_%'`)
  await eventually(async () => (await backends()).length === 1)
  const at = performance.now()
  stage.pgusher.child?.kill('SIGKILL')
  await once(stage.pgusher.child!, 'exit')
  const told = await client.rest()
  const noticed = performance.now() - at
  await stage.restart()
  const restarted = performance.now()
  await eventually(async () => (await backends()).length === 0, 60_000)
  const backendGone = performance.now() - restarted
  await eventually(
    async () => (await stage.admin(`select 1 from pg_roles where rolname like 'pgu\\_%'`)).length === 0,
    60_000,
  )
  const roleGone = performance.now() - restarted
  const left = await leftNow(stage, stage.idleSockets, await readMetrics(stage.httpAddress))
  const missing = missingInLog(await readAudit(await stage.auditFiles()))
  return {
    fault: 'SIGKILL in mid statement',
    seen: `${told.at(-1) ?? 'the end of the connection'} after ${seconds(noticed)}; its backend is gone ${seconds(backendGone)} after the restart, its role ${seconds(roleGone)}`,
    violations: [
      ...(roleGone < 60_000 ? [] : [`killed: the role was there for ${seconds(roleGone)}`]),
      ...left.map((what) => `killed: left: ${what}`),
      ...missing.map((what) => `killed: ${what}`),
    ],
  }
}

export const HEAVY: readonly ((stage: Standalone) => Promise<HeavyOutcome>)[] = [herd, readers, descriptors]
