/**
 * Audiences of other services. The server tells which audience a token for it is asked for, and is then shown that token: one
 * in a stranger's hands could name a cloud's, and act there as the job. So these are asked for by the job's own word only.
 * A list cannot be complete: what the job connects to is what it trusts, and its certificate is verified before anything is asked.
 */
import type { PresetName } from '../config/schema.ts'
import { PRESETS } from '../identity/presets/index.ts'

/** What cloud, package and signing services document as the audience that they accept. */
const OTHERS: readonly RegExp[] = [
  /^sts\.amazonaws\.com(\.cn)?$/i,
  /^api:\/\/azureadtokenexchange/i,
  /^https:\/\/(management|vault|database)\.(azure\.com|azure\.net|core\.windows\.net|windows\.net)\/?$/i,
  /^(https:)?\/\/iam\.googleapis\.com\//i,
  /^https:\/\/iamcredentials\.googleapis\.com\/?/i,
  /^(sigstore|pypi|testpypi|crates\.io|rubygems\.org|vault|vault\.workload\.identity|octo-sts\.dev)$/i,
  /^npm:/i,
  /^https:\/\/(github|gitlab|buildkite|bitbucket)\.(com|org)(\/|$)/i,
]

export function isForeignAudience(audience: string, preset: PresetName): boolean {
  return [...OTHERS, ...PRESETS[preset].refusedAudiences].some((pattern) => pattern.test(audience))
}
