/**
 * What a PostgreSQL backend's session is made of, as a few queries tell it: taken from a fresh connection, and compared after a session
 * has been reset. Names and operators are qualified, since the search path is the job's.
 *
 * What the catalog says is asked again only where it may have changed, which MOMENT tells. Of PostgreSQL's CPU (18 and 15) MOMENT takes 0.05 ms,
 * STANDING 0.55, CODE 0.3 to 0.4, SESSION 0.7, most of it for making the list of settings; a digest of all settings in order took 1.
 */
import { randomUUID } from 'node:crypto'
import type { OwnQuery } from './quiet-upstream.ts'

const EQ = 'OPERATOR(pg_catalog.=)'
const NE = 'OPERATOR(pg_catalog.<>)'

/**
 * One row that is the same for as long as nothing in the catalog has changed: no transaction of any database has ended that may write to
 * it, since each has a number and stands in the snapshot until then, and the server's configuration was not read again. On a standby
 * the snapshot does not show them: there it is never the same.
 */
const MOMENT = `SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.clock_timestamp()::pg_catalog.text
 ELSE pg_catalog.pg_current_snapshot()::pg_catalog.text END, pg_catalog.pg_conf_load_time()`

/**
 * One row while a fresh login would be let in and be the same as this session: who it is, its role's attributes and memberships, settings
 * of ALTER ROLE and ALTER DATABASE, and when the server's configuration was read. None where a login trigger would run,
 * which a session that is used again misses.
 */
const STANDING = `SELECT session_user, current_user, d.oid, r, pg_catalog.pg_is_in_recovery(), pg_catalog.pg_conf_load_time(),
 (SELECT g FROM pg_catalog.pg_roles g WHERE g.rolname ${EQ} current_user),
 ARRAY(SELECT m::pg_catalog.text FROM pg_catalog.pg_auth_members m WHERE m.member ${EQ} r.oid ORDER BY 1),
 ARRAY(SELECT s::pg_catalog.text FROM pg_catalog.pg_db_role_setting s WHERE s.setdatabase ${EQ} ANY (ARRAY[0::pg_catalog.oid, d.oid])
  AND s.setrole ${EQ} ANY (ARRAY[0::pg_catalog.oid, r.oid]) ORDER BY 1)
FROM pg_catalog.pg_roles r CROSS JOIN pg_catalog.pg_database d
WHERE r.rolname ${EQ} session_user AND d.datname ${EQ} pg_catalog.current_database() AND r.rolcanlogin AND d.datallowconn
 AND (r.rolvaliduntil IS NULL OR r.rolvaliduntil OPERATOR(pg_catalog.>) pg_catalog.now())
 AND pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT') AND pg_catalog.pg_has_role(r.oid, current_user, 'MEMBER')
 AND NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger e WHERE e.evtevent ${EQ} 'login')`

/** Known to keep nothing for the length of a session but settings. dblink and postgres_fdw keep connections, PL/Perl and others variables. */
const EXTENSIONS = [
  'plpgsql,amcheck,bloom,btree_gin,btree_gist,citext,cube,dict_int,dict_xsyn,earthdistance,fuzzystrmatch,hstore,intarray,isn,lo,ltree',
  'moddatetime,pageinspect,pg_buffercache,pg_freespacemap,pg_prewarm,pg_stat_statements,pg_trgm,pg_visibility,pg_walinspect,pgcrypto',
  'pgrowlocks,pgstattuple,seg,tablefunc,tcn,tsm_system_rows,tsm_system_time,unaccent,uuid-ossp,vector',
].join()
const LANGUAGES = 'internal,c,sql,plpgsql'
/** PL/pgSQL defines these when it is first used; at their defaults they tell nothing more. */
const PLPGSQL = 'check_asserts,extra_errors,extra_warnings,print_strict_params,variable_conflict'

const among = (names: string, prefix = '') =>
  `(ARRAY[${names
    .split(',')
    .map((name) => `'${prefix}${name}'`)
    .join()}]::pg_catalog.text[])`

