/** The mistakes that everybody makes once, as a new user makes them, with five clients: MESSAGE alone says what to do next. */
import { readFile } from 'node:fs/promises'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ISSUER_SHAPES } from '../../src/cli/demo/issuer.ts'
import { denialText, readDenial } from '../../src/cli/recorded-denial.ts'
import { type Attempt, mistakenClients, nodePostgres } from '../support/mistaken-clients.ts'
import { RULES, type RuleInput, type Stage, startStage } from '../support/pgusher.ts'
import { forged } from '../support/tokens.ts'

const PROJECT = { database: 'warehouse', role: 'shop_reader' }
/** Written without a look at what the tokens say. */
const MISTAKEN_RULES: readonly RuleInput[] = [
  { name: 'analyse', issuer: 'github', match: { repository_id: '784500001', ref: 'main' }, allow: PROJECT },
  { name: 'tidy', issuer: 'gitlab', match: { project_id: '20451', ref: 'refs/heads/main' }, allow: PROJECT },
]

interface Mistake {
  name: string
  attempt(stage: Stage): Partial<Attempt> | Promise<Partial<Attempt>>
  code: string
  message: RegExp
  /** It stands in docs/errors.md as it looks. */
  documented?: true
  /** Where a client never gets as far as ours, or shows another error of ours: its own words. */
  instead?: Readonly<Record<string, RegExp>>
}

const minutesAgo = (minutes: number): number => Math.floor(Date.now() / 1000) - minutes * 60
const expired = (stage: Stage): Promise<string> =>
  stage.token('github', { iat: minutesAgo(8.6), nbf: minutesAgo(8.6), exp: minutesAgo(3.6) })
const TLS_REQUIRED = /^TLS is required: use sslmode=verify-full\./

