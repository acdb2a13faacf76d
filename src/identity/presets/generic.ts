/** Any OpenID Connect issuer: what identifies a tenant, and nested claims, are named in the configuration. */
import type { Preset } from '../preset.ts'
import { HOUR, hostOf, MINUTE } from './fields.ts'

/** Issuers known to serve everybody, so that choosing `generic` for one does not lose the tenancy rule. */
const SHARED_HOSTS = new Set([
  'token.actions.githubusercontent.com',
  'gitlab.com',
  'agent.buildkite.com',
  'accounts.google.com',
  'app.terraform.io',
  'oidc.codefresh.io',
])

export const generic: Preset = {
  name: 'generic',
  sharedIssuer: (url) => SHARED_HOSTS.has(hostOf(url) ?? ''),
  tenancyClaims: ['sub'],
  claims: {
    sub: { class: 'immutable', identifying: true, audit: true },
    jti: { class: 'immutable', audit: true },
  },
  openClaims: true,
  algorithms: ['RS256', 'PS256', 'ES256', 'EdDSA'],
  maxTokenLife: HOUR,
  maxTokenAge: 15 * MINUTE,
  executionMarkers: [],
  refused: [],
  mustAgree: [],
  tokenRecipe: 'ask your identity provider for a token whose audience is AUD, just before connecting',
  refetchable: true,
  refusedAudiences: [],
  job: () => ({}),
  jobKey: () => [undefined],
}
