import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { AccessError } from '../../src/errors.ts'
import { HEAD } from '../config/write-config.ts'
import { decide, githubJob, policyOf } from './policy-of.ts'

const RULES = `rules:
  - name: migrate-production
    issuer: github
    match: { repository_id: "784500001", ref: refs/heads/main, environment: production, event_name: { in: [push, workflow_dispatch] } }
    allow: { database: shop, role: shop_migrator }
    on_deny: { message: Production migrations run only from main., contact: "#db-help" }
  - name: migrate-elsewhere
    issuer: github
    match: { repository_id: "2", ref: refs/heads/main }
    allow: { database: shop, role: shop_migrator }
  - name: read
    issuer: github
    match: { repository_id: "784500001", ref: { glob: refs/heads/* } }
    allow: { database: shop, role: [shop_reader, shop_analyst] }
  - name: no-self-hosted
    issuer: github
    match: { runner_environment: self-hosted }
    deny: { database: shop, role: shop_migrator }
    on_deny: { contact: "#platform" }
`

async function refusal(
  changes: Record<string, unknown>,
  user = 'shop_migrator',
  database = 'shop',
  text = HEAD + RULES,
): Promise<AccessError> {
  const decision = decide(await policyOf(text), changes, user, database)
  if (decision.allowed) throw new Error(`allowed by ${decision.grant.rule}`)
  return decision.error
}

/** All that a client is told. */
const told = ({ message, detail, hint }: AccessError): string => [message, detail, hint].join('\n')

test('no_matching_rule: MESSAGE names claim, value, rule and what it needs', async () => {
  const error = await refusal({ ref: 'refs/heads/fix-1' })
  expect(error).toMatchObject({ code: 'no_matching_rule', sqlstate: '42501' })
  expect(error.message).toBe(
    'access to "shop" denied: claim ref is "refs/heads/fix-1", rule "migrate-production" needs "refs/heads/main"; ' +
      'as it is, this job may use role "shop_reader" or "shop_analyst"',
  )
  expect(error.detail).toBe('rule "migrate-production":\nclaim ref: wanted "refs/heads/main", got "refs/heads/fix-1"')
  expect(error.hint).toBe('Production migrations run only from main. Contact: #db-help.')
  expect(error.nearest[0]).toEqual({
    rule: 'migrate-production',
    claim: 'ref',
    wanted: '"refs/heads/main"',
    got: '"refs/heads/fix-1"',
  })
})

test('no_matching_rule: all failing conditions of the nearest rule are in DETAIL', async () => {
  const error = await refusal({ ref: 'refs/tags/v1', event_name: 'schedule' })
  expect(error.message).toMatch(
    /needs "refs\/heads\/main" \(a tag started this run, and the rule wants a branch; 1 more condition does not hold\)$/,
  )
  expect(error.detail).toMatch(/claim event_name: wanted one of "push" or "workflow_dispatch", got "schedule"$/)
})

test('claim_missing: the token lacks what the nearest rule wants', async () => {
  const error = await refusal({ environment: undefined })
  expect(error).toMatchObject({ code: 'claim_missing', sqlstate: '42501' })
  expect(error.message).toBe(
    'access to "shop" denied: the token has no claim environment, rule "migrate-production" needs "production" ' +
      '(the job names none: set "environment:" in it); as it is, this job may use role "shop_reader" or "shop_analyst"',
  )
})

test('database_unknown lists the databases that this job may use, and no other', async () => {
  const error = await refusal({}, 'shop_migrator', 'shpo')
  expect(error).toMatchObject({ code: 'database_unknown', sqlstate: '3D000', hint: 'Did you mean "shop"?' })
  expect(error.message).toBe('database "shpo" is not known here; this job may use "shop"')
  const stranger = await refusal({ repository_id: '5' }, 'shop_migrator', 'shpo')
  expect(told(stranger)).not.toMatch(/"shop"|"stock"/)
})

test('a database without a rule says so, and a job is not told of databases by their rules', async () => {
  const error = await refusal({}, 'shop_migrator', 'stock')
  expect(error.message).toBe(
    'access to "stock" denied: no rule of issuer "github" gives access to this database; this job may use "shop"',
  )
})

test('role_not_allowed lists the roles that this job could ask for', async () => {
  const error = await refusal({}, 'shop_migrater')
  expect(error).toMatchObject({ code: 'role_not_allowed', sqlstate: '42501', hint: 'Did you mean "shop_migrator"?' })
  expect(error.message).toBe(
    'access to "shop" denied: this job may not use role "shop_migrater"; it may use "shop_migrator", "shop_reader" or "shop_analyst"',
  )
  const any = await refusal({}, 'ci')
  expect(any.message).toBe(
    'access to "shop" denied: user "ci" stands for the one role of a job, and this job may use "shop_migrator", "shop_reader" or "shop_analyst": put one of them into DATABASE_URL as the user',
  )
})

