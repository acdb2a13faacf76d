/** What must hold when a fault is over: no session, no role, no descriptor and no event is missing or left. */
import { readdir, readFile, readlink } from 'node:fs/promises'
import { get } from 'node:http'
import type { ListenAddress } from '../../src/config/scalars.ts'
import { eventually } from './shop.ts'

/** Values by name and labels, e.g. `pgusher_denials_total{code="draining"}`. */
export type Samples = ReadonlyMap<string, number>

export interface Event {
  event: string
  session?: { id: string }
  client?: { port?: number }
  pgusher: Record<string, unknown> & { seq: number; outcome: string }
}

/** A pgusher in a process of its own, what it writes, and what the superuser sees. */
export interface Watched {
  pid: number
  httpAddress: ListenAddress
  /** Audit files, oldest first. */
  auditFiles(): Promise<readonly string[]>
  admin(sql: string): Promise<readonly Record<string, unknown>[]>
}

/** Without an agent: a connection that is kept would be counted as a descriptor. */
export async function readMetrics(address: ListenAddress): Promise<Samples> {
  const port = address.kind === 'tcp' ? address.port : 0
  const text = await new Promise<string>((resolve, reject) => {
    const request = get({ host: '127.0.0.1', port, path: '/metrics', agent: false }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.once('end', () => resolve(Buffer.concat(chunks).toString())).once('error', reject)
    })
    request.once('error', reject)
  })
  const samples = text.matchAll(/^([a-z0-9_]+(?:\{[^}]*\})?) (\S+)$/gm)
  return new Map([...samples].map(([, name = '', value]) => [name, Number(value)]))
}

/** All labels of a metric together. */
export function total(samples: Samples, name: string): number {
  let sum = 0
  for (const [key, value] of samples) if (key === name || key.startsWith(`${name}{`)) sum += value
  return sum
}

/** Sockets of a process, which is what connections leave behind; the rest are files, pipes and timers of Node's own. */
export async function openSockets(pid: number): Promise<number> {
  const names = await readdir(`/proc/${pid}/fd`)
  const targets = await Promise.all(names.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => '')))
  return targets.filter((target) => target.startsWith('socket:')).length
}

export async function readAudit(files: readonly string[]): Promise<Event[]> {
  const texts = await Promise.all(files.map((file) => readFile(file, 'utf8')))
  const lines = texts.flatMap((text) => text.split('\n').slice(0, -1))
  // A soak has hundreds of thousands of them.
  return lines.map((line) => {
    const { event, session, client, pgusher } = JSON.parse(line) as Event
    const { seq, outcome, totals } = pgusher
    return { event, pgusher: { seq, outcome, totals }, ...(session && { session }), ...(client && { client }) }
  })
}

/** What stands in the way of saying that nothing is missing; empty where nothing does. */
export function missingEvents(events: readonly Event[], samples: Samples): string[] {
  const wrong: string[] = []
  const compare = (what: string, recorded: number, counted: number): void => {
    if (recorded !== counted) wrong.push(`${what}: ${recorded} in the audit, ${counted} in the metrics`)
  }
  const named = (...names: string[]): Event[] => events.filter(({ event }) => names.includes(event))
  const gap = events.findIndex(({ pgusher }, index) => pgusher.seq !== index + 1)
  if (gap >= 0) wrong.push(`the sequence breaks at line ${gap + 1}: ${events[gap]?.pgusher.seq}`)
  compare('events', events.length, total(samples, 'pgusher_audit_events_total'))
  compare('statements', named('statement', 'statement.denied').length, total(samples, 'pgusher_statements_total'))
  const denied = named('session.denied')
  const refused = named('statement.denied').length
  compare('denials', denied.length + refused, total(samples, 'pgusher_denials_total'))
  const ended = named('session.ended')
  const silent = samples.get('pgusher_sessions_total{outcome="failure",code="no_startup"}') ?? 0
  compare('sessions', ended.length + denied.length, total(samples, 'pgusher_sessions_total') - silent)
  return [...wrong, ...unfinished(events, ended)]
}

