/** Azure DevOps: a POST with the job's access token. Source: Azure DevOps REST API 7.1, "Oidctoken - Create". */
import { noToken } from '../token-text.ts'
import { type CiSystem, isTrue, setting, tokenSource } from './ci-system.ts'
import { requestMember } from './request.ts'

export const azureDevops: CiSystem = {
  name: 'Azure DevOps',
  preset: 'azure-devops',
  marks: 'TF_BUILD',
  isHere: (env) => isTrue(env, 'TF_BUILD'),
  open(env) {
    const { name, preset } = azureDevops
    const url = setting(env, 'SYSTEM_OIDCREQUESTURI')
    const token = setting(env, 'SYSTEM_ACCESSTOKEN')
    if (token === undefined || /^\$\(.*\)$/.test(token)) {
      throw noToken(
        'Azure DevOps gives this step no access token to ask with: add "env: { SYSTEM_ACCESSTOKEN: $(System.AccessToken) }" to the step',
      )
    }
    if (url === undefined) {
      throw noToken('Azure DevOps has not set SYSTEM_OIDCREQUESTURI: the agent is too old to give tokens to pipelines')
    }
    return tokenSource({
      name,
      preset,
      refetchable: true,
      fixedAudience: true,
      from: `the answer of ${name}`,
      read: (_audience, signal) =>
        requestMember(
          {
            name,
            url: /[?&]api-version=/.test(url) ? url : `${url}${url.includes('?') ? '&' : '?'}api-version=7.1`,
            method: 'POST',
            headers: {
              authorization: `Bearer ${token}`,
              accept: 'application/json',
              'content-type': 'application/json',
              // Otherwise a refused request is answered with the page to log in, and status 200.
              'x-tfs-fedauthredirect': 'Suppress',
            },
            proxyEnv: env,
            signal,
          },
          'oidcToken',
        ),
    })
  },
}
