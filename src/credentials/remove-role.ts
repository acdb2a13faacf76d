/**
 * Takes one login role away: no new session, end the open ones, roll back what it prepared, pass on what it owns, drop it.
 * Every step may be repeated; what stops it leaves the role without LOGIN where that is possible.
 */
import type pg from 'pg'
import type { Admin } from './admin-connection.ts'
import { isCollision, messageOf, sqlstateOf } from './failure.ts'
import { execute, prepare } from './prepared-statements.ts'
import { foreignPrepared, inDatabase, rollBackHolder, rollBackPrepared } from './prepared-transactions.ts'
import { type Doomed, factsOf, type RoleFacts, type RoleFactsRow, WHO_IS_IN_TRANSACTION } from './role-facts.ts'
import { EQ, hasMembershipOptions, joinRole, leaveRole, quoteIdentifier } from './sql.ts'
import { inOneMessage, inTransaction, retryCollisions } from './transaction.ts'

/** `reason` names what stands in the way; for the log, the audit and the operator. */
export class RemovalError extends Error {}

/** @returns undefined where there is no such role */
async function look(client: pg.Client, login: string, first: readonly string[] = []): Promise<RoleFacts | undefined> {
  const version = await prepare(client)
  const statements = [...first, WHO_IS_IN_TRANSACTION, execute('pgusher_role_facts', login)]
  const [row] = await inOneMessage<RoleFactsRow>(client, statements)
  return row && factsOf(login, version, row)
}

/** Nobody waits for the disk here: what follows is written behind it, and the last step waits for all. */
const WITHOUT_FLUSH = 'SET LOCAL synchronous_commit = off'
/** Of an object that others depend on, a lock that is held, a role that is not there. */
const [DEPENDENT, LOCKED, MISSING] = ['2BP01', '55P03', '42704']

/**
 * Takes LOGIN, and looks once that is true for everybody. `disabled` is false when somebody else (a prepared transaction, an open one of
 * the job) holds the role's catalog row.
 */
async function disableLogin(
  client: pg.Client,
  login: string,
): Promise<{ role: RoleFacts | undefined; disabled: boolean }> {
  const change = `ALTER ROLE ${quoteIdentifier(login)} NOLOGIN`
  const statements = ['BEGIN', "SET LOCAL lock_timeout = '500ms'", WITHOUT_FLUSH, change, 'COMMIT']
  try {
    return { role: await retryCollisions(() => look(client, login, statements)), disabled: true }
  } catch (error) {
    if (sqlstateOf(error) === MISSING) return { role: undefined, disabled: true }
    if (sqlstateOf(error) === LOCKED) return { role: await look(client, login), disabled: false }
    throw error
  }
}

/** Looked for once more: a process id may have gone to somebody else since. */
const END_SESSIONS = `SELECT pg_catalog.pg_terminate_backend(s.pid, $2)
  FROM pg_catalog.pg_stat_activity s WHERE s.usesysid ${EQ} $1::pg_catalog.oid`

/**
 * Those who were logging in at the first look are asked; who comes later reads NOLOGIN. pg_terminate_backend waits up to its second argument's
 * milliseconds and demands the privileges of the role.
 * @returns what the last look saw, which no session of the role can change any more
 */
async function endSessions(client: pg.Client, role: RoleFacts): Promise<RoleFacts> {
  let [now, unsure] = [role, role.starting]
  for (const patience of [0, 3_000, 3_000]) {
    const { sessions } = now
    if (sessions.length + unsure.length === 0) return now
    await client.query('BEGIN')
    try {
      await client.query(joinRole(role.login, role.version))
      if (sessions.length > 0) await client.query(END_SESSIONS, [role.oid, patience])
      if (unsure.length > 0) await client.query(`SET LOCAL ROLE ${quoteIdentifier(role.login)}`)
      const own: number[] = []
      for (const pid of unsure) if (await endOwn(client, pid, patience)) own.push(pid)
      unsure = own
    } finally {
      // The membership was for this only.
      await client.query('ROLLBACK').catch(() => client.end().catch(() => {}))
    }
    const { login } = role
    now = (await look(client, login)) ?? { ...now, sessions: [], starting: [] }
    const { starting } = now
    unsure = unsure.filter((pid) => starting.includes(pid))
  }
  const left = now.sessions.length + unsure.length
  if (left > 0) throw new RemovalError(`${left} of its sessions do not end`)
  return now
}

/**
 * Asked in the name of the role that is taken away, which may end its own sessions and no others.
 * @returns false where it is somebody else's, or nobody's yet: then it reads NOLOGIN when it comes to that
 */
async function endOwn(client: pg.Client, pid: number, patience: number): Promise<boolean> {
  await client.query('SAVEPOINT one')
  try {
    await client.query('SELECT pg_catalog.pg_terminate_backend($1, $2)', [pid, patience])
    return true
  } catch (error) {
    if (sqlstateOf(error) !== '42501') throw error
    await client.query('ROLLBACK TO one')
    return false
  }
}

