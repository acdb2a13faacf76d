/** One credential for each job and grant, made once however many sessions ask at once, taken back after the last of them. */
import type { Principal } from '../identity/principal.ts'
import type { Grant } from '../policy/types.ts'
import type { MintedCredential, Minter, RevokeReason } from './minter.ts'
import type { Issued, RevokeFailure } from './revocations.ts'

/** Added to the grant's longest session: the last login happens before its end, and clocks differ. */
const SLACK = 60_000
/** A credential with less left is not given to a new session: its login could come too late. */
const TOO_SHORT = 30_000

export interface SharedCredential {
  readonly minted: Promise<MintedCredential>
}

interface Entry extends SharedCredential {
  key: string
  principal: Principal
  grant: Grant
  minter: Minter
  /** Sessions that hold it, and those that wait for it. */
  users: number
  /** Set once `minted` resolved. */
  credential: MintedCredential | undefined
  lingering: NodeJS.Timeout | undefined
  revoking: Promise<RevokeFailure | undefined> | undefined
}

export interface SharedCredentials<Shared extends SharedCredential = SharedCredential> {
  /** Counts one user, whether `minted` resolves or not. @throws what `minterFor` throws. */
  join(principal: Principal, grant: Grant): Shared
  /** Once for each `join`. */
  leave(shared: Shared): void
  /** PostgreSQL does not take it: who comes from now on gets another. Those who hold it still leave it. */
  discard(shared: Shared): void
  /** Also what is in use, and what is being made. */
  revokeAll(reason: RevokeReason): Promise<RevokeFailure[]>
  uses(minter: Minter): boolean
}

export interface SharedCredentialsOptions {
  minterFor(alias: string): Minter
  issued(issued: Issued): void
  takeBack(issued: Issued, reason: RevokeReason): Promise<RevokeFailure | undefined>
  now(): number
}

function keyOf({ jobKey }: Principal, { database, role, rule, policyVersion }: Grant): string {
  return JSON.stringify([jobKey, database, role, rule, policyVersion])
}

function beginMint(key: string, minter: Minter, principal: Principal, grant: Grant, expiresAt: number): Entry {
  const minted = minter.mint(principal, grant, expiresAt)
  const fresh = { users: 0, credential: undefined, lingering: undefined, revoking: undefined }
  const entry: Entry = { key, principal, grant, minter, minted, ...fresh }
  const note = (credential: MintedCredential): void => {
    entry.credential = credential
  }
  minted.then(note, () => {})
  return entry
}

export function createSharedCredentials(options: SharedCredentialsOptions): SharedCredentials<Entry> {
  /** What new sessions join; entries that are replaced live on in `entries` until their last session ends. */
  const current = new Map<string, Entry>()
  const entries = new Set<Entry>()

  /** Who comes now gets one of their own. */
  const retire = (entry: Entry): void => {
    clearTimeout(entry.lingering)
    if (current.get(entry.key) === entry) current.delete(entry.key)
  }
  const forget = (entry: Entry): void => {
    retire(entry)
    entries.delete(entry)
  }
  const revoke = async (entry: Entry, reason: RevokeReason): Promise<RevokeFailure | undefined> => {
    retire(entry)
    entry.revoking ??= entry.minted.then(
      (credential) => options.takeBack({ ...entry, credential }, reason),
      () => undefined,
    )
    const failure = await entry.revoking
    forget(entry)
    return failure
  }
  const start = (key: string, minter: Minter, principal: Principal, grant: Grant): Entry => {
    const entry = beginMint(key, minter, principal, grant, options.now() + grant.maxSession + SLACK)
    entries.add(entry)
    current.set(key, entry)
    entry.minted.then(
      (credential) => options.issued({ ...entry, credential }),
      () => forget(entry),
    )
    return entry
  }
  const end = (entry: Entry): void => void revoke(entry, 'job_ended')
  return {
    join(principal, grant) {
      const key = keyOf(principal, grant)
      const minter = options.minterFor(grant.database)
      const found = current.get(key)
      const left = (found?.credential?.validUntil ?? Number.POSITIVE_INFINITY) - options.now()
      // A reload may have replaced the minter: its credentials may be those of another server.
      const entry = found?.minter === minter && left >= TOO_SHORT ? found : start(key, minter, principal, grant)
      entry.users++
      clearTimeout(entry.lingering)
      return entry
    },
    leave(entry) {
      entry.users--
      if (entry.users > 0 || !entries.has(entry)) return
      const replaced = current.get(entry.key) !== entry
      if (replaced || entry.minter.linger === 0) end(entry)
      else entry.lingering = setTimeout(end, entry.minter.linger, entry).unref()
    },
    discard: retire,
    uses: (minter) => [...entries].some((entry) => entry.minter === minter),
    async revokeAll(reason) {
      const results = await Promise.all([...entries].map((entry) => revoke(entry, reason)))
      return results.filter((failure) => failure !== undefined)
    },
  }
}
