import { expect, test } from 'vitest'
import { identityBlock } from '../../src/audit/identity-block.ts'
import type { SessionIdentity } from '../../src/audit/recorder.ts'
import type { Principal } from '../../src/identity/principal.ts'

const principal = (runId: string): Principal => ({
  ...{ issuerName: 'github', provider: 'github-actions', iss: 'https://issuer.example', subject: 'repo:acme/shop' },
  ...{ claims: new Map([['run_id', runId]]), auditClaims: { run_id: runId }, job: { runId }, jobKey: runId },
  ...{ tokenSha256: '00', expiresAt: 1_800_000_000_000, issuedAt: 1_799_999_000_000, tenancyMatches: true },
})

const session = (sessionId: string, of: Principal, role: string): SessionIdentity => ({
  ...{ sessionId, client: { address: '192.0.2.1', port: 40_000 }, principal: of },
  db: { alias: 'shop', role, login: `pgu_${role}` },
})

test('sessions of one token share what it says of them, and keep no more memory alive than they use', () => {
  const job = principal('7')
  const [one, other] = [identityBlock(session('a', job, 'reader')), identityBlock(session('b', job, 'reader'))]
  expect(other.pgusher).toBe(one.pgusher)
  expect(other.rest.toString()).not.toBe(one.rest.toString())
  for (const part of [one.pgusher, one.rest]) expect(part.buffer.byteLength).toBe(part.length)
  expect(one.bytes).toBe(one.pgusher.length + one.rest.length)
})

test('another role, or another token, is another block', () => {
  const job = principal('7')
  const reader = identityBlock(session('a', job, 'reader'))
  expect(identityBlock(session('b', job, 'owner')).pgusher.toString()).toContain('"role":"owner"')
  expect(reader.pgusher.toString()).toContain('"role":"reader"')
  expect(identityBlock(session('c', job, 'reader')).pgusher.equals(reader.pgusher)).toBe(true)
  expect(identityBlock(session('d', principal('8'), 'reader')).pgusher.toString()).toContain('"run_id":"8"')
})
