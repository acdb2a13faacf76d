/** Whether the way to PostgreSQL is as safe as it looks. */
import type pg from 'pg'
import type { DatabaseConfig } from '../config/schema.ts'
import type { Finding } from './minter.ts'
import { EQ } from './sql.ts'

function isLocal(host: string): boolean {
  return host.startsWith('/') || host === 'localhost' || host === '::1' || host.startsWith('127.')
}

export async function transportFindings(
  client: pg.Client,
  { host, tls }: DatabaseConfig,
  subject: string,
): Promise<Finding[]> {
  const sql = `SELECT s.ssl FROM pg_catalog.pg_stat_ssl s WHERE s.pid ${EQ} pg_catalog.pg_backend_pid()`
  const encrypted = (await client.query<{ ssl: boolean }>(sql)).rows[0]?.ssl === true
  if (isLocal(host)) return []
  if (!encrypted) {
    const hint = 'set tls.mode to verify-full, and hostssl in pg_hba.conf'
    return [{ level: 'warning', subject, message: 'the connection to PostgreSQL is not encrypted', hint }]
  }
  if (tls.mode === 'verify-full') return []
  const message = `tls.mode ${tls.mode} lets another host pass for this server`
  return [{ level: 'warning', subject, message, hint: 'set tls.mode to verify-full' }]
}
