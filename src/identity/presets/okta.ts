/**
 * Okta, access tokens of a custom authorization server by client credentials. Source: Okta developer documentation, "Implement
 * authorization by grant type: client credentials". For CI systems without tokens of their own: the client's secret or key is a
 * long-lived secret in CI, so this is weaker than the rest. That tokens of the organisation's own server are for nobody else is
 * not verified; its issuer, without `/oauth2/`, is warned of.
 */
import type { Preset } from '../preset.ts'
import { HOUR, known, MINUTE, text } from './fields.ts'

export const okta: Preset = {
  name: 'okta',
  issuerForm: {
    like: /^https:\/\/[^/]+\/oauth2\/[^/]+$/,
    shown: 'https://ORGANISATION.okta.com/oauth2/ followed by the id of an authorization server of your own',
  },
  sharedIssuer: () => false,
  tenancyClaims: [],
  claims: {
    // The client again, for client credentials; for people what they sign in as.
    sub: { class: 'mutable' },
    jti: { class: 'immutable', audit: true },
    cid: { class: 'immutable', identifying: true, audit: true },
    uid: { class: 'immutable', audit: true, absenceMeaningful: true },
    scp: { class: 'trusted', audit: true },
    ver: { class: 'trusted' },
  },
  // Claims that the authorization server's administrators add are not listed here.
  openClaims: true,
  algorithms: ['RS256'],
  maxTokenLife: HOUR,
  // A job can ask again at any time.
  maxTokenAge: 10 * MINUTE,
  executionMarkers: [],
  demands: [
    { claim: 'cid', like: /./s, wanted: 'the id of a client', why: 'it tells which program asked for the token' },
  ],
  refused: [{ claim: 'uid', like: /./s, event: 'user', why: 'the token is of a person who signed in' }],
  mustAgree: [{ claims: ['sub', 'cid'], why: 'the token is not one that a program got for itself' }],
  tokenRecipe:
    'curl -sSf -u "$OKTA_CLIENT_ID:$OKTA_CLIENT_SECRET" -d grant_type=client_credentials -d scope=pgusher https://ORGANISATION.okta.com/oauth2/SERVER/v1/token | jq -r .access_token (the authorization server has the audience AUD)',
  refetchable: true,
  refusedAudiences: [/^api:\/\/default$/, /^https:\/\/[^/]+\.okta(-emea|preview)?\.com\/?$/],
  job: (claims) => known({ pipelineName: text(claims, 'cid') }),
  // Two jobs of one client cannot be told apart.
  jobKey: () => [undefined],
}
