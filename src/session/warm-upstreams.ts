/**
 * Upstream connections whose session is over, kept for a moment for the next one of the same job. Of PostgreSQL's CPU a connection with
 * one statement took 4.8 ms, and 0.9 with reset and comparison in place of the login, of which the job waits for 0.1 (PostgreSQL 15).
 *
 * A connection goes to a session only if the credential is the very same (one job, one grant, one login role) and the StartupMessage
 * would be the same byte for byte, so that there is nothing to set again and RESET ALL comes back to the new session's own values.
 * In between it is reset by DISCARD ALL and compared with what it was when it was fresh: what the catalog says of it only where the catalog may
 * have changed. Whatever is odd costs the connection.
 */
import type { MintedCredential } from '../credentials/minter.ts'
import type { WarmOutcome } from '../telemetry/metrics.ts'
import type { UpstreamConnection, UpstreamTarget } from '../upstream/connect.ts'
import { createQuietUpstream, type QuietUpstream } from './quiet-upstream.ts'
import { RESET_CATALOG, REUSE_CATALOG, resetQueries, reuseQuery } from './upstream-state.ts'

/** What a session must share with the one before it. */
export interface WarmKey {
  /** Compared by identity: the lease gives the same object to sessions of one job and grant, and to nobody else. */
  credential: MintedCredential
  target: UpstreamTarget
  /** All of the StartupMessage's settings. */
  startup: string
}

export interface WarmConnection extends WarmKey {
  connection: UpstreamConnection
  /** Rows of the fresh connection that those after a reset must equal, as `upstream-state.ts` names them. */
  standing: Buffer
  session: Buffer
  /** When the catalog was last asked: while this row is the same, `standing` is. */
  moment: Buffer
  /** Sessions so far. */
  uses: number
  /** Of `generation` when it was made. */
  generation: number
}

export interface WarmLimits {
  /** Connections of one credential. */
  keep: number
  /** Milliseconds. */
  life: number
  /** Connections of one database entry. */
  total: number
}

export interface WarmUpstreams {
  /** A connection that is reset and checked; paused. `job` becomes its `pgusher.job`. */
  take(key: WarmKey, job: string): Promise<{ warm: WarmConnection; quiet: QuietUpstream } | undefined>
  /** Takes a connection over whose session is idle, and of which nobody else holds or cancels anything. Returns at once. */
  park(warm: WarmConnection, limits: WarmLimits): void
  /** Ends those of a credential that is being taken back, and takes no more of it. */
  drop(credential: MintedCredential): void
  /** Ends all that are here, and takes no connection back that was made before. */
  clear(): void
  /** The same, for good. */
  close(): void
  readonly generation: number
  readonly size: number
}

/** Milliseconds for DISCARD ALL and the comparison. */
const RESET_TIME = 2_000
/** Milliseconds for the look before a connection is used again. */
const CHECK_TIME = 1_000
/** Milliseconds that a session waits for one that is being reset; a new connection takes as long. */
const PATIENCE = 50
/** A backend's caches grow with what it has seen, and each use adds a listener to the socket's handle. */
const MAX_USES = 200

interface Entry {
  warm: WarmConnection
  quiet: QuietUpstream
  ready: boolean
  expiry: NodeJS.Timeout | undefined
}

/** A session that waits for a connection that is being reset. */
interface Claim {
  key: WarmKey
  /** Once; undefined: none will come, or not in time. */
  settle(entry: Entry | undefined): void
}

const sameKey = (one: WarmKey, other: WarmKey): boolean =>
  one.credential === other.credential && one.target === other.target && one.startup === other.startup

