/** A CI system as a job sees it from inside: how it is recognised, and where its token comes from. */
import type { PresetName } from '../../config/schema.ts'
import type { Environment, TokenSource } from '../token-source.ts'
import { noToken, tokenFrom } from '../token-text.ts'

export interface CiSystem {
  /** For people. */
  name: string
  preset: PresetName
  /** The variables that it is recognised by, for the list of what was looked for. */
  marks: string
  /** Whether the job runs there; says nothing yet of a token. */
  isHere(env: Environment): boolean
  /** @throws AccessError `token_missing` that says what to add to the job's definition */
  open(env: Environment): TokenSource | Promise<TokenSource>
}

/** A source without the checks that all have in common. */
export interface RawSource extends Omit<TokenSource, 'fetch'> {
  /** What `read` gives, for errors: `the answer of GitHub Actions`. */
  from: string
  /** The token's text, not looked at yet. */
  read(audience: string, signal: AbortSignal | undefined): Promise<string>
}

/** Audiences are URLs and names; one that long or with control characters is a mistake, or something put in by somebody. */
const MAX_AUDIENCE = 1_000

export function tokenSource({ from, read, ...source }: RawSource): TokenSource {
  return {
    ...source,
    async fetch(audience, signal) {
      signal?.throwIfAborted()
      if (!source.fixedAudience) checkAudience(audience)
      return tokenFrom(await read(audience, signal), from)
    },
  }
}

function checkAudience(audience: string): void {
  if (audience === '') throw noToken('a token is asked for without an audience: name one by --audience')
  // The server says what it is: it must not become an option of the CI's command.
  if (audience.startsWith('-')) throw noToken('the audience begins with a hyphen, as an option of a command does')
  if (audience.length > MAX_AUDIENCE || /[\p{Cc}\p{Cs}]/u.test(audience)) {
    throw noToken('the audience has control characters or is longer than 1,000 characters')
  }
}

/** Undefined for a variable that is not set, or set to nothing but blanks, which CI systems do with absent secrets. */
export function setting(env: Environment, name: string): string | undefined {
  const value = env[name]?.trim()
  return value === undefined || value === '' ? undefined : value
}

/** `true`, `True`, `1`: what CI systems write for yes. */
export function isTrue(env: Environment, name: string): boolean {
  return /^(true|1|yes)$/i.test(setting(env, name) ?? '')
}
