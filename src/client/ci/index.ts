/** Every CI system that is recognised, and the ones that are known to issue no tokens. */
import type { Environment } from '../token-source.ts'
import { forgejo, githubActions } from './actions.ts'
import { azureDevops } from './azure-devops.ts'
import { buildkite } from './buildkite.ts'
import { type CiSystem, isTrue } from './ci-system.ts'
import { circleci } from './circleci.ts'
import { codefresh } from './codefresh.ts'
import { variableSystems } from './variables.ts'

/** At most one is here: each has marks of its own. Jenkins' are the weakest, as its agents pass their environment on. */
export const CI_SYSTEMS: readonly CiSystem[] = [
  githubActions,
  forgejo,
  buildkite,
  circleci,
  azureDevops,
  codefresh,
  ...variableSystems.toSorted((a, b) => Number(a.preset === 'jenkins') - Number(b.preset === 'jenkins')),
]

/** The CI system that the job runs in, where it is one that issues no tokens. */
export function systemWithoutTokens(env: Environment): string | undefined {
  if (isTrue(env, 'DRONE')) return 'Drone'
  if (env['CI'] === 'woodpecker' || env['CI_SYSTEM_NAME'] === 'woodpecker') return 'Woodpecker'
  return isTrue(env, 'GITEA_ACTIONS') ? 'Gitea Actions' : undefined
}
