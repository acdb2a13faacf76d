/** Functions of pg_catalog with an effect that a class has a word for, so that a rule need not grant FUNCTION for them. */
import type { AllowedClass } from '../config/schema.ts'
import { KNOWN_FUNCTIONS } from './known-functions.ts'

const WRITES = `
nextval setval lo_creat lo_create lo_from_bytea lo_put lo_truncate lo_truncate64 lo_unlink lowrite pg_current_xact_id txid_current
`
/** They hold up whoever asks for the same lock, as LOCK does. Flyway, Rails and Prisma take one for a migration. */
const LOCKS = `
pg_advisory_lock pg_advisory_lock_shared pg_advisory_unlock pg_advisory_unlock_all pg_advisory_unlock_shared
pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared
pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared
`

const FUNCTION: readonly AllowedClass[] = ['FUNCTION']

const named = (names: string, classes: readonly AllowedClass[]): [string, readonly AllowedClass[]][] =>
  names
    .trim()
    .split(/\s+/)
    .map((name) => [name, classes])

/** What holds others up; a migration that writes or changes the schema may. */
export const LOCKING: readonly AllowedClass[] = ['MISC', 'WRITE', 'DDL']
export const NOTIFYING: readonly AllowedClass[] = ['MISC', 'WRITE']

/** Not in the list of those that hide no table, and yet no more than reading: what psql's \\d, pg_dump and JDBC's metadata call. */
const READS = `
acldefault aclexplode lo_get loread makeaclitem pg_available_extension_versions pg_available_extensions pg_cursor
pg_encoding_max_length pg_event_trigger_dropped_objects pg_export_snapshot pg_extension_update_paths pg_index_column_has_property
pg_index_has_property pg_indexam_has_property pg_listening_channels pg_lock_status pg_prepared_statement pg_safe_snapshot_blocking_pids
pg_sequence_last_value pg_sequence_parameters pg_timezone_abbrevs pg_timezone_names pg_wal_lsn_diff txid_current_if_assigned
`
/** All functions of PostgreSQL with these beginnings tell about the catalog or about statistics. */
const TELLS = /^(?:pg_get_|pg_stat_get_)\w+$/
/** Helpers of the views of the information_schema, which belongs to the superuser. */
const HELPER = /^_pg_\w+$/

const READ: readonly AllowedClass[] = ['READ']
const BY_NAME: ReadonlyMap<string, readonly AllowedClass[]> = new Map([
  ...named(WRITES, ['WRITE']),
  ...named(LOCKS, LOCKING),
  ...named('pg_notify', NOTIFYING),
  ...named(READS, READ),
])

/** Classes of which one is enough for a call. @param parts of the qualified name */
export function classesOfCall(parts: readonly string[]): readonly AllowedClass[] {
  const [first = '', second] = parts
  if (parts.length === 2 && first === 'information_schema' && HELPER.test(second ?? '')) return READ
  const name = second === undefined ? first : parts.length === 2 && first === 'pg_catalog' ? second : ''
  if (KNOWN_FUNCTIONS.has(name) || TELLS.test(name)) return READ
  return BY_NAME.get(name) ?? FUNCTION
}
