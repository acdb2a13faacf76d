/** What the pages show of a command's output is what it prints for the token of docs/ci/github-actions.md. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { identityText } from '../src/cli/whoami-text.ts'
import { ownIdentity } from '../src/client/claims.ts'
import { refusalText } from '../src/client/refusal.ts'
import { parseServerAddress } from '../src/client/server-address.ts'
import { readPages } from './support/ci-pages.ts'
import { forged } from './support/tokens.ts'

const read = (page: string): string => readFileSync(new URL(`../docs/${page}`, import.meta.url), 'utf8')
const claims = readPages().find(({ name }) => name === 'github-actions')?.claims ?? {}
const identity = (change: object) => {
  const found = ownIdentity(forged({ alg: 'RS256' }, { ...claims, ...change }), 'github-actions')
  if (found === undefined) throw new Error('the page has no token')
  return found
}

/** The lines of the block without a language that begins so. */
function sample(page: string, beginning: string): string[] {
  const blocks = [...read(page).matchAll(/^```\n([\s\S]*?)^```$/gm)].map(([, body = '']) => body)
  return blocks.find((body) => body.startsWith(beginning))?.split('\n') ?? []
}

test('whoami.md', () => {
  const shown = sample('whoami.md', 'This job, for pgusher at')
  const job = Object.entries(identity({}).job).map(([name, value]) => [
    name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
    value,
  ])
  const printed = identityText('GitHub Actions', parseServerAddress('pgusher.acme.example')!, {
    ...{ provider: 'github-actions', issuer: String(claims['iss']), subject: String(claims['sub']), claims: {} },
    ...{ job: Object.fromEntries(job), expires_at: '2026-11-21T10:03:28Z' },
  })
  const upToTime = (line: string) => line.replace(/ UTC, .*/, ' UTC')
  const lines = printed.trimEnd().split('\n').map(upToTime)
  expect(shown.slice(0, lines.length).map(upToTime)).toEqual(lines)
})

test('exec.md', () => {
  const [title = '', message = '', ...rest] = sample('exec.md', 'pgusher: refused:')
  const printed = refusalText(
    {
      sqlstate: '42501',
      message: message.trim(),
      detail: 'rule "migrate-production":\nclaim ref: wanted "refs/heads/main", got "refs/heads/fix-1"',
      hint: 'Production migrations run only from main. Contact: #db-help.',
    },
    { database: 'shop-prod', user: 'shop_migrator', identity: identity({ ref: 'refs/heads/fix-1' }) },
  ).split('\n')
  const shown = [title, message, ...rest.slice(0, rest.indexOf('  …'))]
  expect(shown.length).toBeGreaterThan(8)
  expect(printed.slice(0, shown.length)).toEqual(shown)
})
