import type { Sample } from './sample.ts'

const AUDIENCE = '62515c12-e5f2-4851-b87f-bf9d2922f18b'
const TENANT = '5c0bb7e6-4efb-4df9-9c4c-a764e2e0f431'
const APPLICATION = 'deb3dac5-772d-41b7-9af3-93c7e9b32794'
const OBJECT = '482fa366-0421-489e-83a4-5f847b848570'

const claims = {
  aud: AUDIENCE,
  iat: 1790000000,
  nbf: 1790000000,
  exp: 1790003600,
  idtyp: 'app',
  oid: OBJECT,
  sub: OBJECT,
  tid: TENANT,
  roles: ['Database.Connect'],
  uti: 'q1w2e3r4t5y6u7i8o9p0aa',
}

export const samples: readonly Sample[] = [
  {
    edition: 'version 2',
    issuer: {
      preset: 'entra',
      url: `https://login.microsoftonline.com/${TENANT}/v2.0`,
      audience: AUDIENCE,
      require: { tid: TENANT },
    },
    match: { oid: OBJECT, azp: APPLICATION, roles: 'Database.Connect' },
    claims: {
      ...claims,
      iss: `https://login.microsoftonline.com/${TENANT}/v2.0`,
      azp: APPLICATION,
      azpacr: '2',
      ver: '2.0',
    },
    job: { pipelineName: APPLICATION },
  },
  {
    edition: 'version 1',
    issuer: { preset: 'entra', url: `https://sts.windows.net/${TENANT}/`, audience: AUDIENCE },
    match: { appid: APPLICATION, roles: 'Database.Connect' },
    claims: { ...claims, iss: `https://sts.windows.net/${TENANT}/`, appid: APPLICATION, appidacr: '2', ver: '1.0' },
    job: { pipelineName: APPLICATION },
  },
]
