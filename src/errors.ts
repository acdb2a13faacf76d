/**
 * The one error type that crosses folders. A code is stable: it is the audit's `pgusher.decision.code`, the metric's
 * label and an anchor in docs/errors.md. MESSAGE alone must carry the reason, because several drivers show nothing else.
 */

/** Connection refused; what each stands for is in docs/errors.md. SQLSTATEs: PostgreSQL documentation, appendix A. */
export const DENIAL_SQLSTATE = {
  tls_required: '28000',
  token_missing: '28P01',
  token_malformed: '28P01',
  token_expired: '28P01',
  token_not_yet_valid: '28P01',
  token_too_old: '28P01',
  token_replayed: '28P01',
  ticket_invalid: '28P01',
  ticket_expired: '28P01',
  ticket_scope: '42501',
  address_mismatch: '28P01',
  issuer_unknown: '28P01',
  audience_mismatch: '28P01',
  signature_invalid: '28P01',
  issuer_keys_unavailable: '57P03',
  tenancy_mismatch: '42501',
  claim_missing: '42501',
  no_matching_rule: '42501',
  denied_by_rule: '42501',
  database_unknown: '3D000',
  role_not_allowed: '42501',
  job_barred: '42501',
  statement_not_allowed: '42501',
  limit_sessions: '53300',
  limit_rate: '53300',
  upstream_unreachable: '08006',
  upstream_auth: '08006',
  credential_failed: '08006',
  audit_unavailable: '57P03',
  draining: '57P03',
  protocol_violation: '08P01',
  session_expired: '57P01',
  session_killed: '57P01',
  session_policy: '57P01',
  upstream_lost: '08006',
  internal_error: 'XX000',
} as const

export type DenialCode = keyof typeof DENIAL_SQLSTATE

/** Which condition of which rule came nearest to letting the job in. `got` is undefined when the token lacks the claim. */
export interface NearestRule {
  rule: string
  claim: string
  wanted: string
  got: string | undefined
}

export interface AccessErrorOptions {
  /** DETAIL of the ErrorResponse: claim, wanted and got. Safe for the client. */
  detail?: string
  /** HINT of the ErrorResponse: the next step and the contact. Safe for the client. */
  hint?: string
  /** For the log only, never for the client. */
  cause?: unknown
  /** For the audit event of a policy denial. */
  nearest?: NearestRule[]
  /** Where a code's usual SQLSTATE does not fit, e.g. an encoding that PostgreSQL calls 22021. */
  sqlstate?: string
}

/** A refusal with a stable code. `message` is safe to show to the client, as are `detail` and `hint`; `cause` is not. */
export class AccessError extends Error {
  readonly code: DenialCode
  readonly sqlstate: string
  readonly detail: string | undefined
  readonly hint: string | undefined
  readonly nearest: NearestRule[]
  /**
   * For the audit event of a policy denial: the trace of the decision, in at most so many bytes of JSON. Made when it is asked
   * for, since it is dearer than the decision.
   */
  evidence?: (maxBytes: number) => Readonly<Record<string, unknown>>

  constructor(code: DenialCode, message: string, options: AccessErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'AccessError'
    this.code = code
    this.sqlstate = options.sqlstate ?? DENIAL_SQLSTATE[code]
    this.detail = options.detail
    this.hint = options.hint
    this.nearest = options.nearest ?? []
  }
}

/** Any thrown value as an AccessError; what is not one becomes `internal_error` with a text that tells nothing. */
export function asAccessError(thrown: unknown): AccessError {
  if (thrown instanceof AccessError) return thrown
  return new AccessError('internal_error', 'internal error in pgusher; the operator finds the reason in its log', {
    cause: thrown,
  })
}
