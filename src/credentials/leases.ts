/** What a session holds of a credential while it lasts. */
import { AccessError } from '../errors.ts'
import type { Principal } from '../identity/principal.ts'
import type { Grant } from '../policy/types.ts'
import { messageOf } from './failure.ts'
import type { MintedCredential, Minter, RevokeReason } from './minter.ts'
import { type CredentialEvent, createRevocations, credentialEvent, type RevokeFailure } from './revocations.ts'
import { createSessionCount } from './session-count.ts'
import { createSharedCredentials } from './shared-credentials.ts'

export type { CredentialEvent, RevokeFailure } from './revocations.ts'

export interface Lease {
  readonly credential: MintedCredential
  /** Gives it back; a second call does nothing. */
  release(): void
  /**
   * PostgreSQL does not take it, as after a failover to a server that never saw its role: no new session joins it. Without this a job
   * that tries again sooner than `linger` would keep it, and be refused, for as long as it tries.
   */
  discard(): void
  /**
   * Which backend serves its session, and the key that cancels it. Asked for where another process keeps the lease, which may outlive
   * this one.
   */
  serve?(backend: { processId: number; secret: Buffer }): void
}

export interface SweepReport {
  removed: { login: string; alias: string }[]
  failed: RevokeFailure[]
}

export interface Leases {
  /**
   * @throws AccessError `limit_sessions` when the job holds `grant.maxConnections` sessions by this rule already,
   *   `draining` after `revokeAll`, or what the minter threw.
   */
  acquire(principal: Principal, grant: Grant): Promise<Lease>
  /** Ends leasing: takes everything back, also what is in use, and resolves with what could not be. */
  revokeAll(reason: RevokeReason): Promise<RevokeFailure[]>
  /** Removes orphans in the databases used so far and in `aliases`, and what could not be taken back before. Never rejects. */
  sweepNow(aliases?: Iterable<string>): Promise<SweepReport>
  /** False: nothing that this minter made is left, and nothing is being made. */
  uses(minter: Minter): boolean
}

export interface LeasesOptions {
  /** @throws Error for an alias that is not configured. */
  minterFor(alias: string): Minter
  onEvent(event: CredentialEvent): void
  /** A credential is about to be taken back. */
  onTakeBack?: (credential: MintedCredential) => void
  /** Milliseconds since the epoch. */
  now?: () => number
}

export function createLeases({ minterFor, onEvent, onTakeBack, now = Date.now }: LeasesOptions): Leases {
  const countSession = createSessionCount()
  const revocations = createRevocations(onEvent, now)
  const shared = createSharedCredentials({
    minterFor,
    issued: (issued) => onEvent(credentialEvent('credential.issued', issued, 'minted', now())),
    takeBack(issued, reason) {
      onTakeBack?.(issued.credential)
      return revocations.takeBack(issued, reason)
    },
    now,
  })
  const used = new Set<string>()
  let ended = false
  const refuseAfterEnd = (): void => {
    if (ended) throw new AccessError('draining', 'pgusher is shutting down', { hint: 'Connect again.' })
  }

  return {
    async acquire(principal, grant) {
      refuseAfterEnd()
      // Before anything is minted: a job at its limit costs the server nothing.
      const undo = [countSession(principal, grant)]
      const release = (): void => {
        for (const step of undo.splice(0)) step()
      }
      try {
        used.add(grant.database)
        const credential = shared.join(principal, grant)
        undo.push(() => shared.leave(credential))
        const minted = await credential.minted
        // `revokeAll` may have come while it was made.
        refuseAfterEnd()
        return { credential: minted, release, discard: () => shared.discard(credential) }
      } catch (error) {
        release()
        throw error
      }
    },
    async revokeAll(reason) {
      ended = true
      revocations.stop()
      await shared.revokeAll(reason)
      return revocations.retry()
    },
    async sweepNow(aliases = []) {
      for (const alias of aliases) used.add(alias)
      const removed: SweepReport['removed'] = []
      // First, so that what this process was told to take back is not taken for an orphan.
      await revocations.retry()
      const failed: RevokeFailure[] = []
      for (const alias of used) {
        try {
          const result = await minterFor(alias).sweep()
          removed.push(...result.removed.map((login) => ({ login, alias })))
          failed.push(...result.failed.map((one) => ({ ...one, alias })))
        } catch (error) {
          failed.push({ login: '', alias, reason: messageOf(error) })
        }
      }
      return { removed, failed }
    },
    uses: (minter) => shared.uses(minter) || revocations.uses(minter),
  }
}
