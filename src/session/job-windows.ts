/**
 * Windows in which a job may connect with a token that has expired. The first connection by a valid token opens one for the
 * job attempt and the rule; a later token of the same attempt neither extends nor opens it again. Kept in this process only.
 */
import { AccessError } from '../errors.ts'
import type { Principal } from '../identity/principal.ts'
import type { Grant } from '../policy/types.ts'

export interface JobWindow {
  /** Milliseconds since the epoch. */
  openedAt: number
  closesAt: number
  /** With a token that had expired, this one included. */
  connections: number
}

export interface WindowRequest {
  principal: Principal
  grant: Grant
  /** The client's. */
  address: string
  /** The token's own time is over. */
  over: boolean
}

export interface JobWindows {
  /** Whether a token has been let in under a window that may still be open: an expired one is then worth a look at the policy. */
  knows(tokenSha256: string): boolean
  /**
   * @returns the window, or undefined where the rule has none and the token is valid by itself
   * @throws AccessError `token_expired` where no window of this rule is open, `address_mismatch`, `limit_rate`
   */
  admit(request: WindowRequest, now: number): JobWindow | undefined
  /** For a job that is killed. @returns how many were open */
  closeJob(jobKey: string, now: number): number
  readonly size: number
}

interface Entry {
  key: string
  jobKey: string
  openedAt: number
  /** As it was when last used; a reload may shorten it. */
  closesAt: number
  connections: number
  closed: boolean
  /** The address that used it first, by SHA-256 of the token. */
  tokens: Map<string, string>
}

/** A job that asks for a token at each connect would fill the memory; tokens past this are good for their own time only. */
const MAX_TOKENS = 200
const MAX_WINDOWS = 50_000
/** A closed window is remembered so long, lest a later token of the same job attempt opens it again: no CI's job lives longer by default. */
const REMEMBERED = 24 * 3_600_000

export function createJobWindows(): JobWindows {
  const windows = new Map<string, Entry>()
  const byToken = new Map<string, Set<Entry>>()

  function forget(entry: Entry): void {
    windows.delete(entry.key)
    for (const token of entry.tokens.keys()) {
      const entries = byToken.get(token)
      entries?.delete(entry)
      if (entries?.size === 0) byToken.delete(token)
    }
  }

  /** The oldest are the first in the map. */
  function makeRoom(now: number): void {
    for (const entry of windows.values()) {
      const over = now >= Math.max(entry.closesAt, entry.openedAt + REMEMBERED)
      if (!over && windows.size < MAX_WINDOWS) return
      forget(entry)
    }
  }

  function open({ principal, grant, address }: WindowRequest, key: string, window: number, now: number): Entry {
    makeRoom(now)
    const { jobKey } = principal
    const fresh = { openedAt: now, closesAt: now + window, connections: 0, closed: false }
    const entry: Entry = { key, jobKey, ...fresh, tokens: new Map() }
    windows.set(key, entry)
    bind(entry, principal.tokenSha256, address, grant)
    return entry
  }

  function bind(entry: Entry, token: string, address: string, { anyAddress }: Grant): void {
    const bound = entry.tokens.get(token)
    if (bound !== undefined) {
      if (bound !== address && !anyAddress) throw otherAddress()
      return
    }
    if (entry.tokens.size >= MAX_TOKENS) return
    entry.tokens.set(token, address)
    byToken.set(token, (byToken.get(token) ?? new Set()).add(entry))
  }

  return {
    knows: (token) => byToken.has(token),
    admit(request, now) {
      const { principal, grant, address, over } = request
      if (grant.jobWindow === undefined) {
        if (over) throw expired(`rule "${grant.rule}" has no job_window`)
        return undefined
      }
      const key = `${principal.jobKey}\0${grant.database}\0${grant.rule}`
      const known = windows.get(key)
      if (over && known?.tokens.has(principal.tokenSha256) !== true) throw expired('no window was opened with it')
      const entry = known ?? open(request, key, grant.jobWindow, now)
      bind(entry, principal.tokenSha256, address, grant)
      if (!entry.closed) entry.closesAt = entry.openedAt + grant.jobWindow
      const isOpen = !entry.closed && now < entry.closesAt
      if (!over) return isOpen ? windowOf(entry) : undefined
      if (!isOpen) throw expired(`the job's window closed at ${new Date(entry.closesAt).toISOString()}`)
      if (entry.connections >= grant.windowConnections) throw tooMany(grant)
      entry.connections++
      return windowOf(entry)
    },
    closeJob(jobKey, now) {
      let count = 0
      for (const entry of windows.values()) {
        if (entry.jobKey !== jobKey || entry.closed) continue
        if (now < entry.closesAt) count++
        entry.closed = true
        entry.closesAt = Math.min(entry.closesAt, now)
      }
      return count
    },
    get size() {
      return windows.size
    },
  }
}

function windowOf({ openedAt, closesAt, connections }: Entry): JobWindow {
  return { openedAt, closesAt, connections }
}

function expired(why: string): AccessError {
  return new AccessError('token_expired', `the token has expired and ${why}`, {
    hint: 'Get a fresh token when you connect, or a ticket for it while it is valid.',
  })
}

function otherAddress(): AccessError {
  return new AccessError('address_mismatch', 'this token is in use from another address than this client has', {
    hint: 'Use it where the job runs. The operator can allow any address: any_address: true in the rule.',
  })
}

function tooMany(grant: Grant): AccessError {
  return new AccessError(
    'limit_rate',
    `this job has connected ${grant.windowConnections} times with an expired token, which is all that rule "${grant.rule}" allows (window_connections)`,
    { hint: 'Keep connections open in a pool, or get a fresh token when you connect.' },
  )
}
