/** Which CI this job runs in, and how it gives a token: the contract, and the choice between what was named and what is found. */
import type { PresetName } from '../config/schema.ts'
import { AccessError } from '../errors.ts'
import { type CiSystem, setting, tokenSource } from './ci/ci-system.ts'
import { awsRole, googleMetadata } from './ci/cloud.ts'
import { CI_SYSTEMS, systemWithoutTokens } from './ci/index.ts'
import { isProjected, mountedToken, noMountedToken, POD_MARK } from './ci/kubernetes.ts'
import { runCommand } from './ci/run-command.ts'
import { fromFile, fromVariable, OWN_VARIABLES } from './ci/variables.ts'
import { noToken } from './token-text.ts'

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
   * @throws AccessError `token_missing` whose text says what is missing in the job's definition and what to add,
   *   `token_malformed` for what is no token; the signal's reason when it aborts
   */
  fetch(audience: string, signal?: AbortSignal): Promise<string>
}

export interface TokenSourceOptions {
  /** The job's environment, also for the commands that are run. */
  env: Environment
  /** A file with a token, read again at each fetch. */
  tokenFile?: string | undefined
  /** A line for `sh -c` that prints a token. One that names `PGUSHER_AUDIENCE` finds the audience in that variable. */
  tokenCommand?: string | undefined
  /** The name of a variable that holds a token. */
  tokenEnv?: string | undefined
  /** Where a pod's token is mounted, in place of the usual path. */
  mounted?: string | undefined
}

/**
 * What was named wins over what is detected.
 * @throws AccessError `token_missing` with the list of what was looked for when nothing fits
 */
export async function findTokenSource(options: TokenSourceOptions): Promise<TokenSource> {
  const { env, mounted } = options
  const here = CI_SYSTEMS.find((system) => system.isHere(env))
  const named = await namedSource(options, here)
  if (named !== undefined) return named
  if (here === undefined) return (await withoutCi(env, mounted)) ?? nothing(env)
  try {
    return await here.open(env)
  } catch (thrown) {
    // A runner in a pod: what somebody mounted for pgusher is meant to be used.
    const pod = thrown instanceof AccessError ? await mountedToken(env, here.preset, mounted) : undefined
    if (pod === undefined) throw thrown
    return pod
  }
}

async function namedSource(
  { env, tokenFile, tokenCommand, tokenEnv }: TokenSourceOptions,
  here: CiSystem | undefined,
): Promise<TokenSource | undefined> {
  const preset = here?.preset ?? 'generic'
  if ([tokenFile, tokenCommand, tokenEnv].filter((option) => option !== undefined).length > 1) {
    throw noToken('--token-file, --token-command and --token-env exclude each other')
  }
  if (tokenFile !== undefined) {
    // In a CI job a step before has written it, once; elsewhere something keeps it fresh, as a kubelet does.
    const refetchable = here === undefined || (await isProjected(tokenFile))
    return { ...fromFile(tokenFile, preset), refetchable }
  }
  if (tokenEnv !== undefined) return fromVariable(env, tokenEnv, preset)
  if (tokenCommand === undefined) return undefined
  return tokenSource({
    name: 'the command of --token-command',
    preset,
    refetchable: true,
    // Otherwise an audience would be looked for that nobody uses.
    fixedAudience: !tokenCommand.includes('PGUSHER_AUDIENCE'),
    from: 'the output of --token-command',
    read: (audience, signal) =>
      runCommand({
        name: 'the command of --token-command',
        file: '/bin/sh',
        args: ['-c', tokenCommand],
        env: { ...env, PGUSHER_AUDIENCE: audience },
        signal,
      }),
  })
}

async function withoutCi(env: Environment, mounted: string | undefined): Promise<TokenSource | undefined> {
  const pod = await mountedToken(env, 'generic', mounted)
  if (pod !== undefined) return pod
  const variable = OWN_VARIABLES.find((name) => setting(env, name) !== undefined)
  if (variable !== undefined) return fromVariable(env, variable, 'generic')
  // The machine that a CI's runner stands on is not the job, whoever it can speak for.
  return systemWithoutTokens(env) === undefined ? ((await awsRole(env)) ?? (await googleMetadata(env))) : undefined
}

function nothing(env: Environment): never {
  const silent = systemWithoutTokens(env)
  if (silent !== undefined) {
    throw noToken(
      `${silent} issues no identity tokens to its jobs: name another source by --token-file, --token-command or --token-env`,
      "What can stand in for one is told in pgusher's documentation, docs/ci/README.md.",
    )
  }
  if (setting(env, POD_MARK) !== undefined) throw noMountedToken()
  const marks = CI_SYSTEMS.map(({ name, marks }) => `${name} (${marks})`).join(', ')
  throw noToken(
    'no token: no CI system was recognised; name a source by --token-file, --token-command or --token-env',
    `Looked for: ${marks}, ${OWN_VARIABLES.join(' and ')}, a token mounted for pgusher, a role of AWS, Google's metadata server.`,
  )
}
