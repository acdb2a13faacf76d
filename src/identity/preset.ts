/** What a preset says about a CI provider. Presets are data; `presets/*.ts` hold one each. */
import type { PresetName } from '../config/schema.ts'
import type { JobFields } from './principal.ts'

/**
 * `immutable`: an id that is never used again. `mutable`: a name that can be given to somebody else.
 * `trusted`: set by the platform or an administrator. `claimed`: chosen by whoever can push a branch or start a build.
 */
export type ClaimClass = 'immutable' | 'mutable' | 'trusted' | 'claimed'

export interface ClaimSpec {
  /** Keys from the token's root; `[name]` where it is a top-level claim. */
  path?: readonly string[]
  /** Where the provider says it in `sub` and nowhere else; undefined for a `sub` of another form. */
  fromSubject?: (subject: string) => string | undefined
  /** Known without braces and in lower case, however the provider writes it. */
  uuid?: boolean
  /** Holds a whole ref (`refs/heads/main`); `main` alone never equals one. */
  wholeRef?: boolean
  class: ClaimClass
  /** Narrows a rule to one tenant, project or workload: a rule needs at least one of these (directly or by `require`). */
  identifying?: boolean
  /** Goes into `pgusher.idp.claims`. */
  audit?: boolean
  /** The one glob may be used on it. Never on ids, names of tenants or `sub`. */
  glob?: boolean
  /** Absence is a value of its own for `not_in` (GitHub's `environment`). Otherwise a missing claim denies. */
  absenceMeaningful?: boolean
}

/** Values of a claim that are refused whatever the rules say, unless `allow_events` of the issuer names the event. */
export type Refusal = { claim: string; why: string } & (
  | { /** Each is the event's own name. */ values: readonly string[] }
  | { /** The form of the values, and a name for what they stand for. */ like: RegExp; event: string }
)

/** A claim that a token must have, with a value of this form: others are not of a running job, or not of the kind that is meant. */
export interface Demand {
  claim: string
  like: RegExp
  /** The form in words: `"pipeline_job"`, `p://organisation/project/pipeline`. */
  wanted: string
  why: string
}

/** Each allowing rule, with the issuer's `require`, names one of `anyOf` by equality, `in` or glob. */
export interface RuleNeed {
  anyOf: readonly string[]
  level: 'error' | 'warning'
  why: string
}

/** How URLs of the provider's issuers look. Another one is warned of, since a self-managed service may have its own. */
export interface IssuerForm {
  /** A group named `tenant` is an id that `tenantClaim` must be equal to: never a free wildcard. */
  like: RegExp
  shown: string
  tenantClaim?: string
}

export interface Preset {
  name: PresetName
  /** The one issuer for all tenants, or undefined where `url` must be configured. */
  issuer?: string
  issuerForm?: IssuerForm
  /** True when all tenants of the provider share `iss` (given the configured URL): tenancy is then mandatory. */
  sharedIssuer(url: string): boolean
  /** Each rule (with the issuer's `require`) needs equality or `in` on at least one of these for a shared issuer. */
  tenancyClaims: readonly string[]
  claims: Readonly<Record<string, ClaimSpec>>
  ruleNeeds?: readonly RuleNeed[]
  /** Claims that tokens carry and that no rule may name, with what to name instead. */
  notForRules?: Readonly<Record<string, string>>
  /**
   * True where tokens carry claims that the preset cannot list (generic; Jenkins' templates); or the prefixes of such
   * claims (GitHub's `repo_property_*`), with the path of the object whose members they are, where they are nested (AWS' tags).
   */
  openClaims: boolean | readonly { prefix: string; path?: readonly string[]; audit?: boolean }[]
  algorithms: readonly string[]
  /** Ceiling on exp - iat, milliseconds. */
  maxTokenLife: number
  /** Ceiling on now - iat, milliseconds. */
  maxTokenAge: number
  /** A token must carry these to be one of a running job (Jenkins' controller tokens have no build_number). */
  executionMarkers: readonly string[]
  demands?: readonly Demand[]
  refused: readonly Refusal[]
  /** Claims that, when both are there, must be equal (GitLab's project_id and job_project_id), and what it means if not. */
  mustAgree: readonly { claims: readonly [string, string]; why: string }[]
  /** How the job gets a token for our audience; for hints. `AUD` stands for the audience. */
  tokenRecipe: string
  /** False where one token cannot be asked for again in the same job. */
  refetchable: boolean
  /** Default audiences of the provider, which must not be configured. */
  refusedAudiences: readonly RegExp[]
  /** The same for those that follow from the issuer's URL. */
  isDefaultAudience?: (audience: string, url: string) => boolean
  /**
   * Present where the job cannot choose the audience: it is this one for an issuer of this URL, undefined where that is not
   * known. A token then fits every service that trusts the issuer, so the operator is warned, and `ruleNeeds` asks for more.
   */
  fixedAudience?: (url: string) => string | undefined
  /** True where the provider adds its own audience to ours: ours among several is enough. */
  audienceAmongOthers?: boolean
  /** Said at every load: what no check of ours can rule out. */
  caution?: string
  job(
    claims: ReadonlyMap<string, string | readonly string[]>,
    context: { iss: string; runUrlBase: string | undefined },
  ): JobFields
  /** Parts of the job key besides the issuer; undefined parts make the token itself the job. */
  jobKey(claims: ReadonlyMap<string, string | readonly string[]>): readonly (string | undefined)[]
}