/**
 * The same of one log that several processes wrote one after another, as a worker does whose predecessor was killed: what that one had in
 * memory is lost with it, and everything else is there.
 */
export function missingInLog(events: readonly Event[]): string[] {
  const processes: Event[][] = []
  for (const event of events) {
    if (event.event === 'audit.started') processes.push([])
    processes.at(-1)?.push(event)
  }
  const gaps = processes.flatMap((own) => {
    const gap = own.findIndex(({ pgusher }, index) => pgusher.seq !== index + 1)
    return gap < 0 ? [] : [`the sequence breaks at ${own[gap]?.pgusher.seq}`]
  })
  const last = processes.at(-1) ?? []
  return [
    ...gaps,
    ...unfinished(
      last,
      last.filter(({ event }) => event === 'session.ended'),
    ),
  ]
}

/** Sessions without an end, and those whose totals are not what is on record. */
function unfinished(events: readonly Event[], ended: readonly Event[]): string[] {
  const statements = new Map<string | undefined, number>()
  for (const { event, session } of events) {
    if (event === 'statement' || event === 'statement.denied')
      statements.set(session?.id, (statements.get(session?.id) ?? 0) + 1)
  }
  const over = new Set(ended.map(({ session }) => session?.id))
  const open = events.filter(({ event, session }) => event === 'session.started' && !over.has(session?.id))
  const short = ended.filter(({ session, pgusher }) => {
    const { totals } = pgusher as unknown as { totals: { statements: number } }
    return totals.statements !== (statements.get(session?.id) ?? 0)
  })
  return [
    ...open.map(({ session }) => `session ${session?.id} has no end`),
    ...short.map(({ session }) => `session ${session?.id} has other statements than its totals say`),
  ]
}

const BACKENDS = `SELECT usename::text AS name FROM pg_stat_activity
  WHERE backend_type = 'client backend' AND (usename LIKE 'pgu\\_%' OR usename IS NULL)
  UNION ALL SELECT rolname FROM pg_roles WHERE rolname LIKE 'pgu\\_%'`

/** Sessions, credentials, roles, backends and sockets that are left now, in words. */
export async function leftNow(watched: Watched, sockets: number, samples: Samples): Promise<string[]> {
  const gauges = ['pgusher_sessions', 'pgusher_unauthenticated_connections', 'pgusher_credentials']
  const [backends, open] = await Promise.all([watched.admin(BACKENDS), openSockets(watched.pid)])
  // With workers there is one of each for each of them.
  const known = (name: string): boolean => [...samples.keys()].some((key) => key === name || key.startsWith(`${name}{`))
  const values = gauges.map((name) => ({ name, value: known(name) ? total(samples, name) : undefined }))
  return [
    ...values.filter(({ value }) => value !== 0).map(({ name, value }) => `${name} is ${value}`),
    ...backends.map(({ name }) => `role or backend ${name}`),
    ...(open > sockets ? [`${open - sockets} sockets more than the ${sockets} before`] : []),
  ]
}

/** The same with what is missing in the audit. */
export async function whatIsLeft(watched: Watched, sockets: number): Promise<string[]> {
  const samples = await readMetrics(watched.httpAddress)
  const left = await leftNow(watched, sockets, samples)
  // The audit is long, and complete only when the rest is over.
  return left.length > 0 ? left : missingEvents(await readAudit(await watched.auditFiles()), samples)
}

/** @param sockets of before the fault. @throws Error with what is left after `timeout` ms */
export async function nothingLeft(watched: Watched, sockets: number, timeout = 20_000): Promise<void> {
  let left: string[] = []
  await eventually(async () => {
    left = await whatIsLeft(watched, sockets)
    return left.length === 0
  }, timeout).catch(() => {
    throw new Error(`left behind after ${timeout} ms:\n${left.join('\n')}`)
  })
}