const MISTAKES: readonly Mistake[] = [
  {
    name: "a fork's pull request, or no id-token: write: the variable is empty",
    attempt: () => ({ password: '' }),
    documented: true,
    code: 'token_missing',
    message:
      /^no token: the password of the connection string is empty; .*"permissions: id-token: write", and none to a pull request from a fork; .*"id_tokens:"/,
    // libpq keeps an empty password to itself and hangs up.
    instead: { psql: /fe_sendauth: no password supplied/, psycopg: /fe_sendauth: no password supplied/ },
  },
  {
    name: 'what jq prints where there is no field',
    attempt: () => ({ password: 'null' }),
    documented: true,
    code: 'token_missing',
    message: /^no token: the password is the word null, .*"permissions: id-token: write"/,
  },
  {
    name: 'a variable in single quotes',
    attempt: () => ({ password: '$PG_ID_TOKEN' }),
    documented: true,
    code: 'token_missing',
    message: /^no token: .*a shell variable or command that was not expanded: put it into double quotes/,
  },
  {
    name: 'an expression of a workflow in a file that is none',
    attempt: () => ({ password: `\${{ steps.token.outputs.value }}` }),
    code: 'token_missing',
    message: /^no token: .*an expression in double braces that was not evaluated: .*pass the value by "env:"/,
  },
  {
    name: "the CI's whole answer",
    attempt: async (stage) => ({ password: JSON.stringify({ count: 1923, value: await stage.token() }) }),
    documented: true,
    code: 'token_malformed',
    message: /^the password is the CI's whole answer in JSON .* take its field "value", for example with jq -r \.value/,
  },
  {
    name: 'a database password',
    attempt: () => ({ password: 'correct-horse-battery' }),
    code: 'token_malformed',
    message:
      /^the password is not an OIDC token but something else, such as a database password: .* put the token that the CI system issues/,
  },
  {
    name: 'a personal access token of GitHub',
    attempt: () => ({ password: 'ghp_16C7e42F292c6912E7710c838347Ae178B4a' }),
    documented: true,
    code: 'token_malformed',
    message: /^the password is a GitHub access token, not an OIDC token: ask for one at \$ACTIONS_ID_TOKEN_REQUEST_URL/,
  },
  {
    name: 'an access token of GitLab',
    attempt: () => ({ password: 'glpat-XXXXXXXXXXXXXXXXXXXX' }),
    code: 'token_malformed',
    message: /^the password is a GitLab access token, not an OIDC token: use the variable .*"id_tokens:"/,
  },
  {
    name: 'the token with which a GitHub runner asks for tokens',
    attempt: () => ({
      password: forged(
        { typ: 'JWT', alg: 'RS256', kid: 'x' },
        { iss: 'https://vstoken.actions.githubusercontent.com', scp: 'Actions.GenericRead:1 Actions.Results:1:2' },
      ),
    }),
    code: 'issuer_unknown',
    message: /^the password is a token of the runner's own \(ACTIONS_ID_TOKEN_REQUEST_TOKEN .* asks for a token with/,
  },
  ...[100, 255, 1_000].map(
    (length): Mistake => ({
      name: `a client that cuts passwords at ${length} characters`,
      attempt: async (stage) => ({ password: (await stage.token()).slice(0, length) }),
      code: 'token_malformed',
      message: new RegExp(
        `^the token was cut: it ends after ${length} characters, .*or a ticket in place of the token`,
      ),
    }),
  ),
  {
    name: 'the wrong audience',
    attempt: async (stage) => ({ password: await stage.token('github', {}, { audience: 'https://github.com/acme' }) }),
    documented: true,
    code: 'audience_mismatch',
    message:
      /^the token is for audience "https:\/\/github\.com\/acme"; ask for one with audience "https:\/\/pgusher\.acme\.example"/,
  },
  {
    name: 'a token past its five minutes',
    attempt: async (stage) => ({ password: await expired(stage) }),
    documented: true,
    code: 'token_expired',
    message:
      /^the token expired 4 min ago; fetch one at connect time, in the step that connects: curl .*ACTIONS_ID_TOKEN_REQUEST_URL&audience=https:\/\/pgusher\.acme\.example" \| jq -r \.value/,
  },
  {
    name: "a token of Jenkins' controller",
    attempt: async (stage) => ({
      password: await stage.token('jenkins', { build_number: undefined, sub: 'https://jenkins.acme.example/' }),
      user: 'shop_reader',
    }),
    documented: true,
    code: 'claim_missing',
    message:
      /^the token has no build_number: it was not issued to a running job; get one inside the job: withCredentials/,
  },
  {
    name: 'letter case in a claim',
    attempt: async (stage) => ({ password: await stage.token('github', { ref: 'refs/heads/Main' }) }),
    documented: true,
    code: 'no_matching_rule',
    message:
      /claim ref is "refs\/heads\/Main", rule "migrate-production" needs "refs\/heads\/main" \(only letter case differs\)/,
  },
  {
    name: 'refs/heads/ left out in the rule',
    attempt: async (stage) => ({ password: await stage.token(), user: 'shop_reader', database: 'warehouse' }),
    documented: true,
    code: 'no_matching_rule',
    message:
      /rule "analyse" needs "main" \(the rule leaves out refs\/heads\/: its author should write "refs\/heads\/main"\); as it is, this job may use role "shop_migrator"/,
  },
  {
    name: 'refs/heads/ left out in the token',
    attempt: async (stage) => ({ password: await stage.token('gitlab'), user: 'shop_reader', database: 'warehouse' }),
    documented: true,
    code: 'no_matching_rule',
    message:
      /rule "tidy" needs "refs\/heads\/main" \(the token's ref leaves out refs\/heads\/: the rule's author should write "main" or test claim ref_path\)/,
  },
  {
    name: 'a role that exists and is not for this job',
    attempt: async (stage) => ({ password: await stage.token('gitlab'), user: 'shop_migrator' }),
    documented: true,
    code: 'role_not_allowed',
    message: /this job may not use role "shop_migrator"; it may use "shop_reader"/,
  },
  {
    name: 'the name of the database behind',
    attempt: async (stage) => ({ password: await stage.token(), database: 'shop' }),
    documented: true,
    code: 'database_unknown',
    message: /^database "shop" is not known here; this job may use "shop-prod" or "warehouse"/,
  },
  {
    name: 'sslmode=disable',
    attempt: async (stage) => ({ password: await stage.token(), sslmode: 'disable' }),
    documented: true,
    code: 'tls_required',
    message: TLS_REQUIRED,
  },
  {
    name: 'sslmode=prefer, with which the reason is one of two errors',
    attempt: async (stage) => ({ password: await expired(stage), sslmode: 'prefer' }),
    code: 'token_expired',
    message: /^the token expired 4 min ago; fetch one at connect time/,
    // asyncpg shows the second error only, node-postgres has no such mode and stands for clients without TLS.
    instead: { asyncpg: TLS_REQUIRED, 'node-postgres': TLS_REQUIRED },
  },
]

/** MESSAGE as it stands in what a client shows: behind the client's own words, before DETAIL and HINT. */
function messageIn(shown: string): string {
  const [first = ''] = shown.split('\n')
  return first.replace(/^.*?FATAL:\s+/, '')
}

const clients = await mistakenClients()
const installed = clients.filter(({ missing }) => missing === undefined)
for (const { name, missing } of clients) {
  if (missing !== undefined) console.warn(`mistakes with ${name} are not tried: install ${missing}`)
}

