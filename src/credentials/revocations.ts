/** Taking credentials back, and trying again what did not work. Each is reported as issued, failed at most once, and revoked. */
import type { Principal } from '../identity/principal.ts'
import type { Grant } from '../policy/types.ts'
import { messageOf } from './failure.ts'
import type { MintedCredential, Minter, RevokeReason } from './minter.ts'

export interface CredentialEvent {
  event: 'credential.issued' | 'credential.revoked' | 'credential.revoke_failed'
  kind: MintedCredential['kind']
  login: string
  /** Entry of `databases`. */
  alias: string
  /** Seconds until `validUntil`, at this moment; 0 when it is over. */
  ttlSeconds: number
  /** `minted`, a RevokeReason, or what stands in the way of taking it back. */
  reason: string
  principal?: Principal
  grant?: Grant
}

export interface RevokeFailure {
  /** Empty where the database could not be looked at. */
  login: string
  alias: string
  reason: string
}

/** A credential with whom it was made for, and by whom. */
export interface Issued {
  credential: MintedCredential
  minter: Minter
  principal: Principal
  grant: Grant
}

export interface Revocations {
  /** @returns undefined when it is gone; otherwise it is tried again after 1 s, then less and less often up to every 15 s, and by `retry`. */
  takeBack(issued: Issued, reason: RevokeReason): Promise<RevokeFailure | undefined>
  /** Tries everything again at once. */
  retry(): Promise<RevokeFailure[]>
  /** Something of this minter waits to be taken back. */
  uses(minter: Minter): boolean
  /** No more tries by the clock. */
  stop(): void
}

/** Milliseconds. A connection that broke works again in a moment; what really stands in the way stays for minutes. */
const RETRY = { first: 1_000, last: 15_000 }

export function credentialEvent(
  event: CredentialEvent['event'],
  issued: Issued,
  reason: string,
  now: number,
): CredentialEvent {
  const { credential, principal, grant } = issued
  const ttlSeconds = Math.max(0, Math.round((credential.validUntil - now) / 1_000))
  return {
    event,
    kind: credential.kind,
    login: credential.login,
    alias: grant.database,
    ttlSeconds,
    reason,
    principal,
    grant,
  }
}

export function createRevocations(onEvent: (event: CredentialEvent) => void, now: () => number): Revocations {
  const unrevoked = new Map<string, { issued: Issued; reason: RevokeReason }>()
  let timer: NodeJS.Timeout | undefined
  let wait = RETRY.first
  let stopped = false

  /** By login: the clock, a sweep and the end may want the same at the same time, and it is gone once. */
  const flights = new Map<string, Promise<RevokeFailure | undefined>>()

  const takeBack = (issued: Issued, reason: RevokeReason): Promise<RevokeFailure | undefined> => {
    const { login } = issued.credential
    const flight = flights.get(login) ?? attempt(issued, reason).finally(() => flights.delete(login))
    flights.set(login, flight)
    return flight
  }
  const attempt = async (issued: Issued, reason: RevokeReason): Promise<RevokeFailure | undefined> => {
    const { login } = issued.credential
    try {
      await issued.minter.revoke(issued.credential, reason)
      unrevoked.delete(login)
      if (unrevoked.size === 0) wait = RETRY.first
      onEvent(credentialEvent('credential.revoked', issued, reason, now()))
      return undefined
    } catch (error) {
      const why = messageOf(error)
      // Said once; when it is gone at last, that is said too.
      if (!unrevoked.has(login)) onEvent(credentialEvent('credential.revoke_failed', issued, why, now()))
      unrevoked.set(login, { issued, reason })
      if (!stopped) timer ??= setTimeout(onTimer, wait).unref()
      return { login, alias: issued.grant.database, reason: why }
    }
  }
  const retry = async (): Promise<RevokeFailure[]> => {
    const results = await Promise.all([...unrevoked.values()].map(({ issued, reason }) => takeBack(issued, reason)))
    return results.filter((failure) => failure !== undefined)
  }
  const onTimer = (): void => {
    timer = undefined
    wait = Math.min(wait * 2, RETRY.last)
    void retry()
  }
  const stop = (): void => {
    stopped = true
    clearTimeout(timer)
  }
  const uses = (minter: Minter): boolean => [...unrevoked.values()].some(({ issued }) => issued.minter === minter)
  return { takeBack, retry, uses, stop }
}
