/**
 * The roles that carry tickets. PostgreSQL's catalog is the one thing that replicas share and that a restart leaves alone, so a
 * ticket is the COMMENT of a role without LOGIN, privileges or memberships.
 */
import type pg from 'pg'
import { AccessError } from '../errors.ts'
import type { Admin } from './admin-connection.ts'
import { messageOf, sqlstateOf } from './failure.ts'
import { carrierName, carrierPrefix, ticketOfCarrier } from './naming.ts'
import { removeRole } from './remove-role.ts'
import { EQ, quoteIdentifier, quoteLiteral } from './sql.ts'
import { type CarrierComment, formatCarrierComment, HEAD_LENGTH, parseCarrierComment } from './ticket-comment.ts'
import { inTransaction, retryCollisions } from './transaction.ts'

export interface CarrierSweep {
  /** Ids in hex. */
  removed: string[]
  failed: { id: string; reason: string }[]
}

/** Every method throws the errors of PostgreSQL and of the connection as they are. */
export interface TicketCarriers {
  /**
   * @param jobTags `jobTag` of the job under every key
   * @param most carriers that a job may have
   * @returns false where it has as many already
   * @throws AccessError `limit_rate` where all jobs together have as many as there may be
   */
  create(id: string, comment: CarrierComment, jobTags: readonly string[], most: number): Promise<boolean>
  /** Undefined where there is none. */
  read(id: string): Promise<CarrierComment | undefined>
  /** From now on nobody can read it. @returns false where there was none */
  remove(id: string): Promise<boolean>
  /** Those whose comment has one of these tags, of a job or of a run. @returns ids */
  removeTagged(tags: readonly string[]): Promise<string[]>
  /** Those of other processes too. @param now milliseconds since the epoch */
  removeExpired(now: number): Promise<CarrierSweep>
}

/**
 * Everybody can read a comment and keep it, and who may make roles could make one anew with it when the ticket was given back. From
 * 16 on the bootstrap superuser (oid 10) grants each role to its maker, and no other role can grant in that name. Up to 15 nothing
 * tells who made a role, and who has CREATEROLE can do more than that.
 */
const READ = `
SELECT pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment
FROM pg_catalog.pg_roles r JOIN pg_catalog.pg_roles a ON a.rolname ${EQ} current_user
WHERE r.rolname ${EQ} $1 AND (a.rolsuper
  OR pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.<) 160000
  OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.roleid ${EQ} r.oid AND m.member ${EQ} a.oid
    AND m.grantor ${EQ} 10::pg_catalog.oid))`

const HEADS = `
SELECT r.rolname::pg_catalog.text AS name,
  pg_catalog."left"(pg_catalog.shobj_description(r.oid, 'pg_authid'), ${HEAD_LENGTH}) AS comment
FROM pg_catalog.pg_roles r WHERE pg_catalog.starts_with(r.rolname::pg_catalog.text, $1)`

/** Of an object that others depend on, a lock that is held, a role that is not there. */
const [DEPENDENT, LOCKED, MISSING] = ['2BP01', '55P03', '42704']

/**
 * What one job may have is no bound where the CI system does not tell jobs apart and each token counts as a job. Every ticket is a
 * role, and each new one looks at them all, which delays other jobs' logins: 10,000 of them by 100 ms on a busy machine.
 */
const MOST_OF_ALL = 5_000

/** Of one sweep: each may take seconds, since a job can hold locks on as many as it has tickets. */
const MOST_HELD = 3

interface Head extends CarrierComment {
  id: string
}

