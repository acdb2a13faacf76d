/**
 * What the admin asks about each role, prepared once on each connection: to parse and plan it takes longer than to answer it, and EXECUTE
 * can stand in one message with the statements that it is asked for.
 */
import type pg from 'pg'
import { SAFE_ROLE } from './group-role.ts'
import { ROLE_FACTS } from './role-facts.ts'
import { lastRows, quoteLiteral } from './sql.ts'

const STATEMENTS = { pgusher_safe_role: SAFE_ROLE, pgusher_role_facts: ROLE_FACTS }
const VERSION = `SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4 AS version`

const known = new WeakMap<pg.Client, Promise<number>>()

/** From now on `execute` works on this connection. @returns `server_version_num` */
export function prepare(client: pg.Client): Promise<number> {
  const found = known.get(client)
  if (found !== undefined) return found
  const prepared = prepareAll(client)
  known.set(client, prepared)
  // Half of it may be there, which a second try would stumble over.
  prepared.catch(() => client.end().catch(() => {}))
  return prepared
}

async function prepareAll(client: pg.Client): Promise<number> {
  const statements = Object.entries(STATEMENTS).map(([name, sql]) => `PREPARE ${name} (pg_catalog.text) AS ${sql}`)
  const [row] = await lastRows<{ version: number }>(client, [...statements, VERSION])
  return row?.version ?? 0
}

/** SQL. @param role name of a role */
export function execute(name: keyof typeof STATEMENTS, role: string): string {
  return `EXECUTE ${name} (${quoteLiteral(role)})`
}
