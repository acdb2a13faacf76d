/** `allow.statements` of a rule: what it makes of a grant. */
import type { AllowedClass } from '../config/schema.ts'
import type { CompiledRule } from './policy.ts'
import type { Grant, StatementLimit } from './types.ts'

/** Classes whose statements PostgreSQL runs in a read-only transaction too. A function can write, so FUNCTION is none of them. */
const READ_ONLY: ReadonlySet<AllowedClass> = new Set(['READ', 'MISC', 'MISC_SET'])

export function statementLimit({ config, explain }: CompiledRule, classes: readonly AllowedClass[]): StatementLimit {
  const { message, contact } = config.on_deny ?? {}
  return {
    classes: [...new Set(classes)],
    readOnly: writesNothing(classes),
    explain,
    ...(message === undefined ? {} : { message }),
    ...(contact === undefined ? {} : { contact }),
  }
}

export function writesNothing(classes: readonly AllowedClass[]): boolean {
  return classes.every((one) => READ_ONLY.has(one))
}

/** Whether a session that runs under the limit of `before` may go on under the policy that now gives `after`. */
export function allowsAsMuch(after: Pick<Grant, 'statements'>, before: Pick<Grant, 'statements'>): boolean {
  if (after.statements === undefined) return true
  const { classes } = after.statements
  return before.statements?.classes.every((one) => classes.includes(one)) === true
}
