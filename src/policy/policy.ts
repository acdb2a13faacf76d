/** The compiled policy. Made by `compile.ts`, read by `evaluate.ts` and by whoever needs the names in it. */
import type { DatabaseConfig, IssuerConfig, RuleConfig, TextMode } from '../config/schema.ts'
import type { Condition } from './condition.ts'

export interface CompiledRule {
  /** Position in the order of the files. */
  index: number
  config: RuleConfig
  /** File that it stands in. */
  ruleset: string
  effect: 'allow' | 'deny'
  /** Undefined: every database, every role (deny rules only). */
  databases: ReadonlySet<string> | undefined
  roles: ReadonlySet<string> | undefined
  conditions: readonly Condition[]
  /** Milliseconds since the epoch; only allow rules expire. */
  expiresAt: number
  /** Neither the rule nor its issuer says `explain: false`. */
  explain: boolean
}

export interface CompiledIssuer {
  name: string
  config: IssuerConfig
  /** The issuer's `require`: tested before any rule. */
  require: readonly Condition[]
  /**
   * Claims that tell our own jobs from strangers' where `require` does not: a shared issuer whose tenancy stands in the
   * rules. Undefined where every job that meets `require` is one of ours.
   */
  tenancyInRules: ReadonlySet<string> | undefined
  allows: readonly CompiledRule[]
  denies: readonly CompiledRule[]
}

export interface Policy {
  /** Hex SHA-256 of the files. */
  version: string
  issuers: ReadonlyMap<string, CompiledIssuer>
  databases: ReadonlyMap<string, DatabaseConfig>
  /** In file order, of all issuers. */
  rules: readonly CompiledRule[]
  /** For each database the roles that some rule grants, as `check --live` needs them. */
  grantedRoles: ReadonlyMap<string, readonly string[]>
  /** `audit.text`, where neither rule nor database says otherwise. */
  textMode: TextMode
}
