/**
 * Microsoft Entra ID, access tokens of applications (client credentials, managed identities). Source: Microsoft documentation,
 * "Access token claims reference". Not verified: how long tokens live, and that any application of the tenant gets one unless
 * the API demands an assignment, which is why a rule must name the application. A managed identity's token may live a day:
 * `max_token_life` is the operator's to raise.
 */
import type { Preset } from '../preset.ts'
import { HOUR, known, text } from './fields.ts'

const GUID = '[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}'
const PERSON = 'names and addresses can be changed, by the person or the tenant; name oid or azp'

/** Version 2 and version 1 (`sts.windows.net`, with a slash at its end). */
const ISSUER = new RegExp(
  `^https://(?:login\\.microsoftonline\\.com/(?<tenant>${GUID})/v2\\.0|sts\\.windows\\.net/(?<tenant>${GUID})/)$`,
)

export const entra: Preset = {
  name: 'entra',
  issuerForm: {
    like: ISSUER,
    shown: 'https://login.microsoftonline.com/TENANT/v2.0 or https://sts.windows.net/TENANT/ with the id of the tenant',
    tenantClaim: 'tid',
  },
  sharedIssuer: (url) => !ISSUER.test(url),
  tenancyClaims: ['tid'],
  claims: {
    sub: { class: 'immutable' },
    uti: { class: 'immutable', audit: true },
    tid: { class: 'immutable', identifying: true, audit: true, uuid: true },
    oid: { class: 'immutable', identifying: true, audit: true, uuid: true },
    azp: { class: 'immutable', identifying: true, audit: true, uuid: true },
    // Version 1 says so for azp.
    appid: { class: 'immutable', identifying: true, audit: true, uuid: true },
    roles: { class: 'trusted', audit: true },
    // 1: by a secret, 2: by a certificate.
    azpacr: { class: 'trusted', audit: true },
    appidacr: { class: 'trusted', audit: true },
    idtyp: { class: 'trusted', audit: true, absenceMeaningful: true },
    scp: { class: 'trusted', audit: true, absenceMeaningful: true },
    ver: { class: 'trusted' },
  },
  ruleNeeds: [
    {
      anyOf: ['azp', 'appid', 'oid', 'roles'],
      level: 'error',
      why: 'any application of the tenant may be able to get a token',
    },
  ],
  notForRules: { preferred_username: PERSON, unique_name: PERSON, name: PERSON, email: PERSON, upn: PERSON },
  openClaims: false,
  algorithms: ['RS256'],
  maxTokenLife: 2 * HOUR,
  maxTokenAge: HOUR,
  executionMarkers: [],
  demands: [
    { claim: 'oid', like: /./s, wanted: 'the object of an application', why: 'it tells who asked for the token' },
  ],
  refused: [
    { claim: 'idtyp', like: /^user$/, event: 'user', why: 'the token is of a person who signed in' },
    {
      claim: 'scp',
      like: /./s,
      event: 'user',
      why: 'the token is of a person who signed in, and of a program that acts for them',
    },
  ],
  mustAgree: [],
  tokenRecipe:
    'a token of the application for the scope AUD/.default: by client credentials at https://login.microsoftonline.com/TENANT/oauth2/v2.0/token, or az account get-access-token',
  refetchable: true,
  // Azure's own: federated credentials, the resource manager and Graph.
  refusedAudiences: [
    /^api:\/\/AzureADTokenExchange$/i,
    /^https:\/\/(management\.azure\.com|management\.core\.windows\.net|graph\.microsoft\.com)\/?$/i,
    /^00000003-0000-0000-c000-000000000000$/,
  ],
  job: (claims) => known({ pipelineName: text(claims, 'azp') ?? text(claims, 'appid') }),
  // Two jobs of one application cannot be told apart.
  jobKey: () => [undefined],
}
