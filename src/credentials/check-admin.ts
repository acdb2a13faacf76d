/** What `check --live` says of an entry that mints roles. */
import type pg from 'pg'
import { didYouMean } from '../config/suggest.ts'
import type { Admin } from './admin-connection.ts'
import { hbaFindings } from './check-hba.ts'
import { transportFindings } from './check-transport.ts'
import { adminFailure } from './failure.ts'
import { inspectRole } from './group-role.ts'
import type { Finding } from './minter.ts'
import { isLoginName, ticketOfCarrier } from './naming.ts'
import { parseComment } from './role-comment.ts'
import { EQ, hasMembershipOptions, quoteIdentifier } from './sql.ts'
import { parseCarrierComment } from './ticket-comment.ts'

const OLDEST = 140_000

export interface AdminFacts {
  version: number
  superuser: boolean
  createrole: boolean
  inherit: boolean
}

const FACTS = `
SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4 AS version,
  r.rolsuper AS superuser, r.rolcreaterole AS createrole, r.rolinherit AS inherit
FROM pg_catalog.pg_roles r WHERE r.rolname ${EQ} current_user`

export function adminFindings(facts: AdminFacts, subject: string, user: string): Finding[] {
  const findings: Finding[] = []
  const say = (level: Finding['level'], message: string, hint?: string) =>
    findings.push({ level, subject, message, ...(hint === undefined ? {} : { hint }) })
  if (facts.version < OLDEST)
    say('error', `PostgreSQL ${facts.version / 10_000} is too old; 14 is the oldest that pgusher works with`)
  if (facts.superuser) {
    say('warning', `admin "${user}" is a superuser`, 'CREATEROLE and ADMIN OPTION on the group roles suffice')
  } else if (!facts.createrole) {
    say('error', `admin "${user}" cannot make roles`, `ALTER ROLE "${user}" CREATEROLE`)
  }
  if (hasMembershipOptions(facts.version)) return findings
  say(
    'warning',
    `PostgreSQL ${Math.floor(facts.version / 10_000)} lets any role with CREATEROLE grant itself pg_execute_server_program and the like: ` +
      `admin "${user}" is as dangerous as a superuser`,
    'use PostgreSQL 16 or later, or credentials of kind client-certificate',
  )
  if (!facts.inherit && !facts.superuser) {
    say(
      'error',
      `admin "${user}" is NOINHERIT, and up to PostgreSQL 15 it then cannot clean up`,
      `ALTER ROLE "${user}" INHERIT`,
    )
  }
  return findings
}

/** Group roles that a rule may have meant: not PostgreSQL's own, and none of pgusher's. */
const GROUP_ROLES = `
SELECT r.rolname::pg_catalog.text AS name FROM pg_catalog.pg_roles r
WHERE NOT r.rolcanlogin AND NOT pg_catalog.starts_with(r.rolname::pg_catalog.text, 'pg_')
  AND NOT pg_catalog.starts_with(r.rolname::pg_catalog.text, $1) ORDER BY 1`

async function missingRole(client: pg.Client, { credentials }: Admin, at: string, role: string): Promise<Finding> {
  const { rows } = await client.query<{ name: string }>(GROUP_ROLES, [credentials.prefix])
  const names = rows.map(({ name }) => name)
  const nearest = didYouMean(role, names)
  const make = `CREATE ROLE ${quoteIdentifier(role)} NOLOGIN`
  const other = `make it, ${make}, or name another role in the rules`
  const reserved = 'name another role in the rules; names that begin with "pg_" are PostgreSQL\'s own'
  const hint = nearest === undefined ? other : `did you mean "${nearest}"? Else make it: ${make}`
  const message = `role "${role}" does not exist`
  return { level: 'error', subject: at, message, hint: role.startsWith('pg_') ? reserved : hint }
}

interface RoleFindings {
  findings: Finding[]
  /** It exists, and jobs may have it. */
  safe: boolean
}

async function roleFindings(client: pg.Client, admin: Admin, subject: string, role: string): Promise<RoleFindings> {
  const at = `${subject}, role ${role}`
  const report = await inspectRole(client, role, { login: false })
  if (report === undefined) return { findings: [await missingRole(client, admin, at, role)], safe: false }
  const findings: Finding[] = report.dangers.map((danger) => ({
    level: 'error',
    subject: at,
    message: `role "${role}" is not given to jobs: ${danger}`,
  }))
  for (const caution of report.cautions)
    findings.push({ level: 'warning', subject: at, message: `role "${role}": ${caution}` })
  const safe = report.dangers.length === 0
  // Granting a dangerous role to the admin would hand it what jobs are not given: the rule or the role has to change first.
  if (!report.grantable && safe) {
    const { user } = admin.credentials.admin
    const options = hasMembershipOptions(report.serverVersion)
      ? 'WITH ADMIN TRUE, INHERIT FALSE, SET FALSE'
      : 'WITH ADMIN OPTION'
    findings.push({
      level: 'error',
      subject: at,
      message: `admin "${user}" may not grant role "${role}"`,
      hint: `GRANT ${quoteIdentifier(role)} TO ${quoteIdentifier(user)} ${options}`,
    })
  }
  return { findings, safe }
}

async function prefixFindings(client: pg.Client, subject: string, prefix: string): Promise<Finding[]> {
  const sql = `SELECT r.rolname::pg_catalog.text AS name, pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment
    FROM pg_catalog.pg_roles r WHERE pg_catalog.starts_with(r.rolname::pg_catalog.text, $1)`
  const { rows } = await client.query<{ name: string; comment: string | null }>(sql, [prefix])
  const foreign = rows.filter(({ name, comment }) => {
    const login = isLoginName(prefix, name) && parseComment(comment) !== undefined
    return !login && (ticketOfCarrier(prefix, name) === undefined || parseCarrierComment(comment) === undefined)
  })
  return foreign.map(({ name }) => ({
    level: 'warning',
    subject,
    message: `role "${name}" begins with "${prefix}" and was not made by pgusher`,
    hint: 'rename it, or choose another credentials.prefix',
  }))
}

/** Never throws: what cannot be looked at is a finding. */
export async function checkAdmin(admin: Admin, roles: readonly string[]): Promise<Finding[]> {
  const { target, credentials } = admin
  const subject = `database ${target.alias}`
  try {
    return await admin.cleaning.run(async (client) => {
      const facts = (await client.query<AdminFacts>(FACTS)).rows[0]
      const findings = facts === undefined ? [] : adminFindings(facts, subject, credentials.admin.user)
      findings.push(...(await transportFindings(client, target.config, subject)))
      const safeRoles: string[] = []
      for (const role of roles) {
        const { findings: own, safe } = await roleFindings(client, admin, subject, role)
        findings.push(...own)
        if (safe) safeRoles.push(role)
      }
      findings.push(...(await prefixFindings(client, subject, credentials.prefix)))
      // Nobody is told to let the members of any other role in: those of a superuser's name are the superuser.
      const minted = { subject, prefix: credentials.prefix, dbname: target.dbname, roles: safeRoles }
      if (facts !== undefined) findings.push(...(await hbaFindings(client, facts.version, minted)))
      return findings
    })
  } catch (error) {
    const failure = adminFailure(target.alias, 'the check failed', error)
    const { cause } = failure
    const reason = cause instanceof Error ? `: ${cause.message}` : ''
    return [{ level: 'error', subject, message: `${failure.message}${reason}` }]
  }
}
