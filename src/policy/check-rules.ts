/** Load-time refusals about rules. */
import { quote } from '../config/quote.ts'
import type { RuleConfig } from '../config/schema.ts'
import { suggestion } from '../config/suggest.ts'
import type { Path } from '../config/yaml-source.ts'
import { checkClaim } from './check-claims.ts'
import { checkIdentity } from './check-identity.ts'
import { checkStatements } from './check-statements.ts'
import { checkTickets } from './check-tickets.ts'
import type { Report } from './report.ts'
import { ANY_ROLE } from './verdict.ts'

const LONG_SESSION = 24 * 3_600_000

export function checkRules(report: Report, now: number): void {
  const { config, isBroken } = report.loaded
  const firstWithName = new Map<string, number>()
  for (const [index, rule] of config.rules.entries()) {
    const at = ['rules', index]
    if (isBroken([...at, 'name'])) continue
    const first = firstWithName.get(rule.name)
    if (first === undefined) firstWithName.set(rule.name, index)
    else {
      const { file, line } = report.loaded.locate(['rules', first, 'name'])
      report.error(
        [...at, 'name'],
        `a second rule is called ${quote(rule.name)}`,
        `the first one stands at ${file}:${line}; audit events name a rule by its name`,
      )
    }
  }
  for (const [index, rule] of config.rules.entries()) checkRule(report, ['rules', index], rule, now)
  if (config.rules.length === 0 && !isBroken(['rules'])) {
    report.warning(['rules'], 'there are no rules, so every job is refused', undefined, 'key')
  }
}

function checkRule(report: Report, at: Path, rule: RuleConfig, now: number): void {
  const { config, isBroken } = report.loaded
  const issuer = Object.hasOwn(config.issuers, rule.issuer) ? config.issuers[rule.issuer] : undefined
  if (issuer === undefined && !isBroken([...at, 'issuer']) && !isBroken(['issuers', rule.issuer])) {
    report.error(
      [...at, 'issuer'],
      `no issuer is called ${quote(rule.issuer)}`,
      suggestion(rule.issuer, Object.keys(config.issuers), 'issuers'),
    )
  }
  checkEffect(report, at, rule)
  checkTargets(report, at, rule)
  checkTimes(report, at, rule, now)
  checkTickets(report, at, rule)
  checkStatements(report, at, rule)
  if (isBroken(at) && Object.keys(rule.match).length === 0) return
  if (Object.keys(rule.match).length === 0) {
    report.error(
      [...at, 'match'],
      'match is empty, so the rule would take every job of the issuer',
      'name at least one claim',
      'key',
    )
    return
  }
  if (issuer === undefined) return
  for (const [claim, condition] of Object.entries(rule.match)) {
    const place = [...at, 'match', claim]
    if (!isBroken(place)) checkClaim(report, place, issuer, claim, condition)
  }
  const complete = !isBroken([...at, 'match']) && !isBroken(['issuers', rule.issuer])
  if (rule.deny === undefined && complete) checkIdentity(report, at, issuer, rule)
}

function checkEffect(report: Report, at: Path, rule: RuleConfig): void {
  const { isBroken } = report.loaded
  if (rule.allow !== undefined && rule.deny !== undefined) {
    report.error(
      [...at, 'deny'],
      'a rule has either allow or deny, not both',
      'make two rules of it; a deny rule beats every allow',
      'key',
    )
  }
  if (rule.allow === undefined && rule.deny === undefined && !isBroken(at)) {
    report.error(at, `rule ${quote(rule.name)} has neither allow nor deny`, 'deny: {} refuses every database', 'key')
  }
}

function checkTargets(report: Report, at: Path, rule: RuleConfig): void {
  const { config, isBroken } = report.loaded
  const effect = rule.allow === undefined ? 'deny' : 'allow'
  const target = rule.allow ?? rule.deny
  for (const name of target?.database ?? []) {
    if (Object.hasOwn(config.databases, name) || isBroken([...at, effect, 'database']) || isBroken(['databases', name]))
      continue
    report.error(
      [...at, effect, 'database'],
      `no database is called ${quote(name)}`,
      suggestion(name, Object.keys(config.databases), 'databases'),
    )
  }
  if (isBroken([...at, effect, 'role'])) return
  for (const role of target?.role ?? []) {
    const place = [...at, effect, 'role']
    if (role === ANY_ROLE)
      report.error(
        place,
        `the role name "${ANY_ROLE}" is reserved`,
        'as a user name it asks for the one role that the job may have',
      )
    else if (rule.allow !== undefined) checkRole(report, place, role, rule.allow.database)
  }
}

function checkRole(report: Report, place: Path, role: string, databases: readonly string[]): void {
  for (const name of databases) {
    const credentials = Object.hasOwn(report.loaded.config.databases, name)
      ? report.loaded.config.databases[name]?.credentials
      : undefined
    if (credentials?.kind !== 'ephemeral-role') continue
    if (role.startsWith(credentials.prefix)) {
      report.error(
        place,
        `role ${quote(role)} begins with the minting prefix "${credentials.prefix}" of database ${quote(name)}`,
        'roles with that prefix are made and removed by pgusher; grant a group role',
      )
      return
    }
    if (role === credentials.admin.user) {
      report.error(
        place,
        `role ${quote(role)} is the minting admin of database ${quote(name)}`,
        'a job with it could make roles itself; grant a group role',
      )
      return
    }
  }
}

function checkTimes(report: Report, at: Path, rule: RuleConfig, now: number): void {
  if (rule.allow !== undefined && rule.allow.max_session > LONG_SESSION) {
    report.warning(
      [...at, 'allow', 'max_session'],
      'sessions of more than 24 hours outlive the job that they were meant for',
    )
  }
  if (rule.expires === undefined || Date.parse(rule.expires) > now) return
  if (rule.deny !== undefined)
    report.warning(
      [...at, 'expires'],
      'this deny rule is past its date and still denies',
      'remove the rule or the date',
    )
  else
    report.warning(
      [...at, 'expires'],
      'this rule has expired and allows nothing any more',
      'remove it, or move its date',
    )
}
