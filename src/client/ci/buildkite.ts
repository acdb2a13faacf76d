/** Buildkite: its agent asks for tokens. Source: Buildkite documentation, `buildkite-agent oidc request-token`. */
import { type CiSystem, isTrue, tokenSource } from './ci-system.ts'
import { runCommand } from './run-command.ts'

/** The preset takes no token that lives longer. */
const LIFE_SECONDS = '300'
/** The ids that rules stand on are in a token only when the job asks for them. */
const CLAIMS = 'organization_id,pipeline_id,build_id,queue_id'

export const buildkite: CiSystem = {
  name: 'Buildkite',
  preset: 'buildkite',
  marks: 'BUILDKITE',
  isHere: (env) => isTrue(env, 'BUILDKITE'),
  open: (env) =>
    tokenSource({
      name: buildkite.name,
      preset: buildkite.preset,
      refetchable: true,
      fixedAudience: false,
      from: 'the output of buildkite-agent',
      read: (audience, signal) =>
        runCommand({
          name: 'buildkite-agent oidc request-token',
          file: 'buildkite-agent',
          args: ['oidc', 'request-token', '--audience', audience, '--lifetime', LIFE_SECONDS, '--claim', CLAIMS],
          env,
          signal,
          hint: 'In a container, mount the agent into it (the Docker plugins do with "mount-buildkite-agent: true"); the job needs BUILDKITE_AGENT_ACCESS_TOKEN.',
        }),
    }),
}
