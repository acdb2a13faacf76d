/**
 * Spacelift. Source: Spacelift documentation, "OpenID Connect (OIDC)". The links to runs are not verified. Its ids of stacks and
 * modules are slugs, so only a space's id is never used again.
 */
import type { Preset } from '../preset.ts'
import { HOUR, hostOf, known, link, text } from './fields.ts'

export const spacelift: Preset = {
  name: 'spacelift',
  issuerForm: { like: /^https:\/\/[^/]+$/, shown: 'https://ACCOUNT.app.spacelift.io' },
  sharedIssuer: () => false,
  tenancyClaims: ['spaceId'],
  claims: {
    // The account's administrators may change its template.
    sub: { class: 'mutable' },
    jti: { class: 'immutable', audit: true },
    spaceId: { class: 'immutable', identifying: true, audit: true },
    callerId: { class: 'mutable', identifying: true, audit: true },
    callerType: { class: 'trusted', audit: true },
    runType: { class: 'trusted', audit: true },
    runId: { class: 'trusted', audit: true },
    // Advisory, says the documentation.
    scope: { class: 'trusted', audit: true },
  },
  ruleNeeds: [
    {
      anyOf: ['spaceId'],
      level: 'error',
      why: 'every service that takes tokens of the account takes this one, and a stack of the same name can be made anew elsewhere',
    },
    {
      anyOf: ['callerId'],
      level: 'error',
      why: 'every service that takes tokens of the account takes this one, so all stacks of a space are too many to trust',
    },
    {
      anyOf: ['runType'],
      level: 'error',
      why: 'a task runs any command that somebody types, and only TRACKED runs come from the tracked branch',
    },
  ],
  openClaims: false,
  algorithms: ['RS256'],
  maxTokenLife: HOUR,
  maxTokenAge: HOUR,
  executionMarkers: ['runId'],
  refused: [{ claim: 'runType', values: ['PROPOSED'], why: 'it previews code that nobody has merged yet' }],
  mustAgree: [],
  tokenRecipe: '$SPACELIFT_OIDC_TOKEN, which is in every run',
  refetchable: false,
  refusedAudiences: [],
  // A self-hosted installation may have an issuer and a host that have nothing to do with each other.
  fixedAudience: (url) => (hostOf(url)?.endsWith('.app.spacelift.io') === true ? hostOf(url) : undefined),
  job(claims, { iss, runUrlBase }) {
    const caller = text(claims, 'callerId')
    const run = text(claims, 'runId')
    const isStack = text(claims, 'callerType') === 'stack'
    return known({
      pipelineName: caller,
      runId: run,
      runUrl: isStack ? link(runUrlBase ?? iss, 'stack', caller, 'run', run) : undefined,
      taskName: text(claims, 'runType'),
    })
  },
  jobKey: (claims) => ['callerId', 'runId'].map((name) => text(claims, name)),
}