/** @param mostOfAll carriers of all jobs, those of other processes too */
export function createTicketCarriers(admin: Admin, mostOfAll = MOST_OF_ALL): TicketCarriers {
  const { prefix } = admin.credentials
  const nameOf = (id: string): string => carrierName(prefix, id)

  async function heads(client: pg.Client): Promise<Head[]> {
    const { rows } = await client.query<{ name: string; comment: string | null }>(HEADS, [carrierPrefix(prefix)])
    return rows.flatMap(({ name, comment }) => {
      const id = ticketOfCarrier(prefix, name)
      // Name and comment are made in one transaction: without it the role is somebody else's.
      const head = parseCarrierComment(comment)
      return id === undefined || head === undefined ? [] : [{ ...head, id }]
    })
  }

  /** False where there was none; undefined where something depends on it or holds it. */
  async function drop(client: pg.Client, id: string): Promise<boolean | undefined> {
    try {
      const statements = `SET LOCAL lock_timeout = '100ms'; DROP ROLE ${quoteIdentifier(nameOf(id))}`
      await retryCollisions(() => client.query(statements))
      return true
    } catch (error) {
      const sqlstate = sqlstateOf(error)
      if (sqlstate === MISSING) return false
      if (sqlstate === DEPENDENT || sqlstate === LOCKED) return undefined
      throw error
    }
  }

  /**
   * Names of roles are public, and who may grant anything can make something depend on one or hold a lock on it. The ticket must not
   * live on by that: without its comment it is worth nothing, and what is left of its role is up to `removeExpired`.
   */
  async function remove(client: pg.Client, id: string): Promise<boolean> {
    const dropped = await drop(client, id)
    if (dropped !== undefined) return dropped
    const comment = await read(client, id)
    if (comment === undefined) return false
    const blank = quoteLiteral(formatCarrierComment({ ...comment, sealed: undefined }))
    await retryCollisions(() => client.query(`COMMENT ON ROLE ${quoteIdentifier(nameOf(id))} IS ${blank}`))
    return true
  }

  async function read(client: pg.Client, id: string): Promise<CarrierComment | undefined> {
    const { rows } = await client.query<{ comment: string | null }>(READ, [nameOf(id)])
    return parseCarrierComment(rows[0]?.comment ?? null)
  }

  return {
    create: (id, comment, jobTags, most) =>
      admin.minting.run(async (client) => {
        const all = await heads(client)
        // Those that were given back as well: a job that holds on to the roles of its tickets could else make them without end.
        if (all.filter(({ job }) => jobTags.includes(job)).length >= most) return false
        if (all.length >= mostOfAll) throw full(admin.target.alias, mostOfAll)
        const statements = createCarrierStatements(nameOf(id), comment)
        await retryCollisions(() => inTransaction(client, () => client.query(statements.join('; '))))
        return true
      }),
    read: (id) => admin.minting.run((client) => read(client, id)),
    remove: (id) => admin.cleaning.run((client) => remove(client, id)),
    async removeTagged(tags) {
      const held = await admin.cleaning.run(heads)
      const removed: string[] = []
      for (const { id, job, runs, sealed } of held) {
        const due = sealed !== undefined && [job, ...runs].some((tag) => tags.includes(tag))
        if (due && (await admin.cleaning.run((client) => remove(client, id)))) removed.push(id)
      }
      return removed
    },
    async removeExpired(now) {
      const result: CarrierSweep = { removed: [], failed: [] }
      const due = (await admin.cleaning.run(heads)).filter((one) => one.sealed === undefined || one.expiresAt <= now)
      const held: string[] = []
      const attempt = async (id: string, work: (client: pg.Client) => Promise<boolean | undefined>): Promise<void> => {
        try {
          const gone = await admin.cleaning.run(work)
          if (gone === true) result.removed.push(id)
          if (gone === undefined) held.push(id)
        } catch (error) {
          result.failed.push({ id, reason: messageOf(error) })
        }
      }
      // A turn for each, so that the clean-up after jobs that end now need not wait for all of them.
      for (const { id } of due) await attempt(id, (client) => drop(client, id))
      // By chance, so that those which resist keep none of the others waiting for good.
      const chosen = held.splice(0).toSorted(() => Math.random() - 0.5)
      for (const id of chosen.slice(0, MOST_HELD)) {
        await attempt(id, (client) => removeRole(admin, client, nameOf(id)))
      }
      return result
    },
  }
}

function full(alias: string, most: number): AccessError {
  return new AccessError('limit_rate', `database "${alias}" has ${most} tickets already, as many as it may have`, {
    hint: 'Use the OIDC token of the job, or try again when tickets have ended; the operator finds in the audit who asks for so many.',
  })
}

/** CREATE ROLE and COMMENT. VALID UNTIL is for people who look at the role: nothing can log in as it at any time. */
function createCarrierStatements(name: string, comment: CarrierComment): string[] {
  const role = quoteIdentifier(name)
  const attributes = [
    'NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 0',
    `VALID UNTIL ${quoteLiteral(new Date(comment.expiresAt).toISOString())}`,
  ]
  return [
    `CREATE ROLE ${role} ${attributes.join(' ')}`,
    `COMMENT ON ROLE ${role} IS ${quoteLiteral(formatCarrierComment(comment))}`,
  ]
}
