/** Finds the login roles whose maker is gone. The server's catalog is the registry, so any replica can do it. */
import type pg from 'pg'
import type { Admin } from './admin-connection.ts'
import { messageOf } from './failure.ts'
import { isLoginName, tagOfApplication } from './naming.ts'
import { parseComment } from './role-comment.ts'
import { EQ } from './sql.ts'

export interface SweepResult {
  removed: string[]
  failed: { login: string; reason: string }[]
}

export interface SweeperOptions {
  admin: Admin
  /** `bootTag` of this process. */
  boot: string
  /** True for a role that this process made, or is making, and has not been told to take back. */
  inUse(login: string): boolean
  remove(client: pg.Client, login: string): Promise<boolean>
  now(): number
}

/** A process whose admin connection broke has this long to make a new one before its roles count as orphans. */
export const ORPHAN_GRACE = 20_000

interface FoundRole {
  login: string
  comment: string | null
  /** VALID UNTIL is over by a minute, by the server's clock. */
  expired: boolean
}

const FOUND = `
SELECT r.rolname::pg_catalog.text AS login, pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment,
  coalesce(r.rolvaliduntil OPERATOR(pg_catalog.<)
    (pg_catalog.now() OPERATOR(pg_catalog.-) '1 minute'::pg_catalog.interval), false) AS expired
FROM pg_catalog.pg_roles r WHERE pg_catalog.starts_with(r.rolname::pg_catalog.text, $1)`

/**
 * A living process holds an admin connection that carries its boot's tag. Only sessions of roles with CREATEROLE count:
 * a job is refused such roles, so it cannot keep the roles of a dead process alive, as it could with an advisory lock.
 */
const TRUSTED = `
FROM pg_catalog.pg_stat_activity s JOIN pg_catalog.pg_roles a ON a.oid ${EQ} s.usesysid
WHERE (a.rolcreaterole OR a.rolsuper)`
const ALIVE = `SELECT DISTINCT s.application_name AS application ${TRUSTED}`

/** 'pgus' in ASCII. */
const LOCK_CLASS = 0x70677573

/** A job can take any advisory lock; one that takes this one must not stop the sweep. */
const SWEEPER_IS_TRUSTED = `
SELECT EXISTS (SELECT ${TRUSTED} AND s.pid IN (
  SELECT l.pid FROM pg_catalog.pg_locks l WHERE l.locktype ${EQ} 'advisory' AND l.objsubid ${EQ} 2
    AND l.classid ${EQ} ${LOCK_CLASS}::pg_catalog.oid AND l.objid ${EQ} pg_catalog.hashtext($1)::pg_catalog.oid)) AS trusted`

/** Remembers when a role was first seen without a living maker; returns those that are due now. */
function createOrphanWatch(options: SweeperOptions): (client: pg.Client) => Promise<string[]> {
  const { prefix } = options.admin.credentials
  const firstSeen = new Map<string, number>()

  const isDue = ({ login, comment, expired }: FoundRole, alive: ReadonlySet<string | undefined>): boolean => {
    const made = parseComment(comment)
    // Name and comment are made in one transaction: without it the role is somebody else's, as `pgu_payments_readonly` could be.
    if (made === undefined) return false
    const own = made.boot === options.boot
    if (options.inUse(login) || (!own && alive.has(made.boot))) {
      firstSeen.delete(login)
      return false
    }
    // What this very process made and does not use is a mint whose COMMIT got no answer.
    if (own) return true
    const since = firstSeen.get(login) ?? options.now()
    firstSeen.set(login, since)
    return expired || options.now() - since >= ORPHAN_GRACE
  }
  return async (client) => {
    const found = (await client.query<FoundRole>(FOUND, [prefix])).rows.filter(({ login }) =>
      isLoginName(prefix, login),
    )
    const logins = new Set(found.map(({ login }) => login))
    for (const login of firstSeen.keys()) if (!logins.has(login)) firstSeen.delete(login)
    if (found.length === 0) return []
    const { rows } = await client.query<{ application: string }>(ALIVE)
    const alive = new Set(rows.map(({ application }) => tagOfApplication(application)))
    return found.filter((role) => isDue(role, alive)).map(({ login }) => login)
  }
}

/** One replica at a time, though nothing breaks if two do it. */
async function maySweep(client: pg.Client, prefix: string): Promise<boolean> {
  const lock = `SELECT pg_catalog.pg_try_advisory_lock(${LOCK_CLASS}, pg_catalog.hashtext($1)) AS mine`
  const { rows } = await client.query<{ mine: boolean }>(lock, [prefix])
  if (rows[0]?.mine === true) return true
  const { rows: holders } = await client.query<{ trusted: boolean }>(SWEEPER_IS_TRUSTED, [prefix])
  return holders[0]?.trusted !== true
}

async function removeAll(client: pg.Client, options: SweeperOptions, due: readonly string[]): Promise<SweepResult> {
  const result: SweepResult = { removed: [], failed: [] }
  // The lock ends with the connection.
  if (!(await maySweep(client, options.admin.credentials.prefix))) return result
  for (const login of due) {
    try {
      if (await options.remove(client, login)) result.removed.push(login)
    } catch (error) {
      result.failed.push({ login, reason: messageOf(error) })
    }
  }
  return result
}

export function createSweeper(options: SweeperOptions): () => Promise<SweepResult> {
  const { admin } = options
  const orphans = createOrphanWatch(options)
  return async () => {
    const due = await admin.cleaning.run(orphans)
    if (due.length === 0) return { removed: [], failed: [] }
    // Apart from `cleaning`: an orphan that resists must not delay the clean-up after jobs that end now.
    const client = await admin.connect()
    try {
      return await removeAll(client, options, due)
    } finally {
      await client.end().catch(() => {})
    }
  }
}
