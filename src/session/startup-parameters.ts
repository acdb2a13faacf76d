/** The StartupMessage that goes upstream: the job's own settings, and ours over them. */
import type { UpstreamParameters } from '../frontend/sanitise-startup.ts'
import { asciiJson, jobSummary } from '../identity/job-summary.ts'
import type { Principal } from '../identity/principal.ts'
import type { Grant } from '../policy/types.ts'

/** NAMEDATALEN - 1: PostgreSQL cuts application_name here. */
const MAX_APPLICATION_NAME = 63

/** Bytes without the session: a startup packet has 10,000 for everything, and the client's settings need room. */
const MAX_JOB_SETTING = 2_940

export interface UpstreamStartup {
  /** `pgusher.job` among them tells of the job only: the same for all its sessions that begin with the same settings. */
  parameters: Map<string, string>
  /** `pgusher.job` with the session's id. */
  job: string
}

/**
 * @param assumeRole the group role, or undefined where the login is the granted role itself
 * @param sessionId to be told in `pgusher.job`
 */
export function upstreamStartup(
  client: UpstreamParameters,
  principal: Principal,
  grant: Grant,
  assumeRole: string | undefined,
  sessionId: string,
): UpstreamStartup {
  const parameters = new Map(client.settings)
  const job = jobSetting(principal, grant)
  parameters.set('application_name', applicationName(principal, client.applicationName))
  parameters.set('pgusher.job', job)
  if (assumeRole !== undefined) parameters.set('role', assumeRole)
  // Behind the rule about statements, for what the rule cannot see: a function, a trigger.
  if (grant.statements?.readOnly === true) {
    parameters.delete('transaction_read_only')
    parameters.set('default_transaction_read_only', 'on')
  }
  setLimit('statement_timeout', grant.statementTimeout)
  setLimit('lock_timeout', grant.lockTimeout)
  setLimit('idle_in_transaction_session_timeout', grant.idleInTransactionSessionTimeout)
  return { parameters, job: `${job.slice(0, -1)}${job === '{}' ? '' : ','}"session":"${sessionId}"}` }

  function setLimit(name: string, milliseconds: number | undefined): void {
    if (milliseconds !== undefined) parameters.set(name, String(milliseconds))
  }
}

/**
 * What `SHOW pgusher.job` answers: the job as JSON, for its own logs and for triggers that only note it. A session can SET it to
 * anything, so it proves nothing; the login role's comment does.
 */
function jobSetting(principal: Principal, grant: Grant): string {
  const { rule, database, role } = grant
  for (const longest of [300, 60, 12]) {
    const json = asciiJson({ ...jobSummary(principal, longest), rule, database, role })
    if (json.length <= MAX_JOB_SETTING) return json
  }
  return '{}'
}

/**
 * `pgusher github-actions/18700000412.1 psql`: the run first, since PostgreSQL cuts the end. pg_stat_activity and log_line_prefix show
 * it. Printable ASCII only, as PostgreSQL keeps it.
 */
export function applicationName(principal: Principal, clientName: string | undefined): string {
  const { runId, runAttempt } = principal.job
  const run =
    runId === undefined
      ? principal.tokenSha256.slice(0, 12)
      : runAttempt === undefined
        ? runId
        : `${runId}.${runAttempt}`
  const ours = `pgusher ${principal.provider}/${run}`
  const whole = clientName === undefined || clientName === '' ? ours : `${ours} ${clientName}`
  return whole.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, MAX_APPLICATION_NAME)
}
