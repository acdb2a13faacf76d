/** What an operator sees of the jobs of now: their sessions and open windows. */
import type { Principal } from '../identity/principal.ts'
import type { Bars } from './bars.ts'
import type { JobWindows, OpenWindow } from './job-windows.ts'
import type { LiveSession } from './registry.ts'

/** Whose it is; absent where the token does not say. */
export interface JobSummary {
  /** The job attempt's key, for `kill --job`. */
  job: string
  issuer: string
  run_id?: string
  run_url?: string
  repository?: string
  actor?: string
}

/** Times as RFC 3339. */
export interface SessionSummary extends JobSummary {
  id: string
  database: string
  role: string
  rule: string
  address: string
  since: string
  expires_at: string
  admission: string
  /** A statement runs or a transaction is open. */
  busy: boolean
  /** Executions that have ended. */
  statements: number
}

export interface WindowSummary extends JobSummary {
  rule: string
  opened_at: string
  closes_at: string
  /** With a token that had expired. */
  connections: number
}

export interface Overview {
  instance: string
  sessions: SessionSummary[]
  windows: WindowSummary[]
  /** Job attempts and runs that are not let in again. */
  barred: number
}

/** A session as far as an operator is shown it. */
export type ShownSession = Pick<
  LiveSession,
  'id' | 'principal' | 'grant' | 'address' | 'startedAt' | 'admission' | 'busy' | 'statements'
>

export interface OverviewSources {
  registry: { all(): readonly ShownSession[] | Promise<readonly ShownSession[]> }
  windows: Pick<JobWindows, 'listOpen'>
  bars: Pick<Bars, 'size'>
}

/** @param now milliseconds since the epoch */
export async function overview(
  { registry, windows, bars }: OverviewSources,
  instance: string,
  now: number,
): Promise<Overview> {
  return {
    instance,
    sessions: (await registry.all()).map(sessionSummary),
    windows: windows.listOpen(now).map(windowSummary),
    barred: bars.size,
  }
}

export function jobSummary({ jobKey, issuerName, job }: Principal): JobSummary {
  return {
    job: jobKey,
    issuer: issuerName,
    ...(job.runId === undefined ? {} : { run_id: job.runId }),
    ...(job.runUrl === undefined ? {} : { run_url: job.runUrl }),
    ...(job.repositoryUrl === undefined ? {} : { repository: job.repositoryUrl }),
    ...(job.actor === undefined ? {} : { actor: job.actor }),
  }
}

function sessionSummary(session: ShownSession): SessionSummary {
  const { id, principal, grant, address, startedAt, admission, busy, statements } = session
  return {
    ...{ id, ...jobSummary(principal), database: grant.database, role: grant.role, rule: grant.rule, address },
    since: iso(startedAt),
    expires_at: iso(startedAt + grant.maxSession),
    ...{ admission: admission.kind, busy, statements },
  }
}

function windowSummary({ principal, rule, openedAt, closesAt, connections }: OpenWindow): WindowSummary {
  const times = { opened_at: iso(openedAt), closes_at: iso(closesAt) }
  return { ...jobSummary(principal), rule, ...times, connections }
}

const iso = (time: number): string => new Date(time).toISOString()
