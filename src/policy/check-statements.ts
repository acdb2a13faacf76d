/** Load-time refusals and warnings about `allow.statements`. */
import { quote } from '../config/quote.ts'
import type { RuleConfig } from '../config/schema.ts'
import type { Path } from '../config/yaml-source.ts'
import type { Report } from './report.ts'
import { writesNothing } from './statement-limit.ts'

export function checkStatements(report: Report, at: Path, { allow }: RuleConfig): void {
  const classes = allow?.statements
  if (allow === undefined || classes === undefined || report.loaded.isBroken([...at, 'allow', 'statements'])) return
  const place = [...at, 'allow', 'statements']
  const twice = classes.find((one, index) => classes.indexOf(one) !== index)
  if (twice !== undefined) report.warning(place, `${twice} stands here twice`, 'name each class once')
  if (allow.function_call && !classes.includes('FUNCTION')) {
    report.error(
      [...at, 'allow', 'function_call'],
      'function_call runs any function, and statements leaves FUNCTION out',
      'add FUNCTION to statements, or leave function_call out',
    )
  }
  if (allow.replication) {
    report.error(
      [...at, 'allow', 'replication'],
      'the commands of the replication protocol are not SQL, so statements cannot limit them',
      'make a rule of its own for replication, without statements',
    )
  }
  if (writesNothing(classes)) checkRole(report, at, allow)
}

/** What a rule cannot see is up to the role's privileges: one that another rule grants for writing has them. */
function checkRole(report: Report, at: Path, { database, role }: NonNullable<RuleConfig['allow']>): void {
  for (const { name, allow } of report.loaded.config.rules) {
    // A rule that names no classes leaves it to the role, which may well be one that only reads.
    if (allow?.statements === undefined || writesNothing(allow.statements)) continue
    const shared = role.find((one) => allow.role.includes(one))
    const both = database.some((one) => allow.database.includes(one))
    if (shared === undefined || !both) continue
    report.warning(
      [...at, 'allow', 'role'],
      `this rule only reads, and role ${quote(shared)} may write, for rule ${quote(name)}`,
      'grant a role without the privileges to write: reading SQL does not see what a function does',
    )
    return
  }
}