test('a role that is for this job on another database, and not on this one, is hinted at', async () => {
  const more = `  - name: elsewhere
    issuer: github
    match: { repository_id: "784500001" }
    allow: { database: stock, role: stock_reader }
`
  const error = await refusal({}, 'stock_reader', 'shop', HEAD + RULES + more)
  expect(error.code).toBe('role_not_allowed')
  expect(error.hint).toMatch(/Role "stock_reader" is for this job on "stock"\.$/)
  const closed = `${more}  - { name: closed, issuer: github, match: { ref: refs/heads/main }, deny: { database: stock } }\n`
  expect((await refusal({}, 'stock_reader', 'shop', HEAD + RULES + closed)).hint).not.toContain('stock"')
  expect((await refusal({}, 'x', 'shpo', HEAD + RULES + closed)).message).not.toContain('stock')
})

test('denied_by_rule names the rule and the claim', async () => {
  const error = await refusal({ runner_environment: 'self-hosted' })
  expect(error).toMatchObject({ code: 'denied_by_rule', hint: 'Contact: #platform.' })
  expect(error.message).toBe(
    'access to "shop" denied: rule "no-self-hosted" refuses this job: claim runner_environment is "self-hosted"',
  )
})

test('tenancy_mismatch: a job of another organisation learns its own claims and nothing of the policy', async () => {
  const error = await refusal({ repository_owner_id: '7777' })
  expect(error).toMatchObject({ code: 'tenancy_mismatch', sqlstate: '42501' })
  expect(error.message).toBe(
    'access to "shop" denied: this token is not of the organisation that this pgusher serves (it has repository_owner_id "7777")',
  )
  expect(error.detail).toContain('claim ref: "refs/heads/main"')
  for (const secret of ['9100001', 'migrate', 'shop_', 'main.', '#db-help', 'stock'])
    expect(told(error), secret).not.toContain(secret)
  expect(error.nearest).toEqual([
    { rule: 'require of issuer github', claim: 'repository_owner_id', wanted: '"9100001"', got: '"7777"' },
  ])
  const without = await refusal({ repository_owner_id: undefined })
  expect(without.code).toBe('claim_missing')
  expect(told(without)).not.toContain('9100001')
})

