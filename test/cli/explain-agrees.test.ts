import { writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { identifyJob } from '../../src/cli/explain-job.ts'
import type { Config } from '../../src/config/schema.ts'
import { asAccessError } from '../../src/errors.ts'
import type { Principal } from '../../src/identity/principal.ts'
import { createVerifier } from '../../src/identity/verifier.ts'
import { evaluate } from '../../src/policy/evaluate.ts'
import { loadPolicy } from '../../src/policy/load.ts'
import { HEAD, writeConfig } from '../config/write-config.ts'
import { GITHUB_JOB } from '../policy/policy-of.ts'
import { AUDIENCE, signingKey } from '../support/tokens.ts'

const RULES = `rules:
  - { name: migrate, issuer: github, match: { repository_id: "784500001", ref: refs/heads/main, event_name: { not_in: [schedule] } }, allow: { database: shop, role: migrator } }
  - { name: read, issuer: github, match: { repository_id: { in: ["784500001", "2"] }, ref: { glob: refs/heads/* } }, allow: { database: [shop, stock], role: [reader, writer] } }
  - { name: no-writes, issuer: github, match: { runner_environment: self-hosted }, deny: { role: writer } }
`

const CLAIMS: fc.Arbitrary<Record<string, unknown>> = fc.record({
  repository_owner_id: fc.constantFrom('9100001', 9100001, '9100001', '7'),
  repository_id: fc.constantFrom('784500001', 784500001, '2', undefined),
  ref: fc.constantFrom('refs/heads/main', 'refs/heads/x', 'refs/heads/a/b', 'refs/tags/v1', undefined),
  event_name: fc.constantFrom('push', 'schedule', 'pull_request', undefined),
  runner_environment: fc.constantFrom('self-hosted', 'github-hosted', undefined),
  run_id: fc.constantFrom('18700000412', '18700000412', '18700000412', undefined),
  aud: fc.constantFrom(AUDIENCE, [AUDIENCE], 'https://other.example', [AUDIENCE, 'x']),
  extra: fc.oneof(fc.string(), fc.boolean(), fc.constant(null), fc.array(fc.string())),
})

const RIGHT = {
  ...{ repository_owner_id: '9100001', repository_id: '784500001', ref: 'refs/heads/main', event_name: 'push' },
  ...{ runner_environment: 'self-hosted', run_id: '18700000412', aud: AUDIENCE, extra: '' },
}
/** Chance alone does not bring each decision that there is. */
const WANTED: [Record<string, unknown>, 'migrator' | 'reader' | 'writer', 'shop'][] = [
  [RIGHT, 'migrator', 'shop'],
  [RIGHT, 'reader', 'shop'],
  [{ ...RIGHT, aud: 'https://other.example' }, 'migrator', 'shop'],
  [{ ...RIGHT, repository_owner_id: '7' }, 'migrator', 'shop'],
  [RIGHT, 'writer', 'shop'],
  [{ ...RIGHT, ref: 'refs/tags/v1' }, 'migrator', 'shop'],
]

/** Everything that a decision says, as text. */
async function told(
  identify: () => Promise<Principal>,
  decide: (principal: Principal) => ReturnType<typeof evaluate>,
): Promise<string> {
  try {
    const decision = decide(await identify())
    if (decision.allowed) return JSON.stringify(decision.grant)
    throw decision.error
  } catch (thrown) {
    const { code, message, detail, hint } = asAccessError(thrown)
    return JSON.stringify({ code, message, detail, hint })
  }
}

test('explain and the live decision agree on 200 generated tokens', async () => {
  const key = signingKey('k1', 'RS256')
  const file = await writeConfig(HEAD.replace('    audience:', '    jwks_file: jwks.json\n    audience:') + RULES, {
    'jwks.json': JSON.stringify({ keys: [key.jwk] }),
  })
  const result = await loadPolicy(file, {})
  if (!result.ok) throw new Error('the policy does not load')
  const { policy, loaded } = result
  const config: Config = loaded.config
  const verifier = createVerifier(config.issuers)
  const claimsFile = join(dirname(file), 'claims.json')
  const seen = new Set<string>()
  const now = Math.floor(Date.now() / 1000)
  await fc.assert(
    fc.asyncProperty(
      CLAIMS,
      fc.constantFrom('migrator', 'reader', 'writer', 'ci', 'x'),
      fc.constantFrom('shop', 'stock', 'gone'),
      async (changes, user, database) => {
        const claims = {
          ...GITHUB_JOB,
          iss: 'https://token.actions.githubusercontent.com',
          iat: now - 5,
          exp: now + 280,
          ...changes,
        }
        const token = await key.sign(claims)
        await writeFile(claimsFile, JSON.stringify(claims))
        const decide = (principal: Principal) => evaluate(policy, principal, { database, user }, Date.now())
        const live = await told(() => verifier.verify(token), decide)
        expect(await told(() => identifyJob(config, { claims: claimsFile }), decide)).toBe(live)
        seen.add(/"code":"(\w+)"/.exec(live)?.[1] ?? 'allowed')
      },
    ),
    { numRuns: 200, examples: WANTED },
  )
  verifier.close()
  // Otherwise the tokens were all alike, and nothing was compared.
  for (const code of ['allowed', 'audience_mismatch', 'tenancy_mismatch', 'denied_by_rule', 'no_matching_rule'])
    expect(seen).toContain(code)
})
