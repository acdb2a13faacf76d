/**
 * GitHub Actions, and what copies its protocol: a GET with two variables of the job. The URL has a query already. Asked for
 * as often as one likes, so each connection gets a token of its own, which lives five minutes.
 * Source: GitHub documentation, "OpenID Connect reference"; Forgejo documentation, "Using OpenID Connect".
 */
import type { Environment, TokenSource } from '../token-source.ts'
import { noToken } from '../token-text.ts'
import { type CiSystem, isTrue, setting, tokenSource } from './ci-system.ts'
import { requestMember } from './request.ts'

const URL_VARIABLE = 'ACTIONS_ID_TOKEN_REQUEST_URL'
const TOKEN_VARIABLE = 'ACTIONS_ID_TOKEN_REQUEST_TOKEN'

/** Forgejo says GITHUB_ACTIONS and GITEA_ACTIONS as well, Gitea says GITHUB_ACTIONS as well. */
const isForgejo = (env: Environment): boolean => isTrue(env, 'FORGEJO_ACTIONS')
const isGitea = (env: Environment): boolean => isTrue(env, 'GITEA_ACTIONS') && !isForgejo(env)

export const githubActions: CiSystem = {
  name: 'GitHub Actions',
  preset: 'github-actions',
  marks: 'GITHUB_ACTIONS',
  isHere: (env) => isTrue(env, 'GITHUB_ACTIONS') && !isForgejo(env) && !isGitea(env),
  open: (env) => openActions(githubActions, env, missingPermission),
}

export const forgejo: CiSystem = {
  name: 'Forgejo Actions',
  preset: 'forgejo',
  marks: 'FORGEJO_ACTIONS',
  isHere: isForgejo,
  open: (env) => openActions(forgejo, env, missingSwitch),
}

function openActions(system: CiSystem, env: Environment, missing: (env: Environment) => Error): TokenSource {
  const { name, preset } = system
  const url = setting(env, URL_VARIABLE)
  const token = setting(env, TOKEN_VARIABLE)
  if (url === undefined || token === undefined) throw missing(env)
  return tokenSource({
    name,
    preset,
    refetchable: true,
    fixedAudience: false,
    from: `the answer of ${name}`,
    read: (audience, signal) =>
      requestMember(
        {
          name,
          url: withAudience(url, audience),
          headers: { authorization: `bearer ${token}`, accept: 'application/json; api-version=2.0' },
          proxyEnv: env,
          signal,
          advice: (status) =>
            status === 401 || status === 403
              ? 'A job that has ended, or a step of another job, may not ask any more: the two variables are good in their own job only.'
              : undefined,
        },
        'value',
      ),
  })
}

/** As text, because an address that the CI made is not to be written anew. */
export function withAudience(url: string, audience: string): string {
  return `${url}${url.includes('?') ? '&' : '?'}audience=${encodeURIComponent(audience)}`
}

function missingPermission(env: Environment): Error {
  const pullRequest = /^pull_request/.test(setting(env, 'GITHUB_EVENT_NAME') ?? '')
  const fork = pullRequest
    ? '; if this pull request comes from a fork, GitHub gives it none whatever is written there'
    : ''
  return noToken(
    `GitHub Actions gives this job no token: add "permissions: { id-token: write, contents: read }" to the job${fork}`,
    'A reusable workflow needs it in the job that calls it as well. Once a job has "permissions:", it has nothing but what is named there.',
  )
}

function missingSwitch(env: Environment): Error {
  const pullRequest = /^pull_request/.test(setting(env, 'GITHUB_EVENT_NAME') ?? '')
  const fork = pullRequest ? '; a pull request from a fork gets none' : ''
  return noToken(
    `Forgejo Actions gives this job no token: add "enable-openid-connect: true" to the job${fork}`,
    'It needs Forgejo 15 with Runner 12.5 or later. GitHub\'s "permissions: id-token: write" does nothing on Forgejo.',
  )
}