/** One row, or none where the database holds code that can keep something which DISCARD ALL does not know of. */
const CODE = `SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_extension x WHERE x.extname::pg_catalog.text ${NE} ALL ${among(EXTENSIONS)})
 AND NOT EXISTS (SELECT FROM pg_catalog.pg_language l WHERE l.lanname::pg_catalog.text ${NE} ALL ${among(LANGUAGES)})
 AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.prolang ${EQ} (SELECT l.oid FROM pg_catalog.pg_language l WHERE l.lanname ${EQ} 'c')
  AND p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend n
  WHERE n.classid ${EQ} 'pg_catalog.pg_proc'::pg_catalog.regclass AND n.objid ${EQ} p.oid AND n.deptype ${EQ} 'e'))`

/**
 * One row of what is the session's own: who it is, its temporary schema, how many settings there are (a library that was loaded brings
 * more; those of the job's own making no view shows), and a digest of all that are not as PostgreSQL was built. IS DISTINCT FROM would
 * find its operator by the search path. setseed(), since what a session asked for outlives DISCARD ALL, and the next session's random()
 * would be foreseen by it.
 */
function session(): string {
  // The first 48 bits of such an id are random, and Node draws them in stock.
  const fraction = (Number.parseInt(randomUUID().replace('-', '').slice(0, 12), 16) / 2 ** 48).toFixed(16)
  return `SELECT session_user, current_user, pg_catalog.pg_my_temp_schema(),
 pg_catalog.count(*) FILTER (WHERE NOT (s.source ${EQ} 'default' AND s.setting ${NE} '' AND s.name ${EQ} ANY ${among(PLPGSQL, 'plpgsql.')})),
 pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.string_agg(
  pg_catalog.concat_ws(' ', s.name, s.source, s.setting, s.reset_val), ' ')
  FILTER (WHERE s.source ${NE} 'default' OR COALESCE(s.setting, '') ${NE} COALESCE(s.boot_val, '')
   OR COALESCE(s.reset_val, '') ${NE} COALESCE(s.boot_val, '')), 'UTF8')), 'hex'), pg_catalog.setseed(${fraction})
FROM pg_catalog.pg_show_all_settings() s`
}

/** `job` goes as hexadecimal digits: right whatever standard_conforming_strings and client_encoding are. It is ASCII. */
const setJob = (job: string): string =>
  `SELECT pg_catalog.set_config('pgusher.job', pg_catalog.convert_from(pg_catalog.decode('${Buffer.from(job).toString('hex')}', 'hex'), 'UTF8'), false)`

/** What pg_stat_activity and PostgreSQL's log show of queries that no job sent. */
const BEGINS = '/* pgusher: a session begins */'
const KEPT = "/* pgusher: kept for the job's next session */"

const query = (comment: string, ...statements: string[]): OwnQuery => ({
  sql: `${comment} ${statements.join(';\n')}`,
  tags: statements.map(() => 'SELECT '),
})

/** Of a fresh connection: rows MOMENT, STANDING, CODE, SESSION and the job's; the second and third may be missing. */
export const baselineQuery = (job: string): OwnQuery[] => [
  query(BEGINS, MOMENT, STANDING, CODE, session(), setJob(job)),
]

/** Rows MOMENT and SESSION. DISCARD ALL does not run together with another statement. */
export const resetQueries = (): OwnQuery[] => [
  { sql: 'DISCARD ALL', tags: ['DISCARD ALL'] },
  query(KEPT, MOMENT, session()),
]

/** After a reset, where the moment is another: rows MOMENT, STANDING and CODE. */
export const RESET_CATALOG: readonly OwnQuery[] = [query(KEPT, MOMENT, STANDING, CODE)]

/** Rows MOMENT and the job's. */
export const reuseQuery = (job: string): OwnQuery[] => [query(BEGINS, MOMENT, setJob(job))]

/** Before it is used again, where the moment is another: row STANDING. */
export const REUSE_CATALOG: readonly OwnQuery[] = [query(BEGINS, STANDING)]
