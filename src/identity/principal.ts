/** The verified identity of a job. Made by `verifier.ts` only; everything after it takes a Principal and never a token. */
import type { PresetName } from '../config/schema.ts'

/** A claim as text; a list stays a list. Numbers are decimal strings, booleans `true` and `false`. */
export type ClaimValue = string | readonly string[]

/** One vocabulary for all providers, after the audit schema (OpenTelemetry `cicd.*` and `vcs.*`). Absent, never guessed. */
export interface JobFields {
  /** `cicd.pipeline.name` */
  pipelineName?: string
  /** `cicd.pipeline.run.id` */
  runId?: string
  /** `cicd.pipeline.run.url.full` */
  runUrl?: string
  runAttempt?: string
  /** `cicd.pipeline.task.name` */
  taskName?: string
  /** `cicd.pipeline.task.run.id` */
  taskRunId?: string
  /** `vcs.repository.url.full` */
  repositoryUrl?: string
  /** `vcs.ref.head.name` */
  ref?: string
  /** `vcs.ref.head.revision` */
  commit?: string
  /** `vcs.change.id` */
  changeId?: string
  /** `deployment.environment.name` */
  environment?: string
  /** `pgusher.actor`: shown, never decided on. */
  actor?: string
}

export interface Principal {
  /** The entry of `issuers` that verified it. */
  issuerName: string
  provider: PresetName
  /** `iss`, byte for byte. */
  iss: string
  /** `sub`, recorded raw and never parsed. */
  subject: string
  /** Every claim by its selector name: top-level claims by their own name, nested ones by the name the preset gives them. */
  claims: ReadonlyMap<string, ClaimValue>
  /** The claims that the preset lists for the audit, nothing else. */
  auditClaims: Readonly<Record<string, ClaimValue>>
  job: Readonly<JobFields>
  /**
   * Identifies one job attempt: (issuer, tenant, run, attempt, job) as text. Credentials belong to it.
   * Without run or job ids (generic issuers) the token itself is the job.
   */
  jobKey: string
  /** Hex SHA-256 of the token's bytes. */
  tokenSha256: string
  /** Milliseconds since the epoch. */
  expiresAt: number
  issuedAt: number
  /** The issuer's `require` holds: a job of our own tenancy. Decides how much a denial explains. */
  tenancyMatches: boolean
}
