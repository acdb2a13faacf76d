/** What the policy decides. `compile.ts` makes a Policy, `evaluate.ts` a Decision; both are pure. */
import type { AllowedClass, RuleConfig, TextMode } from '../config/schema.ts'
import type { AccessError } from '../errors.ts'

/** What the job asks for in its StartupMessage. */
export interface AccessRequest {
  database: string
  /** A role's name, or the literal `ci`: the one role that the job's rules allow for that database. */
  user: string
}

/** Which statements a session may send, and what it is told about others. */
export interface StatementLimit {
  classes: readonly AllowedClass[]
  /** No class among them writes: PostgreSQL's own read-only transactions stand behind it. */
  readOnly: boolean
  /** The job may learn what the rule allows. */
  explain: boolean
  /** `on_deny` of the rule. */
  message?: string
  contact?: string
}

/** What an allowing rule gives. Durations in milliseconds. */
export interface Grant {
  rule: string
  /** File that the rule stands in, for `security_rule.ruleset.name`. */
  ruleset: string
  policyVersion: string
  /** Entry of `databases`. */
  database: string
  /** Group role (the login role itself with client certificates). */
  role: string
  maxSession: number
  maxConnections: number
  statementTimeout?: number
  lockTimeout?: number
  idleInTransactionSessionTimeout?: number
  /** Milliseconds from the job's first connection in which its token may have expired; undefined where it may not. */
  jobWindow?: number
  /** Connections with an expired token, by job. */
  windowConnections: number
  /** Milliseconds; undefined where the rule gives no tickets. */
  ticketLife?: number
  /** Windows and tickets are not bound to a client's address. */
  anyAddress: boolean
  functionCall: boolean
  replication: boolean
  /** Undefined where the rule does not limit statements. */
  statements?: StatementLimit
  textMode: TextMode
}

export interface ConditionTrace {
  claim: string
  /** As a person would say it: `"refs/heads/main"`, `one of "push", "workflow_dispatch"`. */
  wanted: string
  got: string | undefined
  ok: boolean
  /** `require` of the issuer or `match` of the rule. */
  from: 'require' | 'match'
}

export interface RuleTrace {
  rule: string
  effect: 'allow' | 'deny'
  /** Why the rule was not looked at further: another issuer, expired, another database or role. */
  skipped?: string
  conditions: readonly ConditionTrace[]
  matched: boolean
  config: RuleConfig
}

export type Decision =
  | { allowed: true; grant: Grant; matched: readonly string[]; trace: readonly RuleTrace[] }
  | { allowed: false; error: AccessError; matched: readonly string[]; trace: readonly RuleTrace[] }