/** On a busy machine the issuers can be slower to start than pgusher waits for their keys, and it asks again after 30 s only. */
async function untilKeysAreThere(usual: Attempt): Promise<void> {
  const tokens = await Promise.all(ISSUER_SHAPES.map((shape) => stage.token(shape)))
  const attempts = tokens.map((password) => ({ ...usual, password }))
  while ((await nodePostgres.show(stage, attempts)).some((text) => text.includes('cannot be fetched'))) {
    await stage.pgusher.stop()
    await stage.restart()
  }
}

let stage: Stage
const shown = new Map<string, readonly string[]>()

beforeAll(async () => {
  stage = await startStage({ rules: [...RULES, ...MISTAKEN_RULES] })
  const usual = { user: 'shop_migrator', database: 'shop-prod', password: '', sslmode: 'verify-full' } as const
  await untilKeysAreThere(usual)
  const attempts = await Promise.all(
    MISTAKES.map(async ({ attempt }): Promise<Attempt> => ({ ...usual, ...(await attempt(stage)) })),
  )
  await Promise.all(installed.map(async (client) => shown.set(client.name, await client.show(stage, attempts))))
}, 120_000)
afterAll(() => stage.close())

describe.each(installed.map(({ name }) => name))('%s', (client) => {
  test.each(MISTAKES.map((mistake, index) => [mistake.name, mistake, index] as const))(
    '%s',
    async (_name, { message, code, instead }, index) => {
      const text = shown.get(client)?.[index] ?? ''
      const own = instead?.[client]
      if (own !== undefined) {
        expect(own === TLS_REQUIRED ? messageIn(text) : text).toMatch(own)
        return
      }
      const told = messageIn(text)
      expect(told).toMatch(message)
      expect(told).toMatch(/^.{20,320} \[D-[0-9A-Z]{6}\]$/)
      const id = /\[(D-\w+)\]$/.exec(told)?.[1]
      const event = await stage.waitForEvent(({ pgusher }) => (pgusher['decision'] as { id?: string })?.id === id)
      expect(event.pgusher['decision']).toMatchObject({ code })
    },
  )
})

test('docs/errors.md shows them as they look', async () => {
  const documents = await readFile(new URL('../../docs/errors.md', import.meta.url), 'utf8')
  for (const [index, { name, documented }] of MISTAKES.entries()) {
    if (documented !== true) continue
    const message = messageIn(shown.get('node-postgres')?.[index] ?? '').replace(/ \[D-\w+\]$/, '')
    expect(documents.includes(`FATAL:  ${message} [D-`), `${name}: ${message}`).toBe(true)
  }
})

test('a client that does not have the CA says so in the words that docs/errors.md has, and the operator finds it', async () => {
  const documents = await readFile(new URL('../../docs/errors.md', import.meta.url), 'utf8')
  const client = new pg.Client({ host: '127.0.0.1', port: stage.port, ssl: true, password: 'x' })
  client.on('error', () => {})
  const error = await client.connect().then(
    () => new Error('connected'),
    (thrown: Error) => thrown,
  )
  await client.end().catch(() => {})
  expect(error.message).toContain('unable to verify the first certificate')
  expect(documents).toContain('unable to verify the first certificate')
  await stage.waitForEvent(({ pgusher }) =>
    /^TLS handshake failed/.test((pgusher['decision'] as { message?: string })?.message ?? ''),
  )
  expect(documents).toContain('`TLS handshake failed: …`')
})

test('what was pasted in place of a token is neither in the events nor in the log, as text or as a hash', async () => {
  const denied = await stage.events('session.denied')
  const malformed = denied.filter(({ pgusher }) => (pgusher['decision'] as { code: string }).code === 'token_malformed')
  expect(malformed.length).toBeGreaterThan(0)
  expect(malformed.filter(({ pgusher }) => pgusher['idp'] !== undefined)).toEqual([])
  expect(JSON.stringify(denied)).not.toMatch(/correct-horse|16C7e42F|glpat-X/)
})

test('every denial of a verified job tells the operator the whole story', async () => {
  const denied = await stage.events('session.denied')
  const decided = denied.filter(({ pgusher }) => (pgusher['decision'] as { stage: string }).stage === 'decide')
  expect(decided.length).toBeGreaterThanOrEqual(installed.length)
  for (const event of decided) {
    const { id, message } = event.pgusher['decision'] as { id: string; message: string }
    const denial = readDenial(JSON.stringify(event), id)
    if (denial === undefined) throw new Error(`denial ${id} cannot be read`)
    const text = denialText(denial)
    expect(text).toContain(`MESSAGE     ${message} [${id}]`)
    expect(text).toMatch(/^run {9}https:\/\/\S+$/m)
    expect(text).toMatch(/^allow rule migrate-production: /m)
  }
})