interface Holding {
  /** Null for what belongs to no database. */
  database: string | null
  owns: boolean
}

async function holdings(client: pg.Client, role: Doomed): Promise<Holding[]> {
  const sql = `
    SELECT d.datname::pg_catalog.text AS database, pg_catalog.bool_or(s.deptype ${EQ} 'o') AS owns
    FROM pg_catalog.pg_shdepend s LEFT JOIN pg_catalog.pg_database d ON d.oid ${EQ} s.dbid
    WHERE s.refclassid ${EQ} 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid ${EQ} $1::pg_catalog.oid
    GROUP BY d.datname ORDER BY d.datname NULLS LAST`
  return (await client.query<Holding>(sql, [role.oid])).rows
}

/**
 * Group roles that the admin may grant and has no privileges of. Only who has those of an object's owner, or of whoever
 * passed a privilege on, can withdraw the privilege; up to 15 the admin always has them.
 */
async function joinable(client: pg.Client, role: Doomed, prefix: string): Promise<string[]> {
  if (!hasMembershipOptions(role.version)) return []
  const sql = `SELECT r.rolname::pg_catalog.text AS name FROM pg_catalog.pg_roles r
    WHERE NOT r.rolcanlogin AND NOT r.rolsuper AND NOT pg_catalog.starts_with(r.rolname::pg_catalog.text, $1)
      AND pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER WITH ADMIN OPTION')
      AND NOT pg_catalog.pg_has_role(current_user, r.oid, 'USAGE')`
  return (await client.query<{ name: string }>(sql, [prefix])).rows.map(({ name }) => name)
}

/** What it owns goes to `heir`; privileges that it was given are withdrawn. The admin is a member of `joined` meanwhile. */
async function release(
  client: pg.Client,
  role: Doomed,
  heir: string | undefined,
  joined: readonly string[],
): Promise<void> {
  const login = quoteIdentifier(role.login)
  const memberships = [role.login, ...joined]
  const statements = [
    "SET LOCAL lock_timeout = '100ms'",
    WITHOUT_FLUSH,
    ...memberships.map((name) => joinRole(name, role.version)),
    ...(heir === undefined ? [] : [`REASSIGN OWNED BY ${login} TO ${quoteIdentifier(heir)}`]),
    `DROP OWNED BY ${login}`,
    ...memberships.map((name) => leaveRole(name, role.version)),
  ]
  // From 16 on mints wait for the locks on group roles: so this waits for objects little at a time, and lets go in between.
  const isPassing = (error: unknown): boolean => isCollision(error) || sqlstateOf(error) === LOCKED
  await retryCollisions(() => client.query(statements.join('; ')), isPassing)
}

async function releaseEverywhere(
  admin: Admin,
  client: pg.Client,
  role: Doomed,
  joined: readonly string[],
): Promise<void> {
  for (const { database, owns } of await holdings(client, role)) {
    const { heir } = role
    if (owns && heir === undefined) {
      const where = database ?? 'no database'
      throw new RemovalError(`it owns objects in ${where} and may not assume the group role that they would go to`)
    }
    const home = database ?? client.database
    if (home === undefined) throw new RemovalError('the admin connection does not say its database')
    await inDatabase(admin, client, home, (there) => release(there, role, owns ? heir : undefined, joined))
  }
}

/** Who passed a privilege of an object in this database, or of the database itself, on to the role. */
async function grantors(client: pg.Client, role: Doomed): Promise<string[]> {
  const lists = ['pg_class.relacl', 'pg_attribute.attacl', 'pg_proc.proacl', 'pg_namespace.nspacl', 'pg_type.typacl']
  lists.push('pg_database.datacl', 'pg_language.lanacl', 'pg_largeobject_metadata.lomacl')
  lists.push('pg_foreign_server.srvacl', 'pg_foreign_data_wrapper.fdwacl', 'pg_tablespace.spcacl')
  const all = lists.map((list) => `SELECT ${list} AS acl FROM pg_catalog.${list.split('.')[0]}`).join(' UNION ALL ')
  const sql = `SELECT DISTINCT g.rolname::pg_catalog.text AS name FROM (${all}) a
    CROSS JOIN LATERAL pg_catalog.aclexplode(a.acl) e JOIN pg_catalog.pg_roles g ON g.oid ${EQ} e.grantor
    WHERE e.grantee ${EQ} $1::pg_catalog.oid`
  return (await client.query<{ name: string }>(sql, [role.oid])).rows.map(({ name }) => name)
}

/**
 * Withdraws what `grantor` passed on. PostgreSQL withdraws in the name of the owner where it can, and an admin that is a member
 * of the owner never gets at what somebody with a grant option gave; the doomed role, as a member of that one alone, does.
 */
