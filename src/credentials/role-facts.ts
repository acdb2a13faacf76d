/** What is known of a login that is to be taken away, and what still stands on it. */
import { parseComment } from './role-comment.ts'
import { EQ } from './sql.ts'

/** A login role that is being taken away. */
export interface Doomed {
  oid: number
  login: string
  version: number
  /** The admin is a superuser: no membership gives it more, and one that it makes would replace the operator's. */
  superuser: boolean
  /** The group role that it was made for. A job may have got others; nothing goes to those. Undefined when it may not assume that any more. */
  heir: string | undefined
}

export interface RoleFacts extends Doomed {
  /** Process ids of its sessions. */
  sessions: readonly number[]
  /** Process ids of whoever is logging in: their roles are not known yet. */
  starting: readonly number[]
  /** It has prepared transactions. */
  prepared: boolean
  /** Something belongs to it, or was granted to it, somewhere. */
  holds: boolean
}

/** A setting, local to a transaction. */
const IN_TRANSACTION = 'pgusher.in_transaction'

/**
 * Ahead of `ROLE_FACTS`, in the same transaction. A login reads LOGIN, takes its `role` and only later shows in pg_stat_activity, after
 * `post_auth_delay` where the job says so (seconds: tried); but it holds a transaction from before to after all that. So who is in a
 * transaction now and then not in pg_stat_activity may be one; in the opposite order one that shows in between would be missed.
 */
export const WHO_IS_IN_TRANSACTION = `
SELECT pg_catalog.set_config('${IN_TRANSACTION}', pg_catalog.array_to_string(ARRAY(
  SELECT l.pid FROM pg_catalog.pg_locks l WHERE l.locktype ${EQ} 'virtualxid' AND l.granted), ','), true)`

/** No row where there is no such role. */
export const ROLE_FACTS = `
SELECT r.oid::pg_catalog.int8::pg_catalog.text AS oid, pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment,
  (SELECT a.rolsuper FROM pg_catalog.pg_roles a WHERE a.rolname ${EQ} current_user) AS superuser,
  ARRAY(SELECT g.rolname::pg_catalog.text FROM pg_catalog.pg_auth_members m
    JOIN pg_catalog.pg_roles g ON g.oid ${EQ} m.roleid WHERE m.member ${EQ} r.oid) AS groups,
  ARRAY(SELECT s.pid FROM pg_catalog.pg_stat_activity s WHERE s.usesysid ${EQ} r.oid) AS sessions,
  ARRAY(SELECT t.pid FROM pg_catalog.unnest(pg_catalog.string_to_array(
      pg_catalog.current_setting('${IN_TRANSACTION}', true), ',')::pg_catalog.int4[]) AS t (pid)
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity s WHERE s.pid ${EQ} t.pid
      AND (s.usesysid IS NOT NULL OR s.datid IS NOT NULL))) AS starting,
  EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts p WHERE p.owner ${EQ} r.rolname) AS prepared,
  coalesce((SELECT true FROM pg_catalog.pg_shdepend d
    WHERE d.refclassid ${EQ} 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid ${EQ} r.oid LIMIT 1), false) AS holds
FROM pg_catalog.pg_roles r WHERE r.rolname ${EQ} $1`

export interface RoleFactsRow extends Pick<RoleFacts, 'superuser' | 'sessions' | 'starting' | 'prepared' | 'holds'> {
  oid: string
  comment: string | null
  groups: string[]
}

export function factsOf(login: string, version: number, row: RoleFactsRow): RoleFacts {
  const { comment, groups, ...facts } = row
  const group = parseComment(comment)?.role
  return { ...facts, login, version, oid: Number(row.oid), heir: groups.find((name) => name === group) }
}
