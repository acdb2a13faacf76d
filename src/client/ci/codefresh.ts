/** Codefresh: a GET with two variables of the build. Source: Codefresh documentation, "OIDC for pipelines". */
import { noToken } from '../token-text.ts'
import { withAudience } from './actions.ts'
import { type CiSystem, setting, tokenSource } from './ci-system.ts'
import { requestMember } from './request.ts'

export const codefresh: CiSystem = {
  name: 'Codefresh',
  preset: 'codefresh',
  marks: 'CF_BUILD_ID or CF_OIDC_REQUEST_URL',
  isHere: (env) => ['CF_BUILD_ID', 'CF_OIDC_REQUEST_URL'].some((name) => setting(env, name) !== undefined),
  open(env) {
    const { name, preset } = codefresh
    const url = setting(env, 'CF_OIDC_REQUEST_URL')
    const token = setting(env, 'CF_OIDC_REQUEST_TOKEN')
    if (url === undefined || token === undefined) {
      throw noToken(
        'Codefresh has not set CF_OIDC_REQUEST_URL and CF_OIDC_REQUEST_TOKEN for this step: an administrator switches OIDC on for the account',
      )
    }
    return tokenSource({
      name,
      preset,
      refetchable: true,
      // Where the audience cannot be chosen the parameter does nothing, and pgusher has the fixed one configured.
      fixedAudience: false,
      from: `the answer of ${name}`,
      read: (audience, signal) =>
        requestMember(
          {
            name,
            url: withAudience(url, audience),
            // Without a word before it.
            headers: { authorization: token, accept: 'application/json' },
            proxyEnv: env,
            signal,
          },
          'id_token',
        ),
    })
  },
}
