/**
 * Audiences of other services. A token for one is shown to that service, and would be good at pgusher too if pgusher took it; and a server
 * in a stranger's hands that names one as its own would get a token with which it can act there as the job. So none is configured, and the
 * client asks for one by the job's own word only. A list cannot be complete: what the job connects to is what it trusts, and its certificate
 * is verified before anything is asked.
 */
import type { PresetName } from '../config/schema.ts'
import { PRESETS } from './presets/index.ts'

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

/** True for the provider's own default audiences too, as far as they do not follow from the issuer's URL. */
export function isForeignAudience(audience: string, preset: PresetName): boolean {
  return [...OTHERS, ...PRESETS[preset].refusedAudiences].some((pattern) => pattern.test(audience))
}
