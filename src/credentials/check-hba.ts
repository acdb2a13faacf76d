/** Whether pg_hba.conf speaks of the minted logins. A job can change its own login's password; what it is then good for is up to that file. */
import type pg from 'pg'
import { sqlstateOf } from './failure.ts'
import type { Finding } from './minter.ts'
import { extremeLoginNames } from './naming.ts'
import { EQ } from './sql.ts'

/** From this version on a line names users and databases by a regular expression, `/^pgu_`. */
const EXPRESSIONS = 160_000

/** Whether an entry is an expression, and `name` matches it: by the same engine, flavour and collation as in the server's hba.c. */
const expressionMatches = (entry: string, name: string): string =>
  `CASE WHEN $4 AND pg_catalog.starts_with(${entry}, '/') THEN ${name} COLLATE "C" OPERATOR(pg_catalog.~) pg_catalog.substr(${entry}, 2) ELSE false END`

/**
 * For each granted role, and for a login of none (role is empty): whether a line names its logins, and whether one lets them in.
 *
 * `+role` stands for everybody who is a member of it or of its members, inherited or not, and for the role itself (is_member in hba.c, PostgreSQL 14
 * to 18). A minted login is a member of its granted role. pg_has_role says more than that: a superuser is in every role, and the owner of the database
 * in pg_database_owner, whom hba.c does not know yet.
 *
 * `all`, and an expression that the superuser of initdb (oid 10) matches too, lets the logins in and does not name them: there is no fence in it.
 *
 * The view has no quotes any more: `"+role"`, which is one role of that name, looks like `+role`.
 * Addresses and the order of the lines are left to whoever wrote them; nobody knows here from which addresses other replicas come.
 */
const LINES_FOR = `
WITH RECURSIVE reached (role, oid) AS (
  SELECT r.rolname::pg_catalog.text, r.oid FROM pg_catalog.pg_roles r WHERE r.rolname::pg_catalog.text ${EQ} ANY ($1)
  UNION
  SELECT reached.role, m.roleid FROM pg_catalog.pg_auth_members m JOIN reached ON m.member ${EQ} reached.oid
), logins (role, groups) AS (
  SELECT reached.role, pg_catalog.array_agg(r.rolname::pg_catalog.text)
  FROM reached JOIN pg_catalog.pg_roles r ON r.oid ${EQ} reached.oid GROUP BY reached.role
  UNION ALL
  SELECT '', '{}'
), entries AS (
  SELECT logins.role, h.auth_method, u ${EQ} 'all' AS everybody,
    EXISTS (SELECT FROM pg_catalog.unnest(logins.groups) AS g WHERE u ${EQ} pg_catalog.concat('+', g)) AS by_membership,
    NOT EXISTS (SELECT FROM pg_catalog.unnest($3::pg_catalog.text[]) AS n WHERE NOT ${expressionMatches('u', 'n')}) AS by_expression,
    EXISTS (SELECT FROM pg_catalog.pg_roles s WHERE s.oid ${EQ} 10 AND ${expressionMatches('u', 's.rolname::pg_catalog.text')}) AS wide
  FROM logins CROSS JOIN pg_catalog.pg_hba_file_rules h CROSS JOIN pg_catalog.unnest(h.user_name) AS u
  WHERE EXISTS (SELECT FROM pg_catalog.unnest(h.database) AS d WHERE d ${EQ} ANY (ARRAY['all', $2]) OR ${expressionMatches('d', '$2')}
    OR (d ${EQ} ANY (ARRAY['samerole', 'samegroup']) AND $2 ${EQ} ANY (logins.groups)))
)
SELECT logins.role,
  coalesce(pg_catalog.bool_or(by_membership OR (by_expression AND NOT wide)), false) AS named,
  coalesce(pg_catalog.bool_or((everybody OR by_membership OR by_expression) AND auth_method ${EQ} 'scram-sha-256'), false) AS admitted
FROM logins LEFT JOIN entries ON entries.role ${EQ} logins.role
GROUP BY logins.role ORDER BY logins.role`

interface LinesFor {
  role: string
  named: boolean
  admitted: boolean
}

/** `+shop_reader`, as a line of pg_hba.conf has it. */
const members = (role: string): string => (/^\w+$/.test(role) ? `+${role}` : `+"${role}"`)

const onlyFromHere = (users: string, them: string): string =>
  `admit ${users} only from pgusher's addresses, and reject ${them} from all others`

function membershipAdvice(roles: readonly string[]): string {
  const users = roles.map(members).join(' and ')
  const logins = 'before PostgreSQL 16 minted logins are named by the role that they are members of'
  return `${onlyFromHere(users, roles.length === 1 ? 'it' : 'them')}: ${logins}`
}

/** Which logins, and how the file is to speak of them. */
export interface MintedLogins {
  subject: string
  prefix: string
  /** That sessions connect to. */
  dbname: string
  /** Granted roles that may be given to a job: the advice is to let their members in. */
  roles: readonly string[]
}

/**
 * What is said of pg_hba.conf, or that it may not be read. Up to PostgreSQL 15 a line cannot name logins by their prefix, so each granted role's
 * members must be named; from 16 on either will do. @throws what PostgreSQL says, other than that the file is not for this admin's eyes
 */
export async function hbaFindings(client: pg.Client, version: number, minted: MintedLogins): Promise<Finding[]> {
  const { subject, prefix, dbname, roles } = minted
  const byPrefix = version >= EXPRESSIONS
  if (!byPrefix && roles.length === 0) return []
  const adviceFor = (some: readonly string[]): string =>
    byPrefix ? onlyFromHere(`roles that begin with "${prefix}"`, 'them') : membershipAdvice(some)
  try {
    const { rows } = await client.query<LinesFor>(LINES_FOR, [roles, dbname, extremeLoginNames(prefix), byPrefix])
    // Where no role is spoken of it is one line that is missing, and not one for each of them.
    if (byPrefix && !rows.some(({ named }) => named)) {
      const message = `no line of pg_hba.conf names the roles "${prefix}…"`
      return [{ level: 'warning', subject, message, hint: adviceFor(roles) }]
    }
    return rows.flatMap(({ role, named, admitted }): Finding[] => {
      if (role === '' || (named && admitted)) return []
      const who = `${byPrefix ? `the roles "${prefix}…" or ` : ''}the members of role "${role}"`
      const message = named
        ? `no line of pg_hba.conf lets the members of role "${role}" into database "${dbname}" with scram-sha-256`
        : `no line of pg_hba.conf names ${who}`
      return [{ level: 'warning', subject: `${subject}, role ${role}`, message, hint: adviceFor([role]) }]
    })
  } catch (error) {
    if (sqlstateOf(error) !== '42501') throw error
    const message = "pg_hba.conf could not be read (pg_hba_file_rules is the superuser's)"
    return [{ level: 'warning', subject, message, hint: adviceFor(roles) }]
  }
}
