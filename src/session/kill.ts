/**
 * An operator ends jobs: their sessions, their windows and their tickets, and what they show from now on is refused. It is always
 * whole job attempts, since a token that was good for one session is good for another.
 */
import type { AuditEvent } from '../audit/recorder.ts'
import { quote, quoteList } from '../config/quote.ts'
import { AccessError } from '../errors.ts'
import { PRESETS } from '../identity/presets/index.ts'
import type { Principal } from '../identity/principal.ts'
import { runPage, withoutAttempt } from '../identity/run-page.ts'
import type { Bars } from './bars.ts'
import type { JobWindows } from './job-windows.ts'
import { type JobSummary, jobSummary } from './operator.ts'
import type { ProxyContext, Snapshot } from './proxy-context.ts'
import type { LiveSession } from './registry.ts'

export interface KillTarget {
  by: 'session' | 'run' | 'job' | 'rule'
  /** A session's id; a run's id or URL; a job attempt's key; a rule's name. */
  value: string
}

export interface KillOrder {
  target: KillTarget
  /** The operating system's user as the command tells it. */
  user: string
  /** Who called sudo, likewise. */
  sudoUser?: string
  reason: string
}

export type KillResult =
  | { ok: true; jobs: JobSummary[]; sessions: number; windows: number; tickets: number; problems: string[] }
  | { ok: false; code: 'not_found' | 'ambiguous' | 'malformed'; message: string }

export interface KillContext extends Pick<ProxyContext, 'tickets' | 'recorder' | 'current' | 'log'> {
  registry: { all(): readonly LiveSession[] | Promise<readonly LiveSession[]> }
  windows: Pick<JobWindows, 'closeJobs' | 'listOpen'>
  bars: Pick<Bars, 'size'> & { bar(...order: Parameters<Bars['bar']>): void | Promise<void> }
}

/** A job that holds a session or an open window now. */
interface Candidate {
  principal: Principal
  rule: string
  session?: string
}

/** Milliseconds that sessions have to end; they are told to at once. */
const PATIENCE = 5_000
/** Of an event's list. */
const MAX_LISTED = 50

/** Bars first, so that nobody comes in behind it. @param now milliseconds since the epoch */
export async function kill(order: KillOrder, proxy: KillContext, now: number): Promise<KillResult> {
  const found = await findJobs(order.target, proxy, now)
  if ('message' in found) return { ok: false, ...found }
  const { principals, jobKeys } = found
  const why = { user: operatorOf(order), reason: order.reason }
  const life = longestLife(proxy.current())
  const barred = [...jobKeys].map((jobKey) => ({ jobKey }))
  const runs = runUrls(order.target, principals).map((runUrl) => ({ runUrl }))
  await Promise.all([...barred, ...runs].map((target) => proxy.bars.bar(target, why, life)))
  const windows = proxy.windows.closeJobs(jobKeys, now)
  const sessions = (await proxy.registry.all()).filter(({ principal }) => jobKeys.has(principal.jobKey))
  const [only, ...others] = principals
  proxy.recorder.event(
    adminEvent(order, { jobs: [...jobKeys].slice(0, MAX_LISTED), sessions: sessions.length, windows }),
    only === undefined || others.length > 0 ? undefined : { principal: only },
  )
  for (const session of sessions) {
    session.record({ event: 'session.killed', outcome: 'success', fields: { pgusher: { admin: whoAndWhy(order) } } })
    session.end('killed', killed(order))
  }
  const [tickets, ended] = await Promise.all([
    giveBackTickets(jobKeys, runUrls(order.target, principals), proxy),
    within(PATIENCE, Promise.all(sessions.map((session) => session.ended))),
  ])
  const problems = ended ? tickets.problems : [...tickets.problems, 'not every session has ended yet']
  const jobs = principals.map(jobSummary)
  return { ok: true, jobs, sessions: sessions.length, windows, tickets: tickets.count, problems }
}

type Found =
  | { principals: Principal[]; jobKeys: Set<string> }
  | { code: 'not_found' | 'ambiguous' | 'malformed'; message: string }

async function findJobs(
  target: KillTarget,
  { registry, windows }: Pick<KillContext, 'registry' | 'windows'>,
  now: number,
): Promise<Found> {
  const { by, value } = target
  const candidates: Candidate[] = [
    ...(await registry.all()).map(({ id, principal, grant }) => ({ principal, rule: grant.rule, session: id })),
    ...windows.listOpen(now).map(({ principal, rule }) => ({ principal, rule })),
  ]
  const jobKey = by === 'job' ? normalised(value) : undefined
  if (by === 'job' && jobKey === undefined) return { code: 'malformed', message: NO_JOB_KEY }
  const wanted = candidates.filter((one) => isMeant(one, target, jobKey)).map(({ principal }) => principal)
  const principals = [...new Map(wanted.map((principal) => [principal.jobKey, principal])).values()]
  const jobKeys = new Set(principals.map((principal) => principal.jobKey))
  if (jobKey !== undefined) jobKeys.add(jobKey)
  const pipelines = new Set(principals.map(({ issuerName, job }) => `${issuerName} ${pipelineOf(job)}`))
  if (by === 'run' && !isUrl(value) && pipelines.size > 1) return { code: 'ambiguous', message: ambiguous(principals) }
  if (jobKeys.size === 0 && !(by === 'run' && isUrl(value))) return { code: 'not_found', message: notFound(target) }
  return { principals, jobKeys }
}

