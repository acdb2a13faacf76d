import { expect, test } from 'vitest'
import { HEAD } from '../config/write-config.ts'
import { diagnosticsOf } from './policy-of.ts'

/** The head with other issuers. */
const withIssuers = (issuers: string) => HEAD.replace(/issuers:[\s\S]*?(?=databases:)/, `issuers:\n${issuers}`)
const OWN = 'match: { repository_id: "1" }'
const GIVE = 'allow: { database: shop, role: reader }'
const rules = (...entries: string[]) =>
  `rules:\n${entries.map((entry, index) => `  - name: r${index}\n    issuer: github\n${entry.replace(/^/gm, '    ')}\n`).join('')}`
const rule = (match: string, allow = GIVE) => HEAD + rules(`${match}\n${allow}`)
const ADMIN = 'credentials: { kind: ephemeral-role, admin: { user: pgusher_admin, password: secret } }'
const GITHUB = '  github: { preset: github-actions, audience: https://pgusher.acme.example }\n'

/** `error message | hint` for each, in order. */
async function told(text: string): Promise<string[]> {
  return (await diagnosticsOf(text)).map(
    (one) => `${one.level}: ${one.message}${one.hint === undefined ? '' : ` | ${one.hint}`}`,
  )
}

test('a rule that names who it lets in loads without a word', async () => {
  expect(await told(rule(OWN))).toEqual([])
})

test.each([
  [
    'two rules of one name',
    HEAD + rules(`${OWN}\n${GIVE}`) + rules(`${OWN}\n${GIVE}`).replace('rules:\n', ''),
    /a second rule is called "r0" \| the first one stands at .*:17/,
  ],
  [
    'an unknown issuer',
    HEAD + rules(`${OWN}\n${GIVE}`).replace('issuer: github', 'issuer: gihub'),
    /no issuer is called "gihub" \| did you mean "github"\?/,
  ],
  [
    'an unknown database',
    rule(OWN, 'allow: { database: shpo, role: reader }'),
    /no database is called "shpo" \| did you mean "shop"\?/,
  ],
  ['neither allow nor deny', HEAD + rules(OWN), /rule "r0" has neither allow nor deny/],
  ['allow and deny', rule(OWN, `${GIVE}\ndeny: {}`), /either allow or deny, not both/],
  ['an empty match', rule('match: {}'), /match is empty/],
  [
    'a claim that the provider has not',
    rule('match: { repository_idd: "1" }'),
    /tokens of github-actions carry no claim "repository_idd" \| did you mean "repository_id"\?/,
  ],
  ['a claim of the protocol', rule('match: { repository_id: "1", aud: x }'), /claim "aud" is checked for every token/],
  [
    'a glob on an id',
    rule('match: { repository_id: { glob: "78*" } }'),
    /claim "repository_id" takes no glob.*\| claims that take a glob: ref,/,
  ],
  ['a glob on a name', rule('match: { repository: { glob: acme/* } }'), /claim "repository" takes no glob/],
  ['a pattern on sub', rule('match: { repository_id: "1", sub: { glob: "repo:acme/*" } }'), /sub takes no pattern/],
  ['a glob with two *', rule('match: { repository_id: "1", ref: { glob: refs/heads/*a* } }'), /at most one \*/],
  ['a glob that takes all', rule('match: { repository_id: "1", ref: { glob: "*" } }'), /the glob matches anything/],
  [
    'an environment without a ref',
    rule('match: { repository_id: "1", environment: production }'),
    /environment without ref, or with any: GitHub creates an environment/,
  ],
  [
    'an environment with any ref',
    rule('match: { repository_id: "1", environment: { glob: prod/* }, ref: { glob: refs/heads/* } }'),
    /environment without ref, or with any/,
  ],
  ['the role ci', rule(OWN, 'allow: { database: shop, role: ci }'), /the role name "ci" is reserved/],
  [
    'a role with the minting prefix',
    rule(OWN, 'allow: { database: shop, role: pgu_x }'),
    /begins with the minting prefix "pgu_"/,
  ],
  [
    'the minting admin as a role',
    rule(OWN, 'allow: { database: shop, role: pgusher_admin }'),
    /is the minting admin of database "shop"/,
  ],
  [
    'no issuers',
    HEAD.replace(/issuers:[\s\S]*?(?=databases:)/, 'issuers: {}\n'),
    /no issuer is configured, so nobody can connect/,
  ],
  ['no databases', HEAD.replace(/databases:[\s\S]*/, 'databases: {}\n'), /no database is configured/],
  ['no audit sink', HEAD.replace('stdout: true', 'stdout: false'), /the audit has no sink/],
  ['no audit at all', HEAD.replace('audit: { stdout: true }\n', ''), /the audit has no sink/],
  [
    'plain text on all addresses',
    HEAD.replace('127.0.0.1:6432', '0.0.0.0:6432'),
    /plaintext: allow is only for a loopback address/,
  ],
  [
    'a listener without TLS',
    HEAD.replace(', plaintext: allow', ''),
    /the listener has no TLS, so every connection would be refused/,
  ],
  [
    'a shared issuer without tenancy',
    withIssuers(GITHUB) + rules(`match: { actor_id: "1", ref: refs/heads/main }\n${GIVE}`),
    /issues tokens to everybody, and this rule names none of/,
  ],
  [
    'a name where there is an id',
    withIssuers(GITHUB) + rules(`match: { repository: acme/shop }\n${GIVE}`),
    /\| repository is a name that can be given to somebody else; name repository_id/,
  ],
  [
    'tenancy by exclusion',
    withIssuers(GITHUB) + rules(`match: { repository_id: { not_in: ["1"] } }\n${GIVE}`),
    /issues tokens to everybody/,
  ],
  [
    'a default audience',
    withIssuers('  github: { preset: github-actions, audience: https://github.com/acme }\n'),
    /is the default audience of github-actions/,
  ],
  [
    'a preset that needs a URL',
    withIssuers('  github: { preset: jenkins, audience: x }\n'),
    /preset jenkins needs the issuer's url/,
  ],
  [
    'an issuer without TLS',
    withIssuers('  github: { preset: gitlab, audience: x, url: http://gitlab.acme.example }\n'),
    /is not an https URL/,
  ],
  [
    'an issuer with a query',
    withIssuers('  github: { preset: gitlab, audience: x, url: "https://gitlab.acme.example?a=b" }\n'),
    /no query and no fragment/,
  ],
  [
    'one URL twice',
    withIssuers(`${GITHUB}${GITHUB.replace('github:', 'again:')}`),
    /issuers "github" and "again" have the same URL/,
  ],
  [
    'claims of a preset',
    withIssuers(GITHUB.replace(' }', ', tenancy: [team] }')),
    /tenancy is for preset generic only/,
  ],
  [
    'an event that is not refused',
    withIssuers(GITHUB.replace(' }', ', allow_events: [pull_requests] }')),
    /does not refuse "pull_requests".*\| did you mean "pull_request"\?/,
  ],
  [
    'two sources of keys',
    withIssuers(GITHUB.replace(' }', ', jwks_url: https://a.example/jwks, jwks_file: /dev/null }')),
    /jwks_url and jwks_file exclude each other/,
  ],
  [
    'a certificate without TLS',
    HEAD.replace(
      /shop:\n {4}host: pg1.internal\n.*/,
      'shop:\n    host: pg1.internal\n    tls: { mode: disable }\n    credentials: { kind: client-certificate, ca: { cert: /dev/null, key: /dev/null } }',
    ),
    /a client certificate needs TLS/,
  ],
  [
    'an admin with the prefix',
    HEAD.replace('user: pgusher_admin', 'user: pgu_admin'),
    /the admin's name begins with the minting prefix/,
  ],
])('%s is refused', async (_name, text, message) => {
  const errors = (await told(text)).filter((one) => one.startsWith('error'))
  expect(errors).toEqual([expect.stringMatching(message)])
})