export function createWarmUpstreams(count: (outcome: WarmOutcome) => void): WarmUpstreams {
  const entries = new Set<Entry>()
  /** In the order in which they came; never more than there are connections being reset. */
  const claims: Claim[] = []
  const dropped = new WeakSet<MintedCredential>()
  let generation = 0
  let closed = false

  function discard(entry: Entry, outcome: WarmOutcome): void {
    if (!entries.delete(entry)) return
    clearTimeout(entry.expiry)
    count(outcome)
    entry.quiet.close()
    giveUpClaims(entry.warm)
  }

  /** Who waits for more connections than are left hears it now. */
  function giveUpClaims(key: WarmKey): void {
    const waiting = claims.filter((one) => sameKey(one.key, key))
    const coming = [...entries].filter((entry) => sameKey(entry.warm, key))
    for (const one of waiting.slice(coming.length)) one.settle(undefined)
  }

  function mayStay(warm: WarmConnection, { keep, total }: WarmLimits): boolean {
    if (closed || warm.generation !== generation || dropped.has(warm.credential) || warm.uses >= MAX_USES) return false
    const sameJob = all().filter((entry) => entry.warm.credential === warm.credential)
    const sameSettings = sameJob.filter((entry) => entry.warm.startup === warm.startup)
    if (sameSettings.length >= keep) return false
    // The oldest gives way: of the job one with other settings, else one of a job that may be over.
    if (sameJob.length >= keep) return evict(sameJob.find((entry) => !sameSettings.includes(entry)))
    return all().length < total || evict(all().find((entry) => !sameJob.includes(entry)))

    function all(): Entry[] {
      return [...entries].filter((entry) => entry.warm.target === warm.target)
    }
  }

  function evict(entry: Entry | undefined): boolean {
    if (entry !== undefined) discard(entry, 'evicted')
    return entry !== undefined
  }

  async function reset(entry: Entry, life: number): Promise<void> {
    const clean = await isClean(entry)
    if (!entries.has(entry)) return
    if (!clean) {
      discard(entry, 'odd')
      return
    }
    entry.ready = true
    const claim = claims.find(({ key }) => sameKey(key, entry.warm))
    if (claim !== undefined) {
      claim.settle(takeOut(entry))
      return
    }
    entry.expiry = setTimeout(discard, life, entry, 'expired').unref()
    entry.quiet.watch(() => discard(entry, 'odd'))
  }

  /** The catalog is asked only if it may have changed since it was asked last. */
  async function isClean({ warm, quiet }: Entry): Promise<boolean> {
    const rows = await quiet.run(resetQueries(), RESET_TIME)
    const [moment, session] = rows ?? []
    if (rows?.length !== 2 || !session?.equals(warm.session)) return false
    if (moment?.equals(warm.moment)) return true
    const catalog = await quiet.run(RESET_CATALOG, RESET_TIME)
    const [now, standing] = catalog ?? []
    if (catalog?.length !== 3 || now === undefined || !standing?.equals(warm.standing)) return false
    warm.moment = now
    return true
  }

  /** A fresh login would still be let in, and be the same. The session's `pgusher.job` is set with the question. */
  async function isUnchanged({ warm, quiet }: Entry, job: string): Promise<boolean> {
    const rows = await quiet.run(reuseQuery(job), CHECK_TIME)
    if (rows?.length !== 2) return false
    if (rows[0]?.equals(warm.moment)) return true
    const catalog = await quiet.run(REUSE_CATALOG, CHECK_TIME)
    return catalog?.length === 1 && catalog[0]?.equals(warm.standing) === true
  }

  /** In one turn with finding it, so that no second session finds it too. */
  function takeOut(entry: Entry): Entry {
    entries.delete(entry)
    clearTimeout(entry.expiry)
    return entry
  }

  async function claim(key: WarmKey): Promise<Entry | undefined> {
    const fitting = [...entries].filter(({ warm }) => sameKey(warm, key))
    // The newest: its caches and the kernel's are warm, and the others grow old.
    const ready = fitting.findLast((entry) => entry.ready)
    if (ready !== undefined) return takeOut(ready)
    const before = claims.filter((other) => sameKey(other.key, key))
    if (before.length >= fitting.length) return undefined
    return await new Promise((resolve) => {
      const mine: Claim = {
        key,
        settle(entry) {
          clearTimeout(timer)
          claims.splice(claims.indexOf(mine), 1)
          resolve(entry)
        },
      }
      const timer = setTimeout(mine.settle, PATIENCE, undefined)
      claims.push(mine)
    })
  }

  function clear(): void {
    generation++
    for (const entry of entries) discard(entry, 'ended')
  }

  return {
    async take(key, job) {
      for (let entry = await claim(key); entry !== undefined; entry = await claim(key)) {
        const unchanged = await isUnchanged(entry, job)
        const { warm, quiet } = entry
        if (unchanged && !closed && warm.generation === generation && !dropped.has(warm.credential)) {
          count('reused')
          return { warm: { ...warm, uses: warm.uses + 1 }, quiet }
        }
        count('odd')
        quiet.close()
      }
      return undefined
    },
    park(warm, limits) {
      const quiet = createQuietUpstream({ ...warm.connection, rest: Buffer.alloc(0) })
      if (!mayStay(warm, limits)) {
        count('refused')
        quiet.close()
        return
      }
      const entry: Entry = { warm, quiet, ready: false, expiry: undefined }
      entries.add(entry)
      void reset(entry, limits.life)
    },
    drop(credential) {
      dropped.add(credential)
      for (const entry of entries) if (entry.warm.credential === credential) discard(entry, 'ended')
    },
    clear,
    close() {
      closed = true
      clear()
    },
    get generation() {
      return generation
    },
    get size() {
      return entries.size
    },
  }
}