test('a shared issuer whose tenancy stands in the rules tells a stranger nothing either', async () => {
  const text =
    HEAD.replace('    require: { repository_owner_id: "9100001" }\n', '') +
    RULES.replace(/ {2}- name: no-self-hosted[\s\S]*/, '')
  const stranger = await refusal({ repository_id: '666', ref: 'refs/heads/x' }, 'shop_migrator', 'shop', text)
  expect(stranger.message).toBe('access to "shop" denied: no rule allows this job')
  for (const secret of ['784500001', 'migrate', 'refs/heads/main', 'run only', '#db-help'])
    expect(told(stranger), secret).not.toContain(secret)
  const denies = text + RULES.replace(/^[\s\S]*(?= {2}- name: no-self-hosted)/, '')
  const selfHosted = { runner_environment: 'self-hosted' }
  const denied = await refusal({ repository_id: '666', ...selfHosted }, 'shop_migrator', 'shop', denies)
  expect(told(denied)).not.toMatch(/#platform|no-self-hosted/)
  expect((await refusal(selfHosted, 'shop_migrator', 'shop', denies)).hint).toBe('Contact: #platform.')
  expect(told(await refusal({ repository_id: '666' }, 'x', 'stock', text))).not.toContain('issuer')
  const own = await refusal({ ref: 'refs/heads/x' }, 'shop_migrator', 'shop', text)
  expect(own.message).toMatch(/rule "migrate-production" needs "refs\/heads\/main";/)
})

test.each([
  [
    'a rule',
    (text: string) =>
      text.replace('  - name: migrate-production\n', '  - name: migrate-production\n    explain: false\n'),
  ],
  ['an issuer', (text: string) => text.replace('    audience:', '    explain: false\n    audience:')],
])(
  'explain: false on %s keeps back what was wanted, but not the words written for the denied',
  async (_name, change) => {
    const error = await refusal({ ref: 'refs/heads/fix-1' }, 'shop_migrator', 'shop', change(HEAD + RULES))
    expect(error.message).toBe(
      'access to "shop" denied: no rule allows this job with role "shop_migrator"; it may use role "shop_reader" or "shop_analyst"',
    )
    expect(told(error)).not.toMatch(/refs\/heads\/main|migrate-production/)
    expect(error.detail).toContain('claim ref: "refs/heads/fix-1"')
    expect(error.hint).toContain('Production migrations run only from main. Contact: #db-help.')
    // The auditor reads it all the same.
    expect(error.nearest[0]).toMatchObject({ rule: 'migrate-production', wanted: '"refs/heads/main"' })
  },
)

test.each([
  [{ ref: 'refs/heads/Main' }, '(only letter case differs)'],
  [{ ref: 'main' }, `(the token's ref leaves out refs/heads/: the rule's author should write "main")`],
  [
    { ref: 'main', ref_path: 'refs/heads/main' },
    `(the token's ref leaves out refs/heads/: the rule's author should write "main" or test claim ref_path)`,
  ],
  [{ ref: 'refs/heads/main ' }, '(only white space differs)'],
  [{ ref: 'refs/heads/main/' }, '(only the last slash differs)'],
  [{ ref: 'refs/pull/7/merge' }, '(this run belongs to a pull request, whose ref is never a branch)'],
  [{ event_name: 'Push' }, '(only letter case differs)'],
])('a usual mistake is told in MESSAGE: %o', async (changes, words) => {
  expect((await refusal(changes)).message).toContain(words)
})

test.each([
  ['main', 'refs/heads/main', '(the rule leaves out refs/heads/: its author should write "refs/heads/main")'],
  ['"v1"', 'refs/tags/v1', '(the rule leaves out refs/tags/: its author should write "refs/tags/v1")'],
  [
    '{ glob: release/* }',
    'refs/heads/release/2',
    '(the rule leaves out refs/heads/: its author should write "refs/heads/release/*")',
  ],
  ['{ glob: refs/heads/release/* }', 'refs/heads/Release/2', '(only letter case differs)'],
  ['{ glob: refs/tags/v* }', 'refs/heads/v2', '(a branch started this run, and the rule wants a tag)'],
])('a rule for ref %s, and a token with %s', async (wanted, ref, words) => {
  const text = `${HEAD}rules:
  - name: odd
    issuer: github
    match: { repository_id: "784500001", ref: ${wanted} }
    allow: { database: shop, role: shop_reader }
`
  const error = await refusal({ ref }, 'shop_reader', 'shop', text)
  expect(error.message).toMatch(/ \(.*\)$/)
  expect(error.message).toContain(words)
})

test('a role that no rule gives is told together with the condition that does not hold', async () => {
  const error = await refusal({ ref: 'refs/tags/v1', repository_id: '2' }, 'shop_migratr')
  expect(error.message).toMatch(/needs "refs\/heads\/main" \(.*\) and gives role "shop_migrator", not "shop_migratr"$/)
})

test('a database without a name near it and a job without any learn what the path of the URL is', async () => {
  const stranger = await refusal({ repository_id: '5' }, 'shop_migrator', 'postgres')
  expect(stranger.message).toMatch(/^database "postgres" is not known here: the path of DATABASE_URL is an entry of/)
})

test('the nearest rule is the one for this role with the fewest failing conditions', async () => {
  const other = await refusal({
    repository_id: '2',
    ref: 'refs/heads/x',
    environment: undefined,
    event_name: 'schedule',
  })
  expect(other.message).toMatch(/rule "migrate-elsewhere" needs "refs\/heads\/main"$/)
  const reader = await refusal({ ref: 'refs/tags/v1' }, 'shop_reader')
  expect(reader.message).toMatch(/rule "read" needs a value like "refs\/heads\/\*" \(a tag started this run/)
})

test('whatever a client or a token says, a denial is short lines of printable text', async () => {
  const policy = await policyOf(HEAD + RULES)
  const text = fc.string({ unit: 'binary', maxLength: 1_000 })
  fc.assert(
    fc.property(text, text, text, text, (ref, id, user, database) => {
      // A name with NUL never gets here: neither the startup packet nor the claims can hold one.
      const clean = ref.replaceAll('\0', '')
      const job = githubJob(policy, {
        ref: clean,
        repository_id: id.replaceAll('\0', ''),
        [`x${clean.slice(0, 20)}`]: 'y',
      })
      for (const [asked, where] of [
        [user, 'shop'],
        ['shop_migrator', database],
      ] as const) {
        const decision = decide(policy, Object.fromEntries(job.claims), asked, where)
        if (decision.allowed) continue
        // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not be there
        expect(decision.error.message).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/)
        expect(decision.error.message.length).toBeLessThan(700)
        for (const line of told(decision.error).split('\n')) expect(line.length).toBeLessThan(2_500)
      }
    }),
  )
})