test.each([
  [
    'a session of two days',
    rule(OWN, 'allow: { database: shop, role: reader, max_session: 48h }'),
    /more than 24 hours/,
  ],
  ['an expired rule', rule(OWN, `expires: 2026-11-20\n${GIVE}`), /this rule has expired/],
  [
    'an expired deny rule',
    rule('match: { ref: refs/heads/x }', 'expires: 2026-11-20\ndeny: {}'),
    /past its date and still denies/,
  ],
  ['no rules', HEAD, /there are no rules, so every job is refused/],
  [
    'a star in an equality',
    rule('match: { repository_id: "1", ref: refs/heads/* }'),
    /\* means something only in a glob/,
  ],
  [
    'a branch without refs/heads',
    rule('match: { repository_id: "1", ref: main }'),
    /claim ref never is "main".*\| write refs\/heads\/main/,
  ],
  [
    'an event that the preset refuses',
    rule('match: { repository_id: "1", event_name: pull_request }'),
    /preset github-actions refuses event_name "pull_request"/,
  ],
  [
    'sub where there are ids',
    rule('match: { repository_id: "1", sub: x }'),
    /the sub of github-actions changes its shape/,
  ],
  [
    'no TLS to a remote database',
    rule(OWN).replace('host: pg1.internal', 'host: pg1.internal\n    tls: { mode: disable }'),
    /cross the network in the clear/,
  ],
])('%s is a warning, and the policy loads', async (_name, text, message) => {
  expect(await told(text)).toEqual([expect.stringMatching(/^warning/)])
  expect((await told(text))[0]).toMatch(message)
})

