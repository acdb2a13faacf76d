/**
 * An issuer's keys and when they are fetched. jose's own remote set is not used: it refuses a key that was rotated in less
 * than 30 s after a fetch without saying so, and never fetches for a bad signature, which is how a Jenkins credential
 * that was saved again looks (a new key under the old `kid`).
 */
import type { KeySet } from './key-set.ts'
import type { LoadKeys } from './key-source.ts'

export interface RefreshRule {
  /** Least time between two attempts, also failed ones. Milliseconds, as all here. */
  interval: number
  /** Keys older than this are refreshed before they are used, unless the issuer is down. */
  fresh: number
  /** Keys older than this are not used. */
  stale: number
}

export const REMOTE: RefreshRule = { interval: 30_000, fresh: 300_000, stale: 3_600_000 }
/** A file costs a stat, so that an operator's change applies within a second. */
export const LOCAL: RefreshRule = { interval: 1_000, fresh: 1_000, stale: 3_600_000 }

export interface KeyState {
  /** Keys are there and not too old: tokens of this issuer can be verified. */
  usable: boolean
  keys: number
  /** Milliseconds since the epoch of the last good fetch. */
  fetchedAt: number | undefined
  /** Why the last attempt failed; undefined after a good one. */
  failure: string | undefined
}

export interface IssuerKeys {
  /** The set to use now, refreshed if it is due. Undefined when there is none that may be used. */
  current(): Promise<KeySet | undefined>
  /** After an unknown `kid` or a bad signature: the set after a refresh if one is allowed now, else as it is. */
  refreshed(): Promise<KeySet | undefined>
  state(): KeyState
  /** One more user, which will call `release` too. */
  retain(): void
  /** After the last one's release nothing is fetched any more. */
  release(): void
}

export interface KeysOptions {
  load: LoadKeys
  rule: RefreshRule
  now: () => number
  /** After each failed attempt; `error` is for the log. */
  onFailure: (error: Error) => void
}

export function createIssuerKeys({ load, rule, now, onFailure }: KeysOptions): IssuerKeys {
  const closing = new AbortController()
  let users = 1
  let set: KeySet | undefined
  let fetchedAt: number | undefined
  let attemptedAt: number | undefined
  let failure: string | undefined
  let flight: Promise<void> | undefined

  // abs: a clock that is set back must not freeze the keys until it has caught up.
  const age = (since: number | undefined) => (since === undefined ? Number.POSITIVE_INFINITY : Math.abs(now() - since))
  const usable = () => (age(fetchedAt) <= rule.stale ? set : undefined)

  async function attempt(): Promise<void> {
    try {
      const loaded = await load(closing.signal)
      if (loaded !== 'unchanged') set = keepImported(loaded, set)
      fetchedAt = now()
      failure = undefined
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown : new Error(String(thrown))
      failure = error.message
      if (!closing.signal.aborted) onFailure(error)
    }
  }

  /** Joins the flight that is under way, or begins one if the interval allows it. */
  function refresh(): Promise<void> {
    if (flight !== undefined) return flight
    if (age(attemptedAt) < rule.interval || closing.signal.aborted) return Promise.resolve()
    attemptedAt = now()
    flight = attempt().finally(() => {
      flight = undefined
    })
    return flight
  }

  return {
    async current() {
      if (age(fetchedAt) < rule.fresh) return set
      const refreshing = refresh()
      // While the issuer is known to be down, nobody waits for the next attempt to fail too.
      if (failure === undefined || usable() === undefined) await refreshing
      return usable()
    },
    async refreshed() {
      await refresh()
      return usable()
    },
    state: () => ({ usable: usable() !== undefined, keys: set?.keys.length ?? 0, fetchedAt, failure }),
    retain: () => {
      users += 1
    },
    release: () => {
      users -= 1
      if (users === 0) closing.abort(new Error('pgusher is closing'))
    },
  }
}

/** Keys that are in both sets keep their imported form, so that a refresh costs no import. */
function keepImported(next: KeySet, previous: KeySet | undefined): KeySet {
  const known = new Map(previous?.keys.map((key) => [key.fingerprint, key.imported]))
  return { ...next, keys: next.keys.map((key) => ({ ...key, imported: known.get(key.fingerprint) ?? key.imported })) }
}
