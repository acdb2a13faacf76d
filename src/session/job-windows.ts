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

/** An open window, for the operator. */
export interface OpenWindow extends JobWindow {
  /** Of the token that opened it. */
  principal: Principal
  rule: string
}

/** What a connection needs of them; they may be kept by another process. */
export interface WindowDoor {
  /** Whether a token has been let in by a rule with windows: an expired one is then worth a look at the policy. */
  knows(tokenSha256: string): boolean | Promise<boolean>
  /** Changes nothing. @throws AccessError where `admit` would */
  check(request: WindowRequest, now: number): void | Promise<void>
  /**
   * @returns the window, or undefined where the rule has none or it is closed, and the token is valid by itself
   * @throws AccessError `token_expired` where no window of this rule is open, `address_mismatch`, `limit_rate`
   */
  admit(request: WindowRequest, now: number): JobWindow | undefined | Promise<JobWindow | undefined>
}

export interface JobWindows extends WindowDoor {
  knows(tokenSha256: string): boolean
  check(request: WindowRequest, now: number): void
  admit(request: WindowRequest, now: number): JobWindow | undefined
  /** For jobs that are killed. @returns how many were open */
  closeJobs(jobKeys: ReadonlySet<string>, now: number): number
  /**
   * Closes for good what the policy of now does not give any more. @param still what it gives to that principal for the same
   * database, role and rule. @returns how many were open
   */
  closeDisallowed(still: (principal: Principal, grant: Grant) => Grant | undefined, now: number): number
  listOpen(now: number): OpenWindow[]
  /** Open ones, and closed ones that are remembered. */
  readonly size: number
}

export interface WindowLimits {
  windows: number
  /** Of one window. A job that gets a token for each connect forgets its oldest. */
  tokensEach: number
  tokens: number
}

interface Entry {
  key: string
  openedAt: number
  /** What a reload shortens stays short. */
  closesAt: number
  /** Before its time. A flag, because a clock that is set back must not open it again. */
  closed: boolean
  connections: number
  principal: Principal
  /** By database and role. */
  grants: Map<string, Grant>
  /** Hex SHA-256. */
  tokens: Set<string>
}

/** A token that came by a rule with windows. */
interface KnownToken {
  /** The one that used it first, where the rule binds it. */
  address: string | undefined
  entries: Set<Entry>
}

/** Some 100 MiB with tokens as long as CI systems make them; when it is full the oldest window goes. */
const LIMITS: WindowLimits = { windows: 10_000, tokensEach: 200, tokens: 100_000 }
/** A closed window is remembered so long, lest a later token of the same job attempt opens it again: no CI's job lives longer by default. */
const REMEMBERED = 24 * 3_600_000