function isMeant({ principal, rule, session }: Candidate, { by, value }: KillTarget, jobKey?: string): boolean {
  if (by === 'session') return session === value
  if (by === 'rule') return rule === value
  if (by === 'job') return principal.jobKey === jobKey
  const { runId, runUrl } = principal.job
  if (runUrl === undefined || !isUrl(value)) return runId === value
  return runPage(runUrl) === runPage(value) || withoutAttempt(runUrl) === runPage(value)
}

/** A run is barred as a whole, with its jobs that have not connected yet. */
function runUrls({ by, value }: KillTarget, principals: readonly Principal[]): string[] {
  if (by !== 'run') return []
  return isUrl(value) ? [value] : [...new Set(principals.flatMap(({ job }) => job.runUrl ?? []))]
}

/** As the verifier writes it, whatever white space a person put in. */
function normalised(jobKey: string): string | undefined {
  try {
    const parts: unknown = JSON.parse(jobKey)
    return Array.isArray(parts) && parts.every((part) => typeof part === 'string') ? JSON.stringify(parts) : undefined
  } catch {
    return undefined
  }
}

const isUrl = (value: string): boolean => /^https?:\/\//.test(value)
const pipelineOf = (job: Principal['job']): string => job.repositoryUrl ?? job.pipelineName ?? ''

const NO_JOB_KEY =
  'a job key is a list of texts, as `pgusher sessions` shows it: \'["https://token.actions.githubusercontent.com","784500001",…]\''

function ambiguous(principals: readonly Principal[]): string {
  const runs = new Set(principals.map(({ job, jobKey }) => job.runUrl ?? jobKey))
  return `several pipelines have a run of that id: ${quoteList([...runs], 'and', 5)}. Give the run's URL, or --job`
}

function notFound({ by, value }: KillTarget): string {
  if (by === 'session') return `no session ${quote(value)} runs here`
  const here = `no session and no open window of ${by} ${quote(value)} is here`
  if (by === 'run') return `${here}. To bar a run that is not connected now, give its URL, or --job with the job's key`
  return `${here}. To refuse its jobs from now on, change the policy and reload`
}

/** Milliseconds for which anything that a job holds can be good. */
function longestLife({ config }: Snapshot): number {
  const rules = config.rules.flatMap(({ allow }) => [allow?.job_window ?? 0, allow?.ticket_life ?? 0])
  const issuers = Object.values(config.issuers).map((one) => one.max_token_life ?? PRESETS[one.preset].maxTokenLife)
  return Math.max(...rules, ...issuers)
}

/** Those of a run are found by its URL too: what is not connected now may have got them from another replica, or before a restart. */
async function giveBackTickets(
  jobKeys: ReadonlySet<string>,
  urls: readonly string[],
  { tickets, log }: KillContext,
): Promise<{ count: number; problems: string[] }> {
  if (tickets === undefined) return { count: 0, problems: [] }
  const results = await Promise.allSettled([
    ...[...jobKeys].map((jobKey) => tickets.giveBackJob(jobKey)),
    ...urls.map((url) => tickets.giveBackRun(url)),
  ])
  const failed = results.filter((result) => result.status === 'rejected')
  for (const { reason } of failed) log.error({ err: reason }, "a killed job's tickets could not be given back")
  const count = results.reduce((sum, result) => sum + (result.status === 'fulfilled' ? result.value : 0), 0)
  const problem = 'its tickets could not be given back; this process refuses them, others may not: see the log'
  return { count, problems: failed.length > 0 ? [problem] : [] }
}

function whoAndWhy({ target, user, sudoUser, reason }: KillOrder): Record<string, unknown> {
  // The socket says who may open it, not who did: the name is the command's word.
  const who = { user, sudo_user: sudoUser, user_source: 'told' }
  return { command: 'kill', ...who, target: { [target.by]: target.value }, reason }
}

function adminEvent(order: KillOrder, effect: Record<string, unknown>): AuditEvent {
  return {
    event: 'admin.command',
    outcome: 'success',
    fields: { pgusher: { admin: { ...whoAndWhy(order), ...effect } } },
  }
}

/** Whom the job is told: the person, where it is not root that has a name to give. */
const operatorOf = ({ user, sudoUser }: KillOrder): string => sudoUser ?? user

function killed(order: KillOrder): AccessError {
  return new AccessError('session_killed', `session ended by the operator (${operatorOf(order)}): ${order.reason}`, {
    hint: 'The job is not let in again. Ask the operator before you run it again.',
  })
}

async function within(milliseconds: number, work: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), milliseconds)
  })
  try {
    return await Promise.race([work.then(() => true), late])
  } finally {
    clearTimeout(timer)
  }
}
