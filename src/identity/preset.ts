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

export interface Preset {
  name: PresetName
  /** The one issuer for all tenants, or undefined where `url` must be configured. */
  issuer?: string
  /** True when all tenants of the provider share `iss` (given the configured URL): tenancy is then mandatory. */
  sharedIssuer(url: string): boolean
  /** Each rule (with the issuer's `require`) needs equality or `in` on at least one of these for a shared issuer. */
  tenancyClaims: readonly string[]
  claims: Readonly<Record<string, ClaimSpec>>
  /** True where tokens carry claims that the preset cannot list (generic; GitHub's `repo_property_*`; Jenkins' templates). */
  openClaims: boolean | { prefix: string }
  algorithms: readonly string[]
  /** Ceiling on exp - iat, milliseconds. */
  maxTokenLife: number
  /** Ceiling on now - iat, milliseconds. */
  maxTokenAge: number
  /** A token must carry these to be one of a running job (Jenkins' controller tokens have no build_number). */
  executionMarkers: readonly string[]
  /** Refused whatever the rules say, unless `allow_events` names the value. */
  refused: readonly { claim: string; values: readonly string[]; why: string }[]
  /** Claims that, when both are there, must be equal (GitLab's project_id and job_project_id). */
  mustAgree: readonly (readonly [string, string])[]
  /** How the job gets a token for our audience; for hints. `AUD` stands for the audience. */
  tokenRecipe: string
  /** False where one token cannot be asked for again in the same job. */
  refetchable: boolean
  /** Default audiences of the provider, which must not be configured. */
  refusedAudiences: readonly RegExp[]
  job(
    claims: ReadonlyMap<string, string | readonly string[]>,
    context: { iss: string; runUrlBase: string | undefined },
  ): JobFields
  /** Parts of the job key besides the issuer; undefined parts make the token itself the job. */
  jobKey(claims: ReadonlyMap<string, string | readonly string[]>): readonly (string | undefined)[]
}
