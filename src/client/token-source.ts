/** Which CI this job runs in, and how it gives a token: the contract, and the choice between what was said and what is found. */
import type { PresetName } from '../config/schema.ts'
import { AccessError } from '../errors.ts'

export type Environment = Readonly<Record<string, string | undefined>>

export interface TokenSource {
  /** For people: "GitHub Actions". */
  name: string
  preset: PresetName
  /** True where a fresh token can be had each time; false where the job gets one at its start (GitLab, Spacelift …). */
  refetchable: boolean
  /** True where the token's audience is chosen elsewhere (GitLab's id_tokens, Jenkins' credential); `fetch` then ignores its argument. */
  fixedAudience: boolean
  /**
   * A token, without white space around it. Bounded in time and size by itself; `signal` ends it earlier.
   * @throws AccessError `token_missing` whose text says what is missing in the job's definition and what to add
   */
  fetch(audience: string, signal?: AbortSignal): Promise<string>
}

export interface TokenSourceOptions {
  /** The job's environment, also for the commands that are run. */
  env: Environment
  /** A file with a token, read again at each fetch. */
  tokenFile?: string | undefined
  /** A line for `sh -c` that prints a token; it finds the audience in `PGUSHER_AUDIENCE`. */
  tokenCommand?: string | undefined
  /** The name of a variable that holds a token. */
  tokenEnv?: string | undefined
}

/**
 * What was named wins over what is detected.
 * @throws AccessError `token_missing` with the list of what was looked for when nothing fits
 */
export async function findTokenSource(_options: TokenSourceOptions): Promise<TokenSource> {
  throw new AccessError('token_missing', 'this job has no token: no CI system was recognised')
}
