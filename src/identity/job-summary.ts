/** A job's identity as a small JSON object, for places that PostgreSQL keeps: the comment of a login role, the setting `pgusher.job`. */
import type { Principal } from './principal.ts'

/** Whose words these are is in docs/audit.md; what the token does not say is absent. */
export interface JobSummary {
  provider: string
  issuer: string
  subject: string
  repository?: string
  ref?: string
  commit?: string
  change?: string
  environment?: string
  pipeline?: string
  run?: string
  attempt?: string
  url?: string
  task?: string
  actor?: string
}

/** @param longest characters that are kept of each value: a claim can be as long as its author likes */
export function jobSummary({ provider, iss, subject, job }: Principal, longest: number): JobSummary {
  const all = {
    provider,
    issuer: iss,
    subject,
    repository: job.repositoryUrl,
    ref: job.ref,
    commit: job.commit,
    change: job.changeId,
    environment: job.environment,
    pipeline: job.pipelineName,
    run: job.runId,
    attempt: job.runAttempt,
    url: job.runUrl,
    task: job.taskName,
    actor: job.actor,
  }
  const known = Object.entries(all).filter((entry): entry is [string, string] => entry[1] !== undefined)
  return Object.fromEntries(known.map(([key, value]) => [key, cut(value, longest)])) as unknown as JobSummary
}

export function cut(text: string, longest: number): string {
  return (text.length > longest ? `${text.slice(0, longest - 1)}…` : text).toWellFormed()
}

/** JSON in plain ASCII: a claim may hold what the database's encoding does not have, and PostgreSQL shows it in terminals. */
export function asciiJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[^\x20-\x7e]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}