test('warm connections that go with their credential before their life is over are warned of, with what to set', async () => {
  const given = (entry: string, credentials = ADMIN) =>
    diagnosticsOf(rule(OWN).replace(ADMIN, `${credentials}${entry}`))
  const [byDefault, ...more] = await given('\n    warm: {}')
  expect(more).toEqual([])
  expect(byDefault).toMatchObject({
    ...{ level: 'warning', line: 13, sourceLine: '    warm: {}' },
    message:
      "the job's credential goes 2s after its last session, and warm connections with it, before their life of 30s is over",
    hint: 'set credentials.linger to 30s, or warm.life to 2s',
  })
  const lingering = (linger: string) => ADMIN.replace(/ }$/, `, linger: ${linger} }`)
  const [atOnce] = await given('\n    warm: { life: 1.5h }', lingering('0s'))
  expect(atOnce).toMatchObject({
    ...{ column: 19, length: 4 },
    message:
      "the job's credential goes with its last session, and warm connections with it, before their life of 90m is over",
    hint: 'set credentials.linger to 90m',
  })
  const certificate = 'credentials: { kind: client-certificate, ca: { cert: /dev/null, key: /dev/null } }'
  expect(await given('\n    warm: { life: 10s }', certificate)).toMatchObject([
    { hint: 'set credentials.linger to 10s' },
  ])
  expect(await given('\n    warm: {}', lingering('30s'))).toEqual([])
  expect(await given('\n    warm: { life: 2s }')).toEqual([])
  expect(await given('', lingering('0s'))).toEqual([])
})

test('a rule that expires later, http on loopback, and an accepted event say nothing', async () => {
  expect(await told(rule(OWN, `expires: 2026-11-22\n${GIVE}`))).toEqual([])
  const local = withIssuers(
    '  github: { preset: generic, audience: x, url: http://127.0.0.1:9/idp, tenancy: [team] }\n',
  )
  expect(await told(local + rules(`match: { team: shop, level: { glob: prod-* } }\n${GIVE}`))).toEqual([])
  const events = withIssuers(GITHUB.replace(' }', ', allow_events: [pull_request] }'))
  expect(await told(events + rules(`match: { repository_id: "1", event_name: pull_request }\n${GIVE}`))).toEqual([])
})

test('a generic issuer: every rule names a tenancy claim, and without any the exact subject', async () => {
  const issuer = (more: string) =>
    withIssuers(`  github: { preset: generic, audience: x, url: https://id.acme.example${more} }\n`)
  expect(await told(issuer(', tenancy: [team]') + rules(`match: { sub: job-1 }\n${GIVE}`))).toEqual([
    expect.stringMatching(/names none of the issuer's tenancy claims "team"/),
  ])
  expect(await told(issuer('') + rules(`match: { team: shop }\n${GIVE}`))).toEqual([
    expect.stringMatching(/does not say whose jobs it lets in: none of "sub" is named/),
  ])
  expect(await told(issuer('') + rules(`match: { sub: job-1 }\n${GIVE}`))).toEqual([])
})

test('ten different mistakes are ten positions, in order', async () => {
  const text = `version: 1
listen: { address: "0.0.0.0:6432", plaintext: allow }
audit: { stdout: true, on_failur: deny }
issuers:
  github:
    preset: github-actions
    audience: https://github.com/acme
    require: { repository_owner_id: 9100001 }
databases:
  shop:
    host: pg1.internal
    port: 70000
    credentials: { kind: ephemeral-role, admin: { user: pgusher_admin, password: "\${PGPW}" } }
rules:
  - name: migrate
    issuer: githib
    match: { repository_id: "1" }
    allow: { database: shop, role: migrator, max_session: 30 }
  - name: read
    issuer: github
    match: { repository_id: "1", reff: refs/heads/main }
    allow: { database: shp, role: reader }
`
  const found = await diagnosticsOf(text)
  expect(found.map(({ line, column, message }) => `${line}:${column} ${message}`)).toEqual([
    '2:47 plaintext: allow is only for a loopback address or a Unix socket',
    '3:24 unknown key "on_failur" in audit',
    '7:15 "https://github.com/acme" is the default audience of github-actions',
    '8:37 issuers.github.require.repository_owner_id must be a string; YAML reads 9100001 as a number',
    '12:11 databases.shop.port must be at most 65535',
    '13:82 the environment variable PGPW is not set',
    '16:13 no issuer is called "githib"',
    '18:59 allow.max_session must be a duration such as 30s, 15m or 2h; YAML reads 30 as a number',
    '21:34 tokens of github-actions carry no claim "reff"',
    '22:24 no database is called "shp"',
  ])
})

test('a mistake in a condition does not bring complaints about what it would have said', async () => {
  expect(await told(rule('match: { repository_id: { im: ["1"] } }'))).toEqual([
    expect.stringMatching(/unknown key "im"/),
  ])
  expect(await told(rule('match: [a]'))).toEqual([expect.stringMatching(/match must be a mapping, found a list/)])
})
