/** Whether pg_hba.conf speaks of the minted logins. A job can change its own login's password; what it is then good for is up to that file. */
import type pg from 'pg'
import { sqlstateOf } from './failure.ts'
import type { Finding } from './minter.ts'
import { EQ } from './sql.ts'

/** From this version on a line names users by a regular expression, `/^pgu_`. */
const EXPRESSIONS = 160_000

const PREFIX_NAMED = `
SELECT coalesce(pg_catalog.bool_or(u LIKE $1), false) AS named
FROM pg_catalog.pg_hba_file_rules h, pg_catalog.unnest(h.user_name) AS u`

/** Granted roles whose members no line names, by the role or by one that it is a member of. A role that does not exist is another finding. */
const UNNAMED_MEMBERS = `
SELECT r.rolname::pg_catalog.text AS role FROM pg_catalog.pg_roles r
WHERE r.rolname::pg_catalog.text ${EQ} ANY ($1) AND NOT EXISTS (
  SELECT FROM pg_catalog.pg_hba_file_rules h, pg_catalog.unnest(h.user_name) AS u, pg_catalog.pg_roles named
  WHERE u ${EQ} pg_catalog.concat('+', named.rolname) AND pg_catalog.pg_has_role(r.oid, named.oid, 'MEMBER'))
ORDER BY 1`

/** `+shop_reader`, as a line of pg_hba.conf has it. */
const members = (role: string): string => (/^\w+$/.test(role) ? `+${role}` : `+"${role}"`)

const onlyFromHere = (users: string, them: string): string =>
  `admit ${users} only from pgusher's addresses, and reject ${them} from all others`

function membershipAdvice(roles: readonly string[]): string {
  const users = roles.map(members).join(' and ')
  const logins = 'before PostgreSQL 16 minted logins are named by the role that they are members of'
  return `${onlyFromHere(users, roles.length === 1 ? 'it' : 'them')}: ${logins}`
}

/**
 * What is said of pg_hba.conf, or that it may not be read. Up to PostgreSQL 15 a line cannot name logins by their prefix, so each granted role's
 * members must be named. @throws what PostgreSQL says, other than that the file is not for this admin's eyes
 */
export async function hbaFindings(
  client: pg.Client,
  version: number,
  { subject, prefix, roles }: { subject: string; prefix: string; roles: readonly string[] },
): Promise<Finding[]> {
  const byPrefix = version >= EXPRESSIONS
  if (!byPrefix && roles.length === 0) return []
  const prefixAdvice = onlyFromHere(`roles that begin with "${prefix}"`, 'them')
  try {
    if (!byPrefix) return await memberFindings(client, subject, roles)
    const { rows } = await client.query<{ named: boolean }>(PREFIX_NAMED, [`%${prefix.replace(/[\\%_]/g, '\\$&')}%`])
    if (rows[0]?.named === true) return []
    const message = `no line of pg_hba.conf names the roles "${prefix}…"`
    return [{ level: 'warning', subject, message, hint: prefixAdvice }]
  } catch (error) {
    if (sqlstateOf(error) !== '42501') throw error
    const message = "pg_hba.conf could not be read (pg_hba_file_rules is the superuser's)"
    return [{ level: 'warning', subject, message, hint: byPrefix ? prefixAdvice : membershipAdvice(roles) }]
  }
}

async function memberFindings(client: pg.Client, subject: string, roles: readonly string[]): Promise<Finding[]> {
  const { rows } = await client.query<{ role: string }>(UNNAMED_MEMBERS, [roles])
  return rows.map(({ role }) => ({
    level: 'warning',
    subject: `${subject}, role ${role}`,
    message: `no line of pg_hba.conf names the members of role "${role}"`,
    hint: membershipAdvice([role]),
  }))
}
