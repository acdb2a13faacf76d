/** What a job prepared (PREPARE TRANSACTION) outlives its sessions, and may hold its login. */
import type pg from 'pg'
import type { Admin } from './admin-connection.ts'
import type { Doomed } from './role-facts.ts'
import { EQ, hasMembershipOptions, joinRole, leaveRole, quoteIdentifier, quoteLiteral } from './sql.ts'
import { inTransaction } from './transaction.ts'

/** Runs `work` on a connection to that database: on the given one where it is there already. */
export async function inDatabase<T>(
  admin: Admin,
  client: pg.Client,
  dbname: string,
  work: (there: pg.Client) => Promise<T>,
): Promise<T> {
  if (dbname === client.database) return work(client)
  const there = await admin.connect(dbname)
  try {
    return await work(there)
  } finally {
    await there.end().catch(() => {})
  }
}

/**
 * A prepared transaction belongs to whom was the current user at PREPARE TRANSACTION, and only that user, in that
 * database, may end it, outside a transaction block. So the admin joins the doomed role for longer than a transaction;
 * the membership goes with the role at the latest.
 */
export async function rollBackPrepared(admin: Admin, client: pg.Client, role: Doomed): Promise<void> {
  const owned = `SELECT p.gid, p.database FROM pg_catalog.pg_prepared_xacts p WHERE p.owner ${EQ} $1`
  const { rows } = await client.query<{ gid: string; database: string }>(owned, [role.login])
  for (const { gid, database } of rows) {
    await inDatabase(admin, client, database, async (there) => {
      await there.query(joinRole(role.login, role.version))
      await there.query(`SET ROLE ${quoteIdentifier(role.login)}`)
      try {
        await there.query(`ROLLBACK PREPARED ${quoteLiteral(gid)}`)
      } finally {
        await there.query('RESET ROLE')
        await there.query(leaveRole(role.login, role.version))
      }
    })
  }
}

/**
 * Prepared transactions of others that hold a lock on the role or on pg_authid: they are not ours to end. The lock on its
 * own id tells which locks without a process are a prepared transaction's.
 */
export async function foreignPrepared(client: pg.Client, role: Doomed): Promise<string[]> {
  const sql = `
    SELECT DISTINCT pg_catalog.format('prepared transaction %L of role %I in database %I', p.gid, p.owner, p.database) AS what
    FROM pg_catalog.pg_prepared_xacts p
    JOIN pg_catalog.pg_locks own ON own.pid IS NULL AND own.transactionid ${EQ} p.transaction
    JOIN pg_catalog.pg_locks held ON held.pid IS NULL AND held.virtualtransaction ${EQ} own.virtualtransaction
    WHERE (held.classid ${EQ} 'pg_catalog.pg_authid'::pg_catalog.regclass AND held.objid ${EQ} $1::pg_catalog.oid)
      OR held.relation ${EQ} 'pg_catalog.pg_authid'::pg_catalog.regclass`
  const { rows } = await client.query<{ what: string }>(sql, [role.oid])
  return rows.map(({ what }) => what)
}

const HOLDER = `
SELECT p.gid, p.database FROM pg_catalog.pg_locks w
JOIN pg_catalog.pg_prepared_xacts p ON p.transaction ${EQ} w.transactionid
WHERE w.pid ${EQ} $1 AND NOT w.granted AND p.owner ${EQ} $2`

/**
 * Runs `change`, a change of the role's own catalog row. A job that changes its password, assumes its group role and then prepares
 * the transaction holds that row under the group role's name, and would keep its LOGIN. Nobody but the role and the admin may
 * change the row, so the transaction that `change` waits for is the job's.
 * @throws what `change` throws, such as 55P03 where somebody else holds the row.
 */
export async function rollBackHolder(admin: Admin, client: pg.Client, role: Doomed, change: string): Promise<void> {
  const { rows } = await client.query<{ pid: number }>('SELECT pg_catalog.pg_backend_pid() AS pid')
  const watcher = await admin.connect(client.database ?? admin.target.dbname)
  try {
    let over = false
    const changing = client.query(change).finally(() => {
      over = true
    })
    changing.catch(() => {})
    while (!over) {
      const [holder] = (await watcher.query<{ gid: string; database: string }>(HOLDER, [rows[0]?.pid, role.heir])).rows
      if (holder !== undefined) {
        await inDatabase(admin, watcher, holder.database, (there) => rollBackAsHeir(there, role, holder.gid))
      }
      await new Promise((next) => setTimeout(next, 20))
    }
    await changing
  } finally {
    await watcher.end().catch(() => {})
  }
}

/** As its owner and outside of a transaction block, as ROLLBACK PREPARED demands; no membership outlives a transaction. */
async function rollBackAsHeir(client: pg.Client, role: Doomed, gid: string): Promise<void> {
  const { heir, version, superuser } = role
  if (heir === undefined) return
  const joins = hasMembershipOptions(version) && !superuser
  await inTransaction(client, async () => {
    if (joins) await client.query(joinRole(heir, version))
    await client.query(`SET ROLE ${quoteIdentifier(heir)}`)
    // Until COMMIT, which brings back what was set without LOCAL.
    await client.query('SET LOCAL ROLE NONE')
    if (joins) await client.query(leaveRole(heir, version))
  })
  try {
    await client.query(`ROLLBACK PREPARED ${quoteLiteral(gid)}`)
  } finally {
    await client.query('RESET ROLE')
  }
}