export function createJobWindows(limits: WindowLimits = LIMITS): JobWindows {
  /** The oldest are the first. */
  const windows = new Map<string, Entry>()
  const tokens = new Map<string, KnownToken>()

  function forgetToken(entry: Entry, sha256: string): void {
    entry.tokens.delete(sha256)
    const known = tokens.get(sha256)
    known?.entries.delete(entry)
    if (known?.entries.size === 0) tokens.delete(sha256)
  }

  function forget(entry: Entry): void {
    windows.delete(entry.key)
    for (const sha256 of entry.tokens) forgetToken(entry, sha256)
  }

  function makeRoom(now: number): void {
    for (const entry of windows.values()) {
      const over = now >= Math.max(entry.closesAt, entry.openedAt + REMEMBERED)
      if (!over && windows.size < limits.windows && tokens.size <= limits.tokens) return
      forget(entry)
    }
  }

  function open(principal: Principal, key: string, window: number, now: number): Entry {
    makeRoom(now)
    const empty = { closed: false, connections: 0, grants: new Map(), tokens: new Set<string>() }
    const entry: Entry = { key, openedAt: now, closesAt: now + window, principal, ...empty }
    windows.set(key, entry)
    return entry
  }

  /** Of every rule that binds tokens to addresses: a copy must not pass by asking for another database. */
  function checkAddress(sha256: string, address: string, { anyAddress }: Grant): void {
    const bound = tokens.get(sha256)?.address
    if (!anyAddress && bound !== undefined && bound !== address) throw otherAddress()
  }

  function remember(entry: Entry, { principal, address, grant }: WindowRequest, now: number): void {
    const { tokenSha256: sha256 } = principal
    entry.grants.set(`${grant.database}\0${grant.role}`, grant)
    const known = tokens.get(sha256) ?? { address: undefined, entries: new Set<Entry>() }
    if (!grant.anyAddress) known.address ??= address
    tokens.set(sha256, known)
    known.entries.add(entry)
    entry.tokens.add(sha256)
    const [oldest] = entry.tokens
    if (entry.tokens.size > limits.tokensEach && oldest !== undefined) forgetToken(entry, oldest)
    if (tokens.size > limits.tokens) makeRoom(now)
  }

  function close(entry: Entry, now: number): void {
    entry.closed = true
    entry.closesAt = Math.min(entry.closesAt, now)
  }

  /** @returns what there is of the job's window. @throws AccessError where none can help this token */
  function find({ principal, grant, address, over }: WindowRequest): Entry | undefined {
    if (grant.jobWindow === undefined) {
      if (over) throw expired(`rule "${grant.rule}" has no job_window`)
      return undefined
    }
    const known = windows.get(keyOf(principal, grant))
    if (over && known?.tokens.has(principal.tokenSha256) !== true) throw expired('no window was opened with it')
    checkAddress(principal.tokenSha256, address, grant)
    return known
  }

  /** A copy, because what is done with them may change the map. */
  const openEntries = (now: number): Entry[] => [...windows.values()].filter((entry) => isOpen(entry, now))

  return {
    knows: (sha256) => tokens.has(sha256),
    check(request, now) {
      const known = find(request)
      const { jobWindow } = request.grant
      if (known !== undefined && jobWindow !== undefined) checkOpen(known, endOf(known, jobWindow), request, now)
    },
    admit(request, now) {
      const { principal, grant, over } = request
      const { jobWindow } = grant
      const known = find(request)
      if (jobWindow === undefined) return undefined
      const entry = known ?? open(principal, keyOf(principal, grant), jobWindow, now)
      remember(entry, request, now)
      entry.closesAt = endOf(entry, jobWindow)
      checkOpen(entry, entry.closesAt, request, now)
      if (!isOpen(entry, now)) return undefined
      if (over) entry.connections++
      return windowOf(entry)
    },
    closeJobs(jobKeys, now) {
      const found = openEntries(now).filter(({ principal }) => jobKeys.has(principal.jobKey))
      for (const entry of found) close(entry, now)
      return found.length
    },
    closeDisallowed(still, now) {
      const before = openEntries(now)
      for (const entry of before) {
        const left = [...entry.grants.values()].map((grant) => still(entry.principal, grant)?.jobWindow ?? 0)
        entry.closesAt = Math.min(entry.closesAt, ...left.map((window) => entry.openedAt + window))
        if (left.includes(0)) close(entry, now)
      }
      return before.filter((entry) => !isOpen(entry, now)).length
    },
    listOpen: (now) => openEntries(now).map(openWindow),
    get size() {
      return windows.size
    },
  }
}

function keyOf({ jobKey }: Principal, { rule }: Grant): string {
  return `${jobKey}\0${rule}`
}

/** The rule's window may be shorter than it was. */
function endOf({ openedAt, closesAt }: Entry, window: number): number {
  return Math.min(closesAt, openedAt + window)
}

/** A token that is valid by itself needs no window. @throws AccessError `token_expired`, `limit_rate` */
function checkOpen(
  { closed, connections }: Entry,
  closesAt: number,
  { grant, over }: WindowRequest,
  now: number,
): void {
  if (!over) return
  if (!isOpen({ closed, closesAt }, now)) {
    throw expired(`the job's window closed at ${new Date(closesAt).toISOString()}`)
  }
  if (connections >= grant.windowConnections) throw tooMany(grant)
}

function isOpen({ closed, closesAt }: Pick<Entry, 'closed' | 'closesAt'>, now: number): boolean {
  return !closed && now < closesAt
}

function windowOf({ openedAt, closesAt, connections }: JobWindow): JobWindow {
  return { openedAt, closesAt, connections }
}

function openWindow(entry: Entry): OpenWindow {
  const [grant] = entry.grants.values()
  return { ...windowOf(entry), principal: entry.principal, rule: grant?.rule ?? '' }
}

function expired(why: string): AccessError {
  return new AccessError('token_expired', `the token has expired and ${why}; connect with a fresh one`, {
    hint: 'A ticket, asked for while a token is valid, or `pgusher exec` lasts longer.',
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
