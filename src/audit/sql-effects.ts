/** Functions of pg_catalog with an effect that a class has a word for, so that a rule need not grant FUNCTION for them. */
import type { AllowedClass } from '../config/schema.ts'

const WRITES = `
nextval setval lo_creat lo_create lo_from_bytea lo_put lo_truncate lo_truncate64 lo_unlink lowrite pg_current_xact_id txid_current
`
/** They hold up whoever asks for the same lock, as LOCK does. Flyway, Rails and Prisma take one for a migration. */
const LOCKS = `
pg_advisory_lock pg_advisory_lock_shared pg_advisory_unlock pg_advisory_unlock_all pg_advisory_unlock_shared
pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_try_advisory_lock pg_try_advisory_lock_shared
pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared
`

const named = (names: string, classes: readonly AllowedClass[]): [string, readonly AllowedClass[]][] =>
  names
    .trim()
    .split(/\s+/)
    .map((name) => [name, classes])

/** What holds others up; a migration that writes or changes the schema may. */
export const LOCKING: readonly AllowedClass[] = ['MISC', 'WRITE', 'DDL']
export const NOTIFYING: readonly AllowedClass[] = ['MISC', 'WRITE']

/** By name in pg_catalog: classes of which one is enough. */
export const FUNCTION_CLASSES: ReadonlyMap<string, readonly AllowedClass[]> = new Map([
  ...named(WRITES, ['WRITE']),
  ...named(LOCKS, LOCKING),
  ...named('pg_notify', NOTIFYING),
  ...named('lo_get loread pg_export_snapshot', ['READ']),
])
