/** Whether a group role may be given to a job at all. */
import type pg from 'pg'
import { AccessError } from '../errors.ts'
import { EQ } from './sql.ts'

/** Predefined roles that reach the server's operating system, and by that the superuser. */
const SERVER_ACCESS = ['pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files']

/** Predefined roles that lessen the fences between jobs; told by `check`, not refused. */
const FAR_REACHING: Readonly<Record<string, string>> = {
  pg_read_all_data: 'reads every table of every database, and the password verifiers in pg_authid',
  pg_write_all_data: 'writes every table of every database',
  pg_signal_backend: 'can end the sessions of other jobs and of pgusher itself',
}

export interface RoleReport {
  serverVersion: number
  /** Why it is refused; empty when it may be granted. */
  dangers: string[]
  cautions: string[]
  /** The admin may grant it. */
  grantable: boolean
}

interface ReachableRole {
  version: number
  name: string
  granted: boolean
  login: boolean
  attributes: string
  grantable: boolean
}

/**
 * Everything that the role is a member of counts, also without INHERIT or SET: with ADMIN it could give itself the rest.
 * An array in place of rows would lose the version when the role is missing.
 */
const WITH_REACHABLE = `
WITH RECURSIVE reachable (oid) AS (
  SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname ${EQ} $1
  UNION
  SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN reachable ON m.member ${EQ} reachable.oid
)`
const REACHABLE = `${WITH_REACHABLE}
SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4 AS version,
  r.rolname::pg_catalog.text AS name, r.rolname ${EQ} $1 AS granted, r.rolcanlogin AS login,
  pg_catalog.concat_ws(', ',
    CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
    CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END) AS attributes,
  pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER WITH ADMIN OPTION') AS grantable
FROM pg_catalog.pg_roles r JOIN reachable ON r.oid ${EQ} reachable.oid`

/** SQLSTATE of what `SAFE_ROLE` says of a role that may not be given to a job. */
export const UNSAFE = '22012'

/**
 * Divides by zero for a role that `inspectRole` finds dangers in or does not find: so that the check stands in the transaction that grants
 * the role, and costs no round trip of its own. Why it is refused is asked then.
 */
export const SAFE_ROLE = `${WITH_REACHABLE}
SELECT 1 OPERATOR(pg_catalog./) CASE WHEN pg_catalog.bool_or(r.rolname ${EQ} $1) AND NOT pg_catalog.bool_or(
    r.rolsuper OR r.rolcreaterole OR r.rolbypassrls OR r.rolreplication OR (r.rolname ${EQ} $1 AND r.rolcanlogin)
    OR r.rolname ${EQ} ANY (ARRAY['${SERVER_ACCESS.join("', '")}'])) THEN 1 ELSE 0 END AS safe
FROM pg_catalog.pg_roles r JOIN reachable ON r.oid ${EQ} reachable.oid`

/** Undefined where there is no such role. `login: true`: the role logs in itself, as with client certificates. */
export async function inspectRole(
  client: pg.Client,
  role: string,
  { login }: { login: boolean },
): Promise<RoleReport | undefined> {
  const { rows } = await client.query<ReachableRole>(REACHABLE, [role])
  const own = rows.find((row) => row.granted)
  if (own === undefined) return undefined
  const dangers = rows.flatMap(({ name, granted, attributes }) => {
    const via = granted ? '' : ` through its membership in "${name}"`
    if (attributes !== '') return [`it has ${attributes}${via}`]
    return SERVER_ACCESS.includes(name)
      ? [`it is a member of ${name}, which reaches the server's operating system`]
      : []
  })
  if (own.login && !login) dangers.unshift('it can log in by itself')
  if (!own.login && login) dangers.unshift('it cannot log in')
  const cautions = rows.flatMap(({ name }) => {
    const reach = FAR_REACHING[name]
    return reach === undefined ? [] : [`it is a member of ${name}, which ${reach}`]
  })
  return { serverVersion: own.version, dangers, cautions, grantable: own.grantable }
}

/** The report of a role that may be used. @throws AccessError `credential_failed` for a missing or dangerous role. */
export async function requireSafeRole(
  client: pg.Client,
  alias: string,
  role: string,
  kind: { login: boolean },
): Promise<RoleReport> {
  const report = await inspectRole(client, role, kind)
  const hint = 'The operator changes the role or the rule; "pgusher check --live" lists every such role.'
  if (report === undefined) {
    throw new AccessError('credential_failed', `role "${role}" does not exist on database "${alias}"`, { hint })
  }
  if (report.dangers.length > 0) {
    const reasons = report.dangers.join('; ')
    throw new AccessError(
      'credential_failed',
      `role "${role}" of database "${alias}" is not given to jobs: ${reasons}`,
      { hint },
    )
  }
  return report
}
