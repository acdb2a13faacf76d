/** The interface behind which every kind of short-lived credential is made and taken back. */
import type { Principal } from '../identity/principal.ts'
import type { Grant } from '../policy/types.ts'
import type { TicketCarriers } from './ticket-carriers.ts'

/** What the upstream login uses. A password is for SCRAM-SHA-256(-PLUS); a certificate goes into the TLS handshake. */
export interface MintedCredential {
  kind: 'ephemeral-role' | 'client-certificate'
  /** The role that logs in: `pgu_…`, or the granted role itself for a certificate. */
  login: string
  /** The `role` setting that pgusher sends at startup; undefined where the login is already the granted role. */
  assumeRole: string | undefined
  secret:
    | { type: 'scram'; password: string; clientKey: Buffer; serverKey: Buffer; salt: Buffer; iterations: number }
    | { type: 'certificate'; cert: string; key: string }
  /** Milliseconds since the epoch; PostgreSQL takes no new login after it. */
  validUntil: number
}

export type RevokeReason = 'job_ended' | 'expired' | 'shutdown' | 'orphan' | 'policy'

export interface Minter {
  /** Milliseconds that a credential stays after its last session ended. */
  readonly linger: number
  /** Where tickets are kept; undefined where nothing is written to the catalog. */
  readonly carriers?: TicketCarriers
  /**
   * @throws AccessError `credential_failed` (dangerous or unknown role, no ADMIN OPTION, admin cannot log in) or
   *   `upstream_unreachable`. Nothing is left behind then.
   */
  mint(principal: Principal, grant: Grant, expiresAt: number): Promise<MintedCredential>
  /** Takes the credential back and verifies that it is gone. Safe to call twice. @throws when something is left; it is tried again by `sweep`. */
  revoke(credential: MintedCredential, reason: RevokeReason): Promise<void>
  /** Removes what a crashed pgusher left. Returns the logins that are gone now and those that could not be removed, with the reason. */
  sweep(): Promise<{ removed: string[]; failed: { login: string; reason: string }[] }>
  /** What `check --live` says; empty when all is well. */
  check(roles: readonly string[]): Promise<Finding[]>
  close(): Promise<void>
}

export interface Finding {
  level: 'error' | 'warning'
  /** Which database entry and role. */
  subject: string
  message: string
  hint?: string
}
