/**
 * SPIFFE JWT-SVIDs. Source: the SPIFFE standard JWT-SVID; SPIRE's documentation. The standard knows no `iss`: SPIRE puts one into
 * tokens where `jwt_issuer` is set, and without it pgusher cannot tell whose token it is. SPIRE's default life of 5 minutes is not
 * verified. An identity is as narrow as its registration entry: one for a runner's machine is that of every job on it.
 */
import type { Preset } from '../preset.ts'
import { HOUR, known, text } from './fields.ts'

/** A trust domain and a path of whole segments, of the characters that the standard allows; `.` and `..` are none. */
const SPIFFE_ID = /^spiffe:\/\/([a-z0-9._-]+)((?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._-]+)+)$/

function parts(subject: string): { trustDomain: string; path: string } | undefined {
  const [, trustDomain, path] = SPIFFE_ID.exec(subject) ?? []
  return trustDomain === undefined || path === undefined ? undefined : { trustDomain, path }
}

export const spiffe: Preset = {
  name: 'spiffe',
  sharedIssuer: () => false,
  tenancyClaims: ['trust_domain'],
  claims: {
    sub: { class: 'mutable', identifying: true, audit: true },
    jti: { class: 'immutable', audit: true },
    trust_domain: {
      fromSubject: (subject) => parts(subject)?.trustDomain,
      class: 'immutable',
      identifying: true,
      audit: true,
    },
    // Who may register entries below a path chooses it.
    path: { fromSubject: (subject) => parts(subject)?.path, class: 'claimed', audit: true, glob: true },
  },
  ruleNeeds: [
    {
      anyOf: ['trust_domain'],
      level: 'error',
      why: 'the keys of an issuer are those of one trust domain, and must not speak for another',
    },
    { anyOf: ['sub', 'path'], level: 'error', why: 'a trust domain is all of its workloads' },
  ],
  openClaims: false,
  algorithms: ['RS256', 'RS384', 'RS512', 'ES256', 'ES384', 'ES512', 'PS256', 'PS384', 'PS512'],
  maxTokenLife: HOUR,
  maxTokenAge: HOUR,
  executionMarkers: [],
  demands: [
    {
      claim: 'sub',
      like: SPIFFE_ID,
      wanted: 'spiffe://trust-domain/path',
      why: 'nothing else is a SPIFFE ID of a workload',
    },
  ],
  refused: [],
  mustAgree: [],
  tokenRecipe: 'spire-agent api fetch jwt -audience AUD -output json | jq -r ".[0].svids[0].svid"',
  refetchable: true,
  refusedAudiences: [],
  job: (claims) => known({ pipelineName: text(claims, 'path') }),
  // Two jobs of one registration entry cannot be told apart.
  jobKey: () => [undefined],
}
