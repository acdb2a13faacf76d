/** Load-time refusals about `allow.statements`. */
import type { RuleConfig } from '../config/schema.ts'
import type { Path } from '../config/yaml-source.ts'
import type { Report } from './report.ts'

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
}
