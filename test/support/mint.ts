/** A principal, a grant and a database entry as the credentials' tests need them. */
import type { DatabaseConfig } from '../../src/config/schema.ts'
import type { Principal } from '../../src/identity/principal.ts'
import type { Grant } from '../../src/policy/types.ts'
import type { PostgresServer, Shop } from './postgres.ts'

export function principalOf(run: string): Principal {
  return {
    issuerName: 'github',
    provider: 'github-actions',
    iss: 'https://token.actions.githubusercontent.com',
    subject: 'repo:acme/shop:ref:refs/heads/main',
    claims: new Map(),
    auditClaims: {},
    job: { runId: run, runUrl: `https://github.com/acme/shop/actions/runs/${run}` },
    jobKey: JSON.stringify(['https://token.actions.githubusercontent.com', '9100001', run, '1', 'migrate']),
    tokenSha256: '0'.repeat(64),
    issuedAt: Date.now(),
    expiresAt: Date.now() + 300_000,
    tenancyMatches: true,
  }
}

export function grantOf(change: Partial<Grant> = {}): Grant {
  return {
    rule: 'migrate-production',
    ruleset: 'pgusher.yaml',
    policyVersion: '0'.repeat(64),
    database: 'shop-prod',
    role: 'shop_migrator',
    maxSession: 1_800_000,
    maxConnections: 5,
    functionCall: false,
    replication: false,
    textMode: 'full',
    ...change,
  }
}

/** An entry of `databases` for that server, without TLS. */
export function databaseOf(
  server: PostgresServer,
  shop: Shop,
  change: { prefix?: string; linger?: number } = {},
): DatabaseConfig {
  return {
    host: server.host,
    port: server.port,
    dbname: 'shop',
    tls: { mode: 'disable' },
    connect_timeout: 5_000,
    audit: {},
    credentials: { kind: 'ephemeral-role', admin: shop.admin, prefix: 'pgu_', linger: 0, ...change },
  }
}
