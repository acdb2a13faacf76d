/** A principal, a grant and a database entry as the credentials' tests need them. */

import type { DatabaseConfig } from '../../src/config/schema.ts'
import { createEphemeralRoleMinter, type EphemeralRoleOptions } from '../../src/credentials/ephemeral-role.ts'
import type { MintedCredential, Minter } from '../../src/credentials/minter.ts'
import type { Principal } from '../../src/identity/principal.ts'
import type { Grant } from '../../src/policy/types.ts'
import { type PostgresServer, query, type Shop, urlFor } from './shop.ts'

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
    windowConnections: 1_000,
    anyAddress: false,
    functionCall: false,
    replication: false,
    textMode: 'full',
    ...change,
  }
}

/** An entry of `databases` for that server, without TLS. */
export function databaseOf(
  server: Pick<PostgresServer, 'host' | 'port'>,
  shop: Pick<Shop, 'admin'>,
  change: { prefix?: string; linger?: number } = {},
): DatabaseConfig {
  return {
    host: server.host,
    port: server.port,
    dbname: 'shop',
    tls: { mode: 'disable' },
    connect_timeout: 5_000,
    audit: {},
    credentials: {
      kind: 'ephemeral-role',
      admin: { ...shop.admin, connections: 4 },
      prefix: 'pgu_',
      linger: 0,
      ...change,
    },
  }
}

/** As one process of pgusher would mint; `boot` tells processes apart. */
export function minterOf(
  server: Pick<PostgresServer, 'host' | 'port'>,
  shop: Shop,
  { boot = 'one', prefix, ...options }: EphemeralRoleOptions & { boot?: string; prefix?: string } = {},
): Minter {
  const config = databaseOf(server, shop, prefix === undefined ? {} : { prefix })
  if (config.credentials.kind !== 'ephemeral-role') throw new Error('not an ephemeral-role entry')
  const target = { alias: 'shop-prod', config, dbname: 'shop' }
  return createEphemeralRoleMinter(target, config.credentials, { name: 'test', boot }, options)
}

/** How pgusher logs in upstream with it: the role is said in the StartupMessage. */
export function urlOf(
  server: Pick<PostgresServer, 'superuserUrl'>,
  credential: MintedCredential,
  database = 'shop',
): string {
  const password = credential.secret.type === 'scram' ? credential.secret.password : ''
  const url = new URL(urlFor(server.superuserUrl, { user: credential.login, password, database }))
  if (credential.assumeRole !== undefined) url.searchParams.set('options', `-c role=${credential.assumeRole}`)
  return url.href
}

/** Every role that begins with the prefix, by name. */
export async function mintedRoles(server: PostgresServer, prefix = 'pgu_'): Promise<string[]> {
  const sql = 'SELECT rolname::text AS name FROM pg_roles WHERE starts_with(rolname::text, $1) ORDER BY 1'
  return (await query<{ name: string }>(server.superuserUrl, sql, [prefix])).map(({ name }) => name)
}

/** Who is a member of what, as the operator left it; compared before and after, nothing of pgusher's may stay. */
export async function memberships(server: PostgresServer): Promise<unknown[]> {
  return query(
    server.superuserUrl,
    `SELECT m.roleid::regrole::text AS role, m.member::regrole::text AS member, m.grantor::regrole::text AS grantor, m.admin_option
     FROM pg_auth_members m WHERE m.roleid >= 16384 OR m.member >= 16384 ORDER BY 1, 2, 3`,
  )
}
