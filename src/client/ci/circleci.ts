/**
 * CircleCI: its command makes a token for an audience; the one in a variable is for the whole organisation, and the preset
 * refuses it. Source: CircleCI documentation, "OIDC tokens with custom claims".
 */
import { noToken } from '../token-text.ts'
import { type CiSystem, isTrue, setting, tokenSource } from './ci-system.ts'
import { isOnPath, runCommand } from './run-command.ts'

const VARIABLE = 'CIRCLE_OIDC_TOKEN_V2'
const FORKS =
  'A build of a fork gets a token only where the project passes secrets to builds from forked pull requests.'

export const circleci: CiSystem = {
  name: 'CircleCI',
  preset: 'circleci',
  marks: 'CIRCLECI',
  isHere: (env) => isTrue(env, 'CIRCLECI'),
  async open(env) {
    const { name, preset } = circleci
    if (await isOnPath('circleci', env)) {
      return tokenSource({
        name,
        preset,
        // Each run of the command makes a new token, which lives an hour.
        refetchable: true,
        fixedAudience: false,
        from: 'the output of circleci',
        read: (audience, signal) =>
          runCommand({
            name: 'circleci run oidc get',
            file: 'circleci',
            args: ['run', 'oidc', 'get', '--claims', JSON.stringify({ aud: audience })],
            env,
            signal,
            hint: FORKS,
          }),
      })
    }
    const token = setting(env, VARIABLE)
    if (token === undefined) {
      throw noToken(
        `CircleCI gives this job no token: the command circleci is not on the PATH, and ${VARIABLE} is not set, as in a build of a fork`,
        FORKS,
      )
    }
    return tokenSource({
      name,
      preset,
      refetchable: false,
      fixedAudience: true,
      from: `the variable ${VARIABLE}`,
      read: async () => token,
    })
  },
}