async function withdrawAs(client: pg.Client, role: Doomed, grantor: string): Promise<void> {
  const login = quoteIdentifier(role.login)
  const from = quoteIdentifier(grantor)
  const heir = role.heir === undefined || role.heir === grantor ? undefined : quoteIdentifier(role.heir)
  const statements = hasMembershipOptions(role.version)
    ? [`GRANT ${from} TO ${login} WITH ADMIN FALSE, INHERIT TRUE, SET FALSE`]
    : // Up to 15 a role inherits from all that it is a member of, or from none.
      [`ALTER ROLE ${login} INHERIT`, ...(heir ? [`REVOKE ${heir} FROM ${login}`] : []), `GRANT ${from} TO ${login}`]
  statements.push(`SET LOCAL ROLE ${login}`, `DROP OWNED BY ${login}`, 'RESET ROLE')
  if (role.heir !== grantor) statements.push(`REVOKE ${from} FROM ${login}`)
  if (heir !== undefined && !hasMembershipOptions(role.version)) statements.push(`GRANT ${heir} TO ${login}`)
  await retryCollisions(() =>
    inTransaction(client, async () => {
      await client.query(joinRole(role.login, role.version))
      for (const statement of statements) await client.query(statement)
      await client.query(leaveRole(role.login, role.version))
    }),
  )
}

async function withdrawEverywhere(admin: Admin, client: pg.Client, role: Doomed): Promise<void> {
  for (const { database, owns } of await holdings(client, role)) {
    // Dropping is for privileges only: what it owns was passed on before.
    const home = database ?? client.database
    if (owns || home === undefined) continue
    await inDatabase(admin, client, home, async (there) => {
      for (const grantor of await grantors(there, role)) await withdrawAs(there, role, grantor)
    })
  }
}

/** @returns what still depends on it, in PostgreSQL's words; undefined when it is dropped. */
async function drop(client: pg.Client, { login }: Doomed): Promise<string | undefined> {
  await prepare(client)
  const statements = ['BEGIN', `DROP ROLE ${quoteIdentifier(login)}`, 'COMMIT', execute('pgusher_role_facts', login)]
  try {
    const left = await retryCollisions(() => inOneMessage(client, statements))
    if (left.length > 0) throw new RemovalError('it is still there')
    return undefined
  } catch (error) {
    // Another replica, or the sweeper, was there first.
    if (sqlstateOf(error) === MISSING) return undefined
    if (sqlstateOf(error) === DEPENDENT) return messageOf(error)
    throw error
  }
}

/** Adds who holds the lock to an error that only says that there is one. */
async function explained<T>(client: pg.Client, role: Doomed, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (sqlstateOf(error) !== '55P03') throw error
    const holders = await foreignPrepared(client, role)
    if (holders.length === 0) throw error
    const advice = 'COMMIT PREPARED or ROLLBACK PREPARED ends it'
    throw new RemovalError(`a lock on it is held by ${holders.join(', ')}; ${advice}`, { cause: error })
  }
}

/**
 * @returns false when there was no such role.
 * @throws RemovalError or PostgreSQL's error when something is left; the role has no LOGIN then, unless a lock forbids even that.
 */
export async function removeRole(admin: Admin, client: pg.Client, login: string): Promise<boolean> {
  const { role, disabled } = await disableLogin(client, login)
  if (role === undefined) return false
  const alone = await endSessions(client, role)
  const dropsAtOnce = disabled && !alone.prepared && !alone.holds
  if (dropsAtOnce && (await explained(client, role, () => drop(client, role))) === undefined) return true
  await rollBackPrepared(admin, client, role)
  await explained(client, role, async () => {
    if (!disabled) await rollBackHolder(admin, client, role, `ALTER ROLE ${quoteIdentifier(login)} NOLOGIN`)
    await admin.oneRelease(() => releaseAndDrop(admin, client, role))
  })
  return true
}

async function releaseAndDrop(admin: Admin, client: pg.Client, role: RoleFacts): Promise<void> {
  // Up to 15 an admin with ADMIN OPTION is a member already, and taking a second grant back would take the first.
  const joins = hasMembershipOptions(role.version) && !role.superuser
  let joined = joins && role.heir !== undefined ? [role.heir] : []
  for (let attempt = 1; ; attempt++) {
    await releaseEverywhere(admin, client, role, joined)
    await endSessions(client, (await look(client, role.login)) ?? role)
    const dependents = await drop(client, role)
    if (dependents === undefined) return
    if (attempt === 3) throw new RemovalError(dependents)
    // Another job's group role gave it something, or its own did so between two looks.
    joined = [...new Set([...joined, ...(await joinable(client, role, admin.credentials.prefix))])]
    if (attempt === 2) await withdrawEverywhere(admin, client, role)
  }
}
